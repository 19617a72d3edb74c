"""A problem that every head can learn: words that have one label each, their vectors, quick trainings."""

from __future__ import annotations

import numpy as np

from featurestore.corpora.contract.example import Example
from featurestore.dataset.features import FeatureDataset
from featurestore.models.training import TrainConfig
from featurestore.recipe import Recipe
from featurestore.store.store import Store

DIM = 12


WORDS = {"the": "DET", "a": "DET", "dog": "NOUN", "cat": "NOUN", "sees": "VERB", "is": "VERB", "red": "ADJ"}


def sentences(n: int, seed: int) -> list[tuple[str, ...]]:
    random = np.random.default_rng(seed)
    drawn = {tuple(random.choice(list(WORDS), random.integers(2, 9))) for _ in range(n)}
    return [tuple(map(str, s)) for s in sorted(drawn)]


def tagged(n: int, seed: int) -> list[Example]:
    return [Example(s, tuple(WORDS[w] for w in s)) for s in sentences(n, seed)]


def make_store(path, n_layers=1, version=1, magnitude=1.0):
    """Word vectors, of very different scales per dimension, in every layer but the first."""
    random = np.random.default_rng(5)
    scale = magnitude * 10.0 ** random.uniform(-3, 2, DIM)
    vectors = {word: (random.normal(size=DIM) * scale).astype(np.float32) for word in WORDS}
    store = Store.create(
        path, recipe=Recipe({"kind": "test", "version": version}), dim=DIM, n_layers=n_layers, codec="float32"
    )
    with store.write() as session:
        for tokens in sentences(200, 1) + sentences(60, 2):
            values = np.stack([vectors[word] for word in tokens])
            if n_layers > 1:
                values = np.stack([np.zeros_like(values)] + [values] * (n_layers - 1), axis=1)
            session.add(tokens, values)
    return Store.open(path)


def datasets(store, make=tagged):
    dataset = FeatureDataset(store, make(200, 1))
    return dataset, FeatureDataset(store, make(60, 2), labels=dataset.labels, unseen_labels="keep")


def quick(model, **settings):
    """Short trainings, in the precision that every machine has."""
    defaults = {
        "epochs": 40, "patience": 40, "lr": 0.02, "hidden": 16, "dropout": 0.0, "token_budget": 128,
        "precision": "float32",
    }  # fmt: skip
    return TrainConfig(model, **{**defaults, **settings})
