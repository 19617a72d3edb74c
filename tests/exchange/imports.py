"""Imports as the tests make them, and files in the layouts of others."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from featurestore import Store
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.exchange.importing import import_vectors
from tests.kit.places import ROOT
from tests.kit.stores import (
    sentences,
    stored_sentences,
    vectors_of,
)

GOLDEN = ROOT / "tests" / "golden" / "elmo-tiny"
WORDS = sentences(12)
NOTE = "made by the tests"


def imported(path, format, into, corpus=None, **options) -> Store:
    if isinstance(corpus, list):
        corpus = corpus_from_sentences(corpus)
    import_vectors(path, format, into, corpus=corpus, **{"note": NOTE, **options})
    return Store.open(into)


def write_hdf5(path: Path, arrays, **datasets) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for name, value in datasets.items():
            file.create_dataset(name, (1,), dtype=h5py.string_dtype())[0] = value
    return path


def layers_first(tokens, n_layers=3):
    return vectors_of(tokens, n_layers=n_layers).transpose(1, 0, 2)


def write_text(path: Path, lines) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def assert_same(store, wanted, n_layers):
    assert stored_sentences(store) == list(dict.fromkeys(wanted))
    for tokens in wanted:
        assert np.array_equal(store.get(tokens), vectors_of(tokens, n_layers=n_layers)), tokens
