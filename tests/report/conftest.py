"""Small stores that reports are made of."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.corpora.contract.example import Example
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.kit.stores import sentences, vectors_of

DIM, N_LAYERS = 12, 2
WILD = [
    ("<script>", "alert(1)", "</script>", "&amp;"),
    ("שלום", "עולם", "!"),
    ("\u202egnihtyna", "$x^2$", "a\ud800b", "nul\0"),
    ('"><img', "src=x", "onerror=alert(2)>"),
]


def vectors(tokens) -> np.ndarray:
    """Of two layers; dimension 3 of layer 1 dominates, dimension 5 is dead, the last one has two values."""
    found = vectors_of(tokens, dim=DIM, n_layers=N_LAYERS)
    found[:, 1, 3] *= 20
    found[:, 1, 5] = 0.25
    found[:, 1, 11] = np.sign(found[:, 1, 11])
    return found


def fill(path, wanted, **options) -> Store:
    recipe = Recipe({"kind": "test", "version": 1, "note": "<b>bold</b>"})
    store = Store.create(
        path, recipe=recipe, encoder="test:<i>", dim=DIM, n_layers=N_LAYERS, codec="float32", **options
    )
    with store.write() as session:
        for tokens in wanted:
            session.add(tokens, vectors(tokens))
    return Store.open(path, check="always")


def labelled_by_vectors(store, layer: int) -> list[Example]:
    """A label that only one layer tells: the sign of its first number."""
    return [
        Example(tuple(tokens), tuple("plus" if value > 0 else "minus" for value in array[:, layer, 0]))
        for tokens, array in store
    ]


@pytest.fixture(scope="session")
def reported(tmp_path_factory) -> Store:
    return fill(tmp_path_factory.mktemp("report") / "store", [*sentences(70), *WILD], shard_bytes=4000)
