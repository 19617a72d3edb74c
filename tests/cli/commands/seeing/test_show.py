"""``show`` a sentence: by text, tokens, key or the first digits of one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featurestore.keys import Sentence, condition_of, sentence_key
from featurestore.store.store import Store
from tests.cli.commands.small_store import (
    ALONE,
    LEFT,
    PLAIN,
    RECIPE,
    RIGHT,
    SENTENCES,
    in_a_shell,
    make_store,
)
from tests.kit.damage import forge_index

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


def test_show_of_a_damaged_sentence_exits_with_3(run, damaged):
    code, out, err = run("show", damaged.path, " ".join(SENTENCES[5]))
    assert (code, out) == (3, "")
    assert "is damaged" in err
    assert run("show", damaged.path, " ".join(SENTENCES[0]))[0] == 0


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
    assert "in 2 contexts: name one by --key" in err
    assert f'{sentence_key(LEFT).hex()}  {{"left":["Look","!"]}}' in err
    assert sentence_key(RIGHT).hex() in err


def test_show_never_shows_another_sentence_where_the_index_is_wrong(tmp_path, run):
    store = make_store(tmp_path / "store.fs")
    forge_index(store, row=np.roll(store.index.row, 1))
    code, out, err = run("show", store.path, "the cat sat")
    assert code == 3
    assert out == ""
    assert "points to the wrong sentence" in err
