"""Corpora in files over stores of several shards, and what two openings of them must have in common."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from featurestore import Corpus, FeatureDataset, Recipe, Store, open_corpus
from featurestore.dataset.opening import folder, remembering
from tests.dataset.batches import sentences, vectors

CORPUS = [tuple(token + "abcdef"[i] for i, token in enumerate(tokens)) for tokens in sentences(50, 6, 0)]
TAGS = ("NOUN", "VERB", "ADJ")


def write_corpus(path: Path, corpus=CORPUS) -> Path:
    """Write sentences with a tag a token, in two documents."""
    text = ["# newdoc\n"]
    for number, tokens in enumerate(corpus):
        text += ["# newdoc\n"] if number == 20 else []
        text += [f"{token}\t{TAGS[(number + i) % 3]}\n" for i, token in enumerate(tokens)]
        text.append("\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text))
    return path


def write_store(path: Path, corpus=CORPUS, *, dim: int = 4, kind: str = "test") -> Store:
    """Make a store of several shards."""
    recipe = Recipe({"kind": kind, "version": 1})
    store = Store.create(path, recipe=recipe, dim=dim, codec="float32", shard_bytes=500)
    return add(store, corpus)


def add(store: Store, corpus) -> Store:
    """Add sentences in a session; return the store at that commit."""
    with store.write() as session:
        for tokens in corpus:
            session.add(tokens, vectors(tokens, store.dim))
    return Store.open(store.path)


def labelled(path: Path, **options) -> Corpus:
    return open_corpus(path, label="last", **options)


@contextmanager
def counting() -> Iterator[list[int]]:
    """Give a list that gets an entry whenever examples are looked up, not recalled."""
    lookups: list[int] = []

    def place(*arguments, **options):
        lookups.append(1)
        return finding(*arguments, **options)

    finding = remembering.place
    with mock.patch.object(remembering, "place", place):
        yield lookups


def openings() -> list[Path]:
    return sorted(folder.openings_folder().glob("*.opening"))


def assert_equal(one: FeatureDataset, other: FeatureDataset) -> None:
    """Assert that two datasets are the same in every respect."""
    assert len(one) == len(other) > 0
    for name in ("label_kind", "labels", "label_names", "label_counts", "n_missing", "stored_bytes"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("lengths", "document_starts", "documents"):
        mine, others = getattr(one, name), getattr(other, name)
        assert (mine is None) == (others is None), name
        if mine is not None:
            assert mine.dtype == others.dtype == np.int64, name
            np.testing.assert_array_equal(mine, others)
    everything = list(range(len(one)))
    for packed in (False, True):
        batches = [dataset.gather(everything, packed=packed) for dataset in (one, other)]
        features = [batch.features.data if packed else batch.features for batch in batches]
        assert torch.equal(*features)
        labels = [batch.labels for batch in batches]
        assert labels == [None, None] or (torch.equal(*labels) and labels[0].dtype == labels[1].dtype)
    for i in everything:
        assert one.tokens(i) == other.tokens(i)
        assert type(one.tokens(i)) is type(other.tokens(i))
        items = one[i], other[i]
        assert torch.equal(items[0].features, items[1].features)
        if one.label_kind is not None:
            assert one.gold(i) == other.gold(i)
            assert torch.equal(items[0].label, items[1].label)
            assert items[0].label.dtype == items[1].label.dtype == torch.int64


def pickled(dataset: FeatureDataset) -> FeatureDataset:
    return pickle.loads(pickle.dumps(dataset))
