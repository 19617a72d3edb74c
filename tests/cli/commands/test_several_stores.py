"""``train``, ``evaluate`` and ``predict`` over several stores, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurestore.models.checkpoint import TrainedModel
from featurestore.store.store import Store
from tests.cli.commands.small_corpora import QUICK, make_place, run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with corpora and stores of the same sentences under two recipes, one of them untrained."""
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def layered(place):
    """A third store, of two layers kept apart, that lacks one sentence of the development corpus."""
    sentences = [tokens for _, _, tokens in Store.open(place / "a.fs").sentences()]
    dev = [line.split("\t")[0] for line in (place / "pos.dev.conll").read_text().split("\n\n")[0].split("\n")]
    source = Store.open(place / "a.fs")
    store = Store.create(
        place / "layers", recipe={"kind": "layers", "version": 1}, dim=3, n_layers=2, codec="int8"
    )
    with store.write() as session:
        for tokens in sentences:
            if list(tokens) != dev:
                vectors = source.get(tokens)[:, :6]
                session.add(tokens, vectors.reshape(len(tokens), 2, 3))
    return store.path


def test_a_model_of_several_stores(place, layered, capsys):
    model, a, b = place / "several.h5", place / "a.fs", place / "b.fs"
    corpora = ["--train", place / "pos.train.conll", "--dev", place / "pos.dev.conll", "--label", "2"]
    arguments = ["train", "tagger", "--model", "linear", *corpora, "--out", model, *QUICK]
    code, out, err = run(capsys, *arguments, "--store", a, "--store", layered)
    assert code == 1
    assert f"1 of 40 sentences are not in the store {layered}" in err
    code, out, err = run(
        capsys, *arguments, "--store", a, "--store", layered, "--on-missing", "zeros", "--json"
    )
    assert code == 0, err
    said = json.loads(out)
    assert (said["n_missing"], said["n_missing_dev"], said["untrained"]) == (0, 1, False)
    assert list(said["layer_weights"]) == ["layers"]
    assert list(said["store_weights"]) == ["a.fs", "layers"]
    assert list(TrainedModel.load(model).recipes) == ["a.fs", "layers"]

    found = []
    for stores in ((a, layered), (layered, a)):
        options = [part for store in stores for part in ("--store", store)]
        code, out, err = run(
            capsys, "evaluate", model, place / "pos.dev.conll", *options, "--on-missing", "skip", "--json"
        )
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0] == found[1]
    assert (found[0]["value"], found[0]["n_missing"]) == (1.0, 1)
    code, out, err = run(
        capsys, "predict", model, place / "pos.train.conll", "--store", layered, "--store", a
    )
    assert code == 0, err
    assert out == (place / "pos.train.conll").read_text().rstrip("\n") + "\n\n"

    for stores, message in (
        ((a, b), f"the store {b} in the place of 'layers' holds vectors of another recipe"),
        ((a,), "the model reads the stores a.fs, layers, found one store: layers not given"),
        ((a, a), "is given twice"),
    ):
        options = [part for store in stores for part in ("--store", store)]
        code, out, err = run(capsys, "evaluate", model, place / "pos.dev.conll", *options)
        assert code == (2 if stores == (a, a) else 4)
        assert message in err


def test_what_the_stores_weigh_is_said(place, layered, capsys):
    code, out, err = run(
        capsys, "train", "classifier", "--train", place / "pos.train.tsv", "--dev", place / "pos.dev.tsv",
        "--label", "mood", "--out", place / "moods.h5", "--epochs", "1", "--store", layered,
        "--store", place / "b.fs", "--on-missing", "skip",
    )  # fmt: skip
    assert code == 0, err
    assert "layers of layers weigh 0." in out
    assert "stores weigh layers " in out
    assert "sentences are not in all of the stores and were left out" in out
    assert "UNTRAINED" in out
