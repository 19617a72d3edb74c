"""``info``, ``ls``, ``show``, ``stats``, ``verify`` and ``why`` on small real stores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featurestore.keys import ConditionedSentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.cli.commands.small_store import (
    CONTEXT,
    RECIPE,
    SENTENCES,
    in_a_shell,
    make_store,
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("inspect") / "empty.fs", [])


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


def test_damaged_manifest_exits_with_3_for_every_command(run, tmp_path):
    store = make_store(tmp_path / "s.fs")
    (store.path / "manifests" / "00000002.json").write_text("{")
    for command in ("info", "ls", "stats", "verify"):
        assert run(command, store.path)[0] == 3, command
    assert run("info", store.path, "--snapshot", 1)[0] == 0


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


def test_conditions_are_not_looked_for_where_vectors_depend_on_tokens_alone(run, store):
    assert json.loads(run("why", store.path, "Cat", "--json")[1])["with_conditions"] == []
    assert json.loads(run("show", store.path, "the cat sat", "--json")[1])["condition"] is None
    assert {json.loads(line)["condition"] for line in run("ls", store.path, "--json")[1].splitlines()} == {
        None
    }


def test_many_surroundings_are_not_all_listed(run, tmp_path):
    many = [ConditionedSentence(("a",), f"{number}".encode()) for number in range(30)]
    _, _, err = run("show", make_store(tmp_path / "s.fs", many, recipe=CONTEXT).path, "a")
    assert "in 30 contexts" in err
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
