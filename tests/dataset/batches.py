"""Stores of several shards and codecs, and whether batches hold what they do."""

from __future__ import annotations

import numpy as np
import torch

from featurestore import FeatureDataset, Recipe, Store
from featurestore.keys import sentence_key

RECIPE = Recipe({"kind": "test", "version": 1})
CODECS = ["float32", "float16", "int8"]


def sentences(n: int, longest: int, seed: int) -> list[tuple[str, ...]]:
    lengths = np.random.default_rng(seed).integers(1, longest + 1, n)
    return [tuple(f"{seed}.{i}.{j}" for j in range(length)) for i, length in enumerate(lengths)]


def vectors(tokens: tuple[str, ...], *shape: int) -> np.ndarray:
    random = np.random.default_rng(list(sentence_key(tokens)))
    return random.standard_normal((len(tokens), *shape)).astype(np.float32)


def make_store(path, codecs, *, n_layers=1, dim=24, longest=12, n=60) -> tuple[Store, list[tuple[str, ...]]]:
    """Return a store of several shards, a group of sentences in each codec."""
    store = Store.create(path, recipe=RECIPE, dim=dim, n_layers=n_layers, codec=codecs[0], shard_bytes=9_000)
    everything = []
    for number, codec in enumerate(codecs):
        with Store.open(path).write(codec=codec) as session:
            for tokens in sentences(n, longest, number):
                session.add(tokens, vectors(tokens, *store.vector_shape(0)[1:]))
                everything.append(tokens)
    return Store.open(path), everything


def expected(store: Store, tokens: tuple[str, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(store.get(tokens)).to(dtype)


def assert_right(dataset: FeatureDataset, store: Store, corpus, indices) -> None:
    batch = dataset.gather(indices)
    assert batch.features.shape[1] == max(len(corpus[i]) for i in indices)
    for row, i in zip(batch.features, indices, strict=True):
        n = len(corpus[i])
        if corpus[i] in store:
            assert torch.equal(row[:n], expected(store, corpus[i], dataset.dtype))
            n_stored = n
        else:
            n_stored = 0
        assert not row[n_stored:].any()
    packed, padded = dataset.gather(indices, packed=True), batch.packed()
    for found, wanted in zip(packed.features, padded.features, strict=True):
        assert torch.equal(found, wanted)
