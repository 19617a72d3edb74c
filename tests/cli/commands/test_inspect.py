"""``info``, ``ls``, ``show``, ``stats``, ``verify`` and ``why`` on small real stores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featurestore.encoders.loading import encoder_recipe
from featurestore.keys import ConditionedSentence, Sentence, condition_of, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.kit.damage import forge_index

RECIPE = Recipe({"kind": "test", "version": 1, "layers": [0, 1]})
SENTENCES = [
    ("the", "cat", "sat"),
    ("The", "CAT", "sat"),
    ("New York", "is", "big"),
    ("naïve", "😀"),
    ("odd\ud800", "tab\t", "esc\x1b[31m"),
    tuple(f"w{i}" for i in range(40)),
]


def vectors_of(tokens: tuple[str, ...]) -> np.ndarray:
    random = np.random.default_rng(len(tokens))
    return random.normal(size=(len(tokens), 8)).astype(np.float32)


def make_store(path: Path, sentences=SENTENCES, **options) -> Store:
    options = {"recipe": RECIPE, "dim": 8, "encoder": "test:encoder", **options}
    store = Store.create(path, **options)
    with store.write() as session:
        for tokens in sentences:
            session.add(tokens, vectors_of(tokens))
    return store.refreshed()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("inspect") / "store.fs")


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("inspect") / "empty.fs", [])


def in_a_shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which ``featurestore`` is the command."""
    define = f'featurestore() {{ "{sys.executable}" -m featurestore "$@"; }}; set -o pipefail; '
    return subprocess.run(["bash", "-c", define + command], capture_output=True, text=True, check=False)


# -- info


def test_info_shows_recipe_counts_and_codec(run, store):
    code, out, _ = run("info", store.path)
    assert code == 0
    for text in (str(store.path), "test:encoder", store.fingerprint, "layers: [0, 1]", "8 values a token",
                 "float16 (1 shard)", "codec error", "2 of 2"):  # fmt: skip
        assert text in out
    assert "UNTRAINED" not in out


def test_info_json(run, store):
    code, out, _ = run("info", store.path, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["recipe"] == RECIPE.to_dict()
    assert found["fingerprint"] == store.fingerprint
    assert (found["n_sentences"], found["n_tokens"], found["n_shards"]) == (6, store.n_tokens, 1)
    assert (found["dim"], found["n_layers"], found["codec"]) == (8, 1, "float16")
    assert found["n_bytes"] == store.n_bytes
    assert 0 < found["codec_error"]["relative_l2"] < 1e-3
    assert found["commit"]["software"].startswith("featurestore ")


def test_info_warns_of_an_untrained_encoder(run, tmp_path):
    untrained = make_store(
        tmp_path / "s.fs", recipe=Recipe({"kind": "test", "version": 1, "untrained": True})
    )
    code, out, _ = run("info", untrained.path)
    assert code == 0
    assert "UNTRAINED" in out
    assert json.loads(run("info", untrained.path, "--json")[1])["untrained"] is True


def test_info_of_an_empty_store_and_of_an_earlier_snapshot(run, store, empty):
    assert run("info", empty.path)[0] == 0
    assert json.loads(run("info", empty.path, "--json")[1])["n_sentences"] == 0
    assert json.loads(run("info", store.path, "--snapshot", 1, "--json")[1])["n_sentences"] == 0


def test_info_prints_no_control_characters_of_a_stranger(run, tmp_path):
    recipe = Recipe({"kind": "\x1b[2Jevil", "version": 1})
    code, out, _ = run("info", make_store(tmp_path / "s.fs", recipe=recipe, encoder="\x1b]0;evil\x07").path)
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out


# -- ls


def test_ls_lists_key_length_and_text(run, store):
    code, out, _ = run("ls", store.path)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == len(SENTENCES)
    assert lines[0].split() == [sentence_key(SENTENCES[0]).hex(), "3", "the", "cat", "sat"]
    assert r"odd\ud800 tab\t esc\x1b[31m" in lines[4]


def test_ls_contains(run, store):
    assert len(run("ls", store.path, "--contains", "cat sat")[1].splitlines()) == 1
    assert len(run("ls", store.path, "--contains", "cat sat", "--ignore-case")[1].splitlines()) == 2
    assert "New York is big" in run("ls", store.path, "--contains", "York is")[1]


def test_ls_limit(run, store):
    assert len(run("ls", store.path, "--limit", 2)[1].splitlines()) == 2
    assert run("ls", store.path, "--limit", 0)[0] == 2


def test_ls_json_is_one_object_a_line_with_exact_tokens(run, store):
    code, out, _ = run("ls", store.path, "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [tuple(entry["tokens"]) for entry in listed] == SENTENCES
    assert all(entry["n_tokens"] == len(entry["tokens"]) for entry in listed)
    assert [entry["key"] for entry in listed] == [sentence_key(tokens).hex() for tokens in SENTENCES]


def test_ls_that_finds_nothing_says_so(run, store, empty):
    assert run("ls", store.path, "--contains", "zebra") == (1, "", "no sentence contains 'zebra'\n")
    assert run("ls", empty.path) == (1, "", "the store is empty\n")
    assert run("ls", empty.path, "--json") == (1, "", "")


def test_ls_into_head_is_quiet(tmp_path):
    many = make_store(tmp_path / "s.fs", [(f"sentence{i}", "x" * 100) for i in range(3000)])
    done = in_a_shell(f"featurestore ls '{many.path}' | head -n 2")
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_ls_into_head_succeeds(tmp_path):
    many = make_store(tmp_path / "s.fs", [(f"sentence{i}", "x" * 100) for i in range(3000)])
    assert in_a_shell(f"featurestore ls '{many.path}' | head -n 2").returncode == 0


# -- show


def test_show_by_text(run, store):
    code, out, _ = run("show", store.path, "the cat sat")
    assert code == 0
    assert sentence_key(SENTENCES[0]).hex() in out
    assert "3 x 8, stored as float16" in out
    norm = np.linalg.norm(store.get(SENTENCES[0])[1])
    assert f"{norm:.3f}" in next(line for line in out.splitlines() if "  cat " in line)


def test_show_json_says_where_the_bytes_lie(run, store):
    code, out, _ = run("show", store.path, "the cat sat", "--json", "--vectors")
    found = json.loads(out)
    expected = store.get(SENTENCES[0])
    raw = (store.path / "shards" / found["shard"]).read_bytes()[found["byte_offset"] :][: found["n_bytes"]]
    assert code == 0
    assert found["tokens"] == list(SENTENCES[0])
    assert found["shape"] == [3, 8]
    np.testing.assert_array_equal(np.array(found["vectors"], np.float32), expected)
    np.testing.assert_array_equal(np.frombuffer(raw, "<f2").reshape(3, 8).astype(np.float32), expected)
    np.testing.assert_allclose(found["norms"], np.linalg.norm(expected, axis=1), rtol=1e-5)
    assert "vectors" not in json.loads(run("show", store.path, "the cat sat", "--json")[1])


@pytest.mark.parametrize("tokens", SENTENCES, ids=ascii)
def test_show_by_json_tokens_and_by_key(run, store, tokens):
    by_tokens = run("show", store.path, json.dumps(tokens), "--tokens", "--json")
    by_key = run("show", store.path, "--key", sentence_key(tokens).hex(), "--json")
    assert by_tokens[0] == 0
    assert by_tokens == by_key
    assert tuple(json.loads(by_key[1])["tokens"]) == tokens
    assert run("show", store.path, "--key", sentence_key(tokens).hex())[0] == 0


def test_show_of_a_lone_surrogate_reaches_a_real_terminal(store):
    key = sentence_key(SENTENCES[4]).hex()
    for options in ("", "--json"):
        done = in_a_shell(f"featurestore show '{store.path}' --key {key} {options}")
        assert (done.returncode, done.stderr) == (0, "")
        assert r"odd\ud800" in done.stdout


def test_show_by_the_first_digits_of_a_key(run, store):
    digits = sentence_key(SENTENCES[2]).hex()
    assert json.loads(run("show", store.path, "--key", digits[:8].upper(), "--json")[1])["key"] == digits


def test_show_of_an_ambiguous_prefix_asks_for_more(run, tmp_path):
    by_prefix: dict[str, tuple[str, ...]] = {}
    for number in range(100_000):
        tokens = (f"t{number}",)
        other = by_prefix.setdefault(sentence_key(tokens).hex()[:4], tokens)
        if other != tokens:
            break
    both = make_store(tmp_path / "s.fs", [tokens, other])
    code, _, err = run("show", both.path, "--key", sentence_key(tokens).hex()[:4])
    assert code == 2
    assert "2 keys start with" in err
    assert "more digits" in err
    assert run("show", both.path, "--key", sentence_key(tokens).hex()[:16])[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["dog"], 1, "'dog' (1 tokens) is not in"),
        (["--key", "0000"], 1, "no sentence of"),
        (["--key", "xyz!"], 2, "4 to 32 hexadecimal digits"),
        (["--key", "abc"], 2, "4 to 32 hexadecimal digits"),
        ([], 2, "either the sentence's TEXT or its --key"),
        (["the cat sat", "--key", "abcd"], 2, "either"),
        (["not json", "--tokens"], 2, "--tokens wants a JSON list"),
        (['{"a": 1}', "--tokens"], 2, "found a dict"),
        (['["a", 1]', "--tokens"], 1, "token 1 is a int"),
        (["   "], 1, "at least one token"),
    ],
)
def test_show_of_what_is_not_there_says_why(run, store, arguments, code, message):
    found, out, err = run("show", store.path, *arguments)
    assert (found, out) == (code, "")
    assert message in err


def test_show_of_a_missing_sentence_names_what_is_like_it(run, store):
    code, _, err = run("show", store.path, "New York is big")
    assert code == 1
    assert 'like it: ["New York", "is", "big"]' in err
    assert "featurestore ls" in err
    assert "like it: the cat sat" in run("show", store.path, "the Cat sat")[2]


def test_show_several_layers(run, tmp_path):
    layered = Store.create(tmp_path / "s.fs", recipe=RECIPE, dim=4, n_layers=3)
    with layered.write() as session:
        session.add(["a", "b"], np.ones((2, 3, 4), np.float32))
    assert "2 x 3 x 4" in run("show", layered.path, "a b")[1]
    found = json.loads(run("show", layered.path, "a b", "--json", "--vectors")[1])
    assert found["shape"] == [2, 3, 4]
    assert np.array(found["vectors"]).size == 24


# -- stats


def test_stats_counts_every_sentence(run, store):
    code, out, _ = run("stats", store.path)
    assert code == 0
    assert "tokens in a sentence" in out
    assert "norm of a vector" in out
    found = json.loads(run("stats", store.path, "--json")[1])
    assert (found["n_sentences"], found["n_tokens"], found["n_repeated"]) == (6, store.n_tokens, 0)
    assert sum(found["lengths"]["counts"]) == 6
    assert (found["lengths"]["smallest"], found["lengths"]["largest"]) == (2, 40)
    everything = np.concatenate([vectors for _, vectors in store])
    assert found["value_mean"] == pytest.approx(everything.mean(), abs=1e-6)
    assert found["value_std"] == pytest.approx(everything.std(), rel=1e-5)
    assert found["norms"]["mean"] == pytest.approx(np.linalg.norm(everything, axis=1).mean(), rel=1e-5)


def test_stats_of_a_sample_reads_fewer_vectors(run, store):
    found = json.loads(run("stats", store.path, "--sample", 2, "--json")[1])
    assert found["n_norms"] < found["n_tokens"]
    assert found["n_sentences"] == 6


def test_stats_of_one_sentence(run, tmp_path):
    assert run("stats", make_store(tmp_path / "s.fs", [("a",)]).path)[0] == 0


def test_stats_of_an_empty_store(run, empty):
    code, _, err = run("stats", empty.path)
    assert code == 1
    assert "nothing to count" in err


# -- verify


def test_verify_of_a_sound_store(run, store, empty):
    assert run("verify", store.path)[:2] == (0, _sound_line(store))
    assert "structure sound" in run("verify", store.path, "--quick")[1]
    found = json.loads(run("verify", store.path, "--json")[1])
    assert (found["sound"], found["findings"], found["n_sentences"]) == (True, [], 6)
    assert run("verify", empty.path)[0] == 0


def _sound_line(store: Store) -> str:
    return f"every byte as committed: 1 shard, 6 sentences, {store.n_bytes / 1000:,.1f} kB\n"


@pytest.fixture
def damaged(tmp_path) -> Store:
    """A store whose last vector has a flipped bit."""
    store = make_store(tmp_path / "damaged.fs")
    path = store.path / "shards" / store.manifest.shards[0].name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    return store


def test_verify_of_a_damaged_store_names_the_sentence(run, damaged):
    code, out, _ = run("verify", damaged.path)
    assert code == 3
    assert damaged.manifest.shards[0].name in out
    assert sentence_key(SENTENCES[5]).hex() in out
    assert "1 finding in 1 shard" in out
    code, out, _ = run("verify", damaged.path, "--json")
    (finding,) = json.loads(out)["findings"]
    assert code == 3
    assert (finding["sentence"], finding["key"]) == (5, sentence_key(SENTENCES[5]).hex())


def test_show_of_a_damaged_sentence_exits_with_3(run, damaged):
    code, out, err = run("show", damaged.path, " ".join(SENTENCES[5]))
    assert (code, out) == (3, "")
    assert "is damaged" in err
    assert run("show", damaged.path, " ".join(SENTENCES[0]))[0] == 0


def test_damaged_manifest_exits_with_3_for_every_command(run, tmp_path):
    store = make_store(tmp_path / "s.fs")
    (store.path / "manifests" / "00000002.json").write_text("{")
    for command in ("info", "ls", "stats", "verify"):
        assert run(command, store.path)[0] == 3, command
    assert run("info", store.path, "--snapshot", 1)[0] == 0


# -- why


def test_why_cached(run, store):
    code, out, _ = run("why", store.path, "the cat sat")
    assert code == 0
    assert "cached: " in out
    assert store.manifest.shards[0].name in out
    found = json.loads(run("why", store.path, "the cat sat", "--json")[1])
    assert (found["cached"], found["in_store"], found["nearest"]) == (True, True, [])
    assert found["key"] == sentence_key(SENTENCES[0]).hex()


def test_why_missing_shows_what_is_like_it(run, store):
    code, out, _ = run("why", store.path, "New York is big")
    assert code == 1
    assert "(4 tokens)" in out
    assert "not cached: no sentence of the store has exactly these tokens" in out
    assert 'like it  ["New York", "is", "big"]' in out
    code, out, _ = run("why", store.path, "New York is big", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["cached"], found["nearest"]) == (False, [["New York", "is", "big"]])


@pytest.mark.parametrize("sign", ["\u00a0", "\u3000", "\u2028", "\x1c"])
def test_a_text_is_split_where_corpora_are(run, tmp_path, sign):
    stored = (f"10{sign}000", "cats")
    path = make_store(tmp_path / "s.fs", [stored, ("10", "000", "cats")]).path
    assert run("why", path, f"10{sign}000 cats", "--json")[0] == 0
    found = json.loads(run("show", path, f"10{sign}000 cats", "--json")[1])
    assert tuple(found["tokens"]) == stored
    # What is like a sentence is shown as it can be given back.
    code, out, _ = run("why", path, f"10{sign}000 CATS")
    listed = [line.split("like it  ")[1] for line in out.splitlines() if "like it" in line]
    assert (code, listed) == (1, [json.dumps(stored), "10 000 cats"])
    assert run("why", path, listed[0], "--tokens")[0] == run("why", path, listed[1])[0] == 0


def test_why_of_json_tokens(run, store):
    assert run("why", store.path, '["New York", "is", "big"]', "--tokens")[0] == 0


ENCODER = "elmo:untrained-small?seed=0"


@pytest.fixture(scope="module")
def elmo_store(tmp_path_factory) -> Store:
    """A store that says it was made by an encoder whose recipe can be worked out here."""
    path = tmp_path_factory.mktemp("inspect") / "elmo.fs"
    return make_store(path, recipe=encoder_recipe(ENCODER, layers="average"), encoder=ENCODER)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--layers", "top"], {"layers"}),
        (["--precision", "bfloat16"], {"precision"}),
        (["--layers", "all", "--precision", "float16"], {"layers", "precision"}),
        (["--encoder", "elmo:untrained-small?seed=1"], {"weights_sha256", "untrained.seed"}),
    ],
    ids=" ".join,
)
def test_why_names_every_field_in_which_the_wanted_encoder_differs(run, elmo_store, options, fields):
    code, out, _ = run("why", elmo_store.path, "the cat sat", *options, "--json")
    found = json.loads(out)
    assert code == 4
    assert (found["cached"], found["in_store"]) == (False, True)
    assert {difference["field"] for difference in found["differences"]} == fields
    code, out, _ = run("why", elmo_store.path, "the cat sat", *options)
    assert code == 4
    assert all(f"recipe    {field}: " in out for field in fields)
    assert "not cached for this encoder" in out


@pytest.mark.parametrize(
    "options", [["--layers", "average"], ["--encoder", ENCODER, "--precision", "float32"]]
)
def test_why_with_the_stores_own_encoder_is_cached(run, elmo_store, options):
    assert run("why", elmo_store.path, "the cat sat", *options)[0] == 0
    assert run("why", elmo_store.path, "absent", *options)[0] == 1


def test_why_of_a_store_of_another_kind_names_the_differences(run, store):
    code, out, _ = run("why", store.path, "the cat sat", "--encoder", ENCODER, "--json")
    fields = {difference["field"] for difference in json.loads(out)["differences"]}
    assert code == 4
    assert {"kind", "weights_sha256", "layers"} <= fields


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_why_of_precision_auto_is_content_with_the_stores(run, tmp_path, precision):
    recipe = encoder_recipe(ENCODER, precision=precision)
    path = make_store(tmp_path / "s.fs", recipe=recipe, encoder=ENCODER).path
    assert run("why", path, "the cat sat", "--precision", "auto")[0] == 0
    code, out, _ = run("why", path, "the cat sat", "--precision", "auto", "--layers", "top", "--json")
    assert (code, [found["field"] for found in json.loads(out)["differences"]]) == (4, ["layers"])


@pytest.mark.parametrize("options", [["--encoder", "bert:large"], ["--layers", "seventh"]])
def test_why_with_an_encoder_that_is_none_exits_with_2(run, elmo_store, options):
    code, out, err = run("why", elmo_store.path, "the cat sat", *options)
    assert (code, out) == (2, "")
    assert options[1] in err


# -- sentences whose vectors depend on more than the tokens

CONTEXT = Recipe({"kind": "test", "version": 1, "depends_on": {"context": 8}})
LEFT, RIGHT, ALONE = (
    ConditionedSentence(tokens, condition)
    for tokens, condition in (
        (("the", "cat", "sat"), b'{"left":["Look","!"]}'),
        (("the", "cat", "sat"), b"\x1b[31m\xff" + b"x" * 500),
        (("only", "here"), b'{"right":["now"]}'),
    )
)
PLAIN = ("nothing", "special")


@pytest.fixture(scope="module")
def in_context(tmp_path_factory) -> Store:
    """Two sentences of the same tokens, one of its own, and one without a condition."""
    return make_store(
        tmp_path_factory.mktemp("inspect") / "context.fs", [LEFT, RIGHT, ALONE, PLAIN], recipe=CONTEXT
    )


def test_ls_shows_what_sentences_depend_on(run, in_context):
    lines = run("ls", in_context.path)[1].splitlines()
    assert lines[0].endswith(' the cat sat  with {"left":["Look","!"]}')
    assert lines[1].split("  with ")[1].startswith("\\x1b[31m\ufffdxxx")
    assert lines[1].endswith("xxx ...")
    assert len(lines[1]) < 200
    assert lines[3].endswith(" nothing special")
    listed = [json.loads(line) for line in run("ls", in_context.path, "--json")[1].splitlines()]
    assert [entry["condition"] for entry in listed] == [
        '{"left":["Look","!"]}', "\x1b[31m\ufffd" + "x" * 500, '{"right":["now"]}', None
    ]  # fmt: skip
    assert listed[0]["tokens"] == listed[1]["tokens"] == ["the", "cat", "sat"]


@pytest.mark.parametrize("tokens", [LEFT, RIGHT, ALONE, PLAIN], ids=repr)
def test_show_by_key_shows_the_condition(run, in_context, tokens: Sentence):
    key = sentence_key(tokens).hex()
    found = json.loads(run("show", in_context.path, "--key", key, "--json")[1])
    assert (found["key"], found["tokens"]) == (key, list(tokens))
    expected = condition_of(tokens).decode("utf-8", "replace") or None
    assert found["condition"] == expected
    code, out, _ = run("show", in_context.path, "--key", key)
    assert code == 0
    assert ("\ncondition  " in out) == (expected is not None)
    assert "\x1b" not in out


def test_show_by_text_finds_the_only_sentence_of_these_tokens(run, in_context):
    found = json.loads(run("show", in_context.path, "only here", "--json")[1])
    assert found["key"] == sentence_key(ALONE).hex()
    assert json.loads(run("show", in_context.path, "nothing special", "--json")[1])["condition"] is None


def test_show_by_text_asks_which_of_several_surroundings(run, in_context):
    code, out, err = run("show", in_context.path, "the cat sat")
    assert (code, out) == (2, "")
    assert "in 2 surroundings: name one by --key" in err
    assert f'{sentence_key(LEFT).hex()}  {{"left":["Look","!"]}}' in err
    assert sentence_key(RIGHT).hex() in err


def test_why_tells_of_other_surroundings(run, in_context):
    code, out, _ = run("why", in_context.path, "the cat sat")
    assert code == 1
    assert "not cached without surroundings; with surroundings the store has it 2 times" in out
    assert sentence_key(LEFT).hex() in out
    found = json.loads(run("why", in_context.path, "the cat sat", "--json")[1])
    assert (found["cached"], found["nearest"]) == (False, [])
    assert [entry["key"] for entry in found["with_conditions"]] == [
        sentence_key(tokens).hex() for tokens in (LEFT, RIGHT)
    ]
    assert found["with_conditions"][0]["condition"] == '{"left":["Look","!"]}'
    assert run("why", in_context.path, "nothing special")[0] == 0
    assert "like it  only here  with " in run("why", in_context.path, "Only here")[1]


def test_conditions_are_not_looked_for_where_vectors_depend_on_tokens_alone(run, store):
    assert json.loads(run("why", store.path, "Cat", "--json")[1])["with_conditions"] == []
    assert json.loads(run("show", store.path, "the cat sat", "--json")[1])["condition"] is None
    assert {json.loads(line)["condition"] for line in run("ls", store.path, "--json")[1].splitlines()} == {
        None
    }


def test_many_surroundings_are_not_all_listed(run, tmp_path):
    many = [ConditionedSentence(("a",), f"{number}".encode()) for number in range(30)]
    _, _, err = run("show", make_store(tmp_path / "s.fs", many, recipe=CONTEXT).path, "a")
    assert "in 30 surroundings" in err
    assert len(err.splitlines()) == 1 + 10 + 1


# -- every command


@pytest.mark.parametrize("command", ["info", "ls", "show", "stats", "verify", "why"])
def test_path_that_is_no_store_exits_with_2(run, tmp_path, command):
    text = ["a"] if command in ("show", "why") else []
    for path in (tmp_path / "absent", tmp_path):
        code, out, err = run(command, path, *text)
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ")
        assert str(path) in err


def test_show_never_shows_another_sentence_where_the_index_is_wrong(tmp_path, run):
    store = make_store(tmp_path / "store.fs")
    forge_index(store, row=np.roll(store.index.row, 1))
    code, out, err = run("show", store.path, "the cat sat")
    assert code == 3
    assert out == ""
    assert "points to the wrong sentence" in err
