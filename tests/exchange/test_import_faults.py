"""Imports that are killed, and input that is wrong: one clear error, and nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore import Example, Store
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.disk.filesystem import FileSystem
from featurestore.errors import (
    CorpusError,
    StoreWriteError,
    UsageError,
    VectorError,
)
from featurestore.exchange.exporting import export
from featurestore.exchange.importing import import_vectors
from tests.exchange.imports import NOTE, WORDS, assert_same, imported
from tests.kit.stores import (
    create,
    fill,
    vectors_of,
)

# -- killed, and wrong


class Killed(Exception):
    pass


class DyingDisk(FileSystem):
    """Ends the process, as it were, when the second shard is put in place."""

    def __init__(self) -> None:
        super().__init__()
        self.n_linked = 0

    def link_new(self, source, target):
        if target.parent.name == "shards":
            self.n_linked += 1
            if self.n_linked == 2:
                raise Killed
        return super().link_new(source, target)


def test_what_is_killed_leaves_an_empty_store_and_is_run_again(tmp_path):
    np.save(tmp_path / "x.npy", np.concatenate([vectors_of(t) for t in WORDS]))
    corpus = corpus_from_sentences(WORDS)
    with pytest.raises(Killed):
        import_vectors(
            tmp_path / "x.npy", "npy", tmp_path / "store", note=NOTE, corpus=corpus, shard_bytes=200,
            filesystem=DyingDisk(),
        )  # fmt: skip
    assert len(Store.open(tmp_path / "store")) == 0
    with pytest.raises(UsageError, match="already a store"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS, note="another")
    assert_same(imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS, shard_bytes=200), WORDS, 1)
    with pytest.raises(UsageError, match="already a store"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS, shard_bytes=200)


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "holds nan"), (-np.inf, "holds -inf"), (1e300, "too large")]
)
def test_values_that_are_no_numbers(tmp_path, value, says):
    flat = np.concatenate([vectors_of(t) for t in WORDS]).astype(np.float64)
    flat[4, 2] = value
    np.save(tmp_path / "x.npy", flat)
    with pytest.raises(VectorError, match=f"{says}.*token 1 .'the'"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS)


def test_wrong_arguments(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.concatenate([vectors_of(t) for t in WORDS]))
    store = fill(create(tmp_path / "ours"), WORDS)
    export(store, tmp_path / "folder", "npy")
    export(store, tmp_path / "x.safetensors", "safetensors")
    for path, format, options, error, says in (
        ("x.npy", "pickle", {}, UsageError, "no format 'pickle'.*expected one of allennlp-hdf5"),
        ("x.npy", "npy", {"note": " "}, UsageError, "the note is empty"),
        ("x.npy", "npy", {"duplicates": "any"}, UsageError, "duplicates 'any'"),
        ("x.npy", "npy", {"codec": "int3"}, UsageError, "unknown codec 'int3'"),
        ("absent", "npy", {}, CorpusError, "absent: cannot be read"),
        ("folder", "npy", {"corpus": WORDS}, UsageError, "brings its sentences along"),
        ("x.safetensors", "safetensors", {"corpus": WORDS}, UsageError, "brings its sentences along"),
        ("folder", "bilm-tf", {}, UsageError, "is a folder"),
        ("x.npy", "bilm-tf", {"corpus": WORDS}, CorpusError, "not a complete HDF5 file"),
        ("x.npy", "safetensors", {"corpus": None}, CorpusError, "no safetensors file: a header of"),
    ):
        options = {"corpus": WORDS if path == "x.npy" else None, **options}
        with pytest.raises(error, match=says):
            imported(tmp_path / path, format, tmp_path / "store", **options)
        assert not (tmp_path / "store").exists()
    monkeypatch.setattr("featurestore.exchange.importing.free_bytes", lambda path: 100)
    with pytest.raises(StoreWriteError, match="100 are free"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS)


def test_a_file_that_changes_meanwhile_is_not_committed(tmp_path):
    np.save(tmp_path / "x.npy", np.concatenate([vectors_of(t) for t in WORDS]))

    def touch(n_tokens):
        with open(tmp_path / "x.npy", "r+b") as file:
            file.seek(200)
            file.write(b"\1")

    with pytest.raises(CorpusError, match="changed while it was imported"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "store", WORDS, progress=touch)
    assert len(Store.open(tmp_path / "store")) == 0


def test_examples_keep_their_place(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8), "f4") + np.nan)
    with pytest.raises(VectorError, match=r"c\.conllu, line 7"):
        imported(tmp_path / "x.npy", "npy", tmp_path / "s", [Example(("a", "b", "c"), None, "c.conllu", 7)])
