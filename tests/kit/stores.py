"""Small stores: sentences by number, vectors that sentences alone decide, an encoder that returns them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.keys import ConditionedSentence, Sentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.format.directory import manifest_path
from featurestore.store.listing.shards import Shards
from featurestore.store.store import Store

RECIPE = Recipe({"kind": "test", "version": 1})
DIM = 8
TOLERANCE = {"float32": 0.0, "float16": 2**-11, "int8": 2e-2}

ODD_SENTENCES: list[Sentence] = [
    ("\ud800", "x\udfff"),
    ("nul\0inside", "\0"),
    ("😀", "👩‍👩‍👧", "🇩🇪"),
    ("two words", " ", "\n", "\t"),
    ("é", "e\u0301"),
    ("a/b", "/", "..", "\\"),
    ("x" * 300, "ß" * 150),
    ("\u202e", "\u200b", "\ufeff"),
]


CONDITIONED_SENTENCES: list[Sentence] = [
    ConditionedSentence(("the", "cat"), b'{"left":["Look","!"]}'),
    ConditionedSentence(("the", "cat"), b'{"left":["Look","."]}'),
    ConditionedSentence(("the", "cat"), b"\0"),
    ConditionedSentence(("s1", "the"), bytes(range(256)) * 20),
    ConditionedSentence(("\ud800", "x\udfff"), b"\xff not text"),
]


def sentence(number: int) -> Sentence:
    """Return the sentence of a number: one to five tokens, all sentences different."""
    return (f"s{number}", *("the", "cat", "sat", ".")[: number % 5])


def sentences(n: int, start: int = 0) -> list[Sentence]:
    return [sentence(number) for number in range(start, start + n)]


def vectors_of(tokens: Sentence, *, dim: int = DIM, n_layers: int = 1) -> NDArray[np.float32]:
    """Return the vectors of a sentence: Gaussian, and a function of its tokens and condition alone."""
    random = np.random.default_rng(int.from_bytes(sentence_key(tokens), "little"))
    shape = (len(tokens), dim) if n_layers == 1 else (len(tokens), n_layers, dim)
    return random.normal(size=shape).astype(np.float32)


class KitEncoder:
    """An encoder that gives the vectors of :func:`vectors_of`, ``drift`` times as long as they should be."""

    spec, recipe, device = "test:", RECIPE, "cpu"

    def __init__(self, dim: int = DIM, n_layers: int = 1, drift: float = 1.0) -> None:
        self.dim, self.n_layers, self.drift = dim, n_layers, drift
        self.n_encoded = 0

    def encode(self, sentences: Iterable[Sentence]) -> list[NDArray[np.float32]]:
        listed = list(sentences)
        self.n_encoded += len(listed)
        return [self.drift * vectors_of(tokens, dim=self.dim, n_layers=self.n_layers) for tokens in listed]


def create(path: Path, **options: Any) -> Store:
    """Make an empty store; small, exact, several sentences a shard unless the options say otherwise."""
    return Store.create(
        path, **{"recipe": RECIPE, "dim": DIM, "codec": "float32", "shard_bytes": 1024, **options}
    )


def fill(store: Store, wanted: Iterable[Sentence]) -> Store:
    """Add sentences with their vectors in one session; return the store at its latest commit."""
    with store.write() as session:
        for tokens in wanted:
            session.add(tokens, vectors_of(tokens, dim=store.dim, n_layers=store.n_layers))
    return store.refreshed()


def assert_holds(store: Store, wanted: Iterable[Sentence]) -> None:
    """Check that every sentence reads back as its own vectors, as exactly as the codec promises."""
    listed = list(wanted)
    for tokens, found in zip(listed, store.get_many(listed), strict=True):
        expected = vectors_of(tokens, dim=store.dim, n_layers=store.n_layers)
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error <= TOLERANCE[store.manifest.codec], (tokens, error)


def as_version_1(path: Path) -> Store:
    """Write a store's last manifest as an older featurestore would have; its other ones and its lists go."""
    last = Store.open(path).manifest
    old = replace(last, version=1, shards=Shards(tuple(last.shards)))
    for file in (path / "manifests").iterdir():
        file.unlink()
    manifest_path(path, last.number).write_bytes(old.to_json())
    shutil.rmtree(path / "lists", ignore_errors=True)
    return Store.open(path)


def stored_sentences(store: Store) -> list[Sentence]:
    """Return what the latest commit of a store holds, in order."""
    return [tokens for _, _, tokens in store.refreshed().sentences()]


def shard_path(store: Store, number: int = 0) -> Path:
    return store.path / "shards" / store.manifest.shards[number].name
