"""The rule for sentences in FORMAT.md, end to end: what is none is refused, what is one comes back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from featurestore import Store, extract, sentence_key
from featurestore.cli.main import main
from featurestore.errors import CorpusError, SentenceError
from featurestore.store.verification import verify

SENTENCES = {
    "one token": ("word",),
    "ten thousand tokens": tuple(f"w{number % 97}" for number in range(10_000)),
    "emoji": ("😀", "👩‍👩‍👧", "🇩🇪", "☝🏿"),
    "NUL": ("nul\0inside", "\0", "\0\0"),
    "slashes": ("/", "a/b", "..", "\\", "/etc/passwd"),
    "lone surrogates": ("\ud800", "x\udfff", "\udc80\ud800"),
    "tokens of 300 bytes": ("x" * 300, "ß" * 150, "😀" * 75),
    "composed and decomposed": ("é", "e\u0301"),
    "blanks": (" ", "\n", "two words", "\u00a0"),
    "invisible": ("\u202e", "\u200b", "\ufeff"),
}


def key_by_the_rule(tokens: tuple[str, ...]) -> bytes:
    """Return the key as FORMAT.md defines it."""
    encoded = [token.encode("utf-8", "surrogatepass") for token in tokens]
    message = b"".join(len(raw).to_bytes(4, "little") + raw for raw in encoded)
    return hashlib.blake2b(message, digest_size=16).digest()


@pytest.fixture(scope="module")
def expected(tiny_elmo):
    return {name: tiny_elmo.encode([tokens])[0] for name, tokens in SENTENCES.items()}


@pytest.fixture(scope="module", params=["from Python", "by the command"])
def store(request, tmp_path_factory, tiny_elmo, tiny_elmo_spec) -> Store:
    """All of them, each given twice."""
    folder: Path = tmp_path_factory.mktemp("sentences")
    if request.param == "from Python":
        extract([*SENTENCES.values()] * 2, tiny_elmo, folder / "store", codec="float32", progress=False)
    else:
        corpus = folder / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"tokens": tokens}) + "\n" for tokens in SENTENCES.values()) * 2)
        arguments = ["extract", corpus, "--store", folder / "store", "--encoder", tiny_elmo_spec]
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments), "--codec", "float32", "--device", "cpu", "--no-progress"])
        assert stop.value.code == 0
    return Store.open(folder / "store")


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_comes_back_exactly(store, expected, name):
    tokens = SENTENCES[name]
    assert sentence_key(tokens) == key_by_the_rule(tokens)
    place = store.locate([key_by_the_rule(tokens)])
    assert store.reader(int(place.shard[0])).tokens(int(place.row[0])) == tokens
    found = store.get(list(tokens))
    assert found.shape == (len(tokens), store.dim)
    assert np.linalg.norm(found - expected[name]) <= 1e-5 * np.linalg.norm(expected[name])


def test_each_is_there_once_in_order_and_sound(store):
    assert [tokens for _, _, tokens in store.sentences()] == [*SENTENCES.values()]
    assert list(verify(store)) == []


@pytest.mark.parametrize("tokens", [(), ("",), ("a", ""), "a bare string", (b"bytes",), (None,)], ids=repr)
def test_what_is_no_sentence_is_refused_and_nothing_made(tmp_path, tiny_elmo, tokens):
    with pytest.raises((SentenceError, CorpusError)):
        extract([("fine",), tokens], tiny_elmo, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()
