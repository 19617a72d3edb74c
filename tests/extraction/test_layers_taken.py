"""Layers taken out of a store that keeps them apart: what extract would have stored."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore import Store, extract
from featurestore.errors import UsageError
from featurestore.extraction.layers import take_layers
from featurestore.store.verification import verify


@pytest.fixture(scope="module")
def apart(tmp_path_factory, tiny_elmo_spec, examples) -> Store:
    path = tmp_path_factory.mktemp("apart") / "store"
    extract(examples, tiny_elmo_spec, path, layers="all", codec="float32", device="cpu", progress=False)
    return Store.open(path)


@pytest.mark.parametrize("layers", ["average", "1", "0,2", "2,0", "top"])
def test_they_are_those_that_extract_stores_and_it_goes_on_with_them(
    apart, tmp_path, tiny_elmo_spec, examples, layers
):
    take_layers(apart, tmp_path / "taken", layers)
    expected = tmp_path / "extracted"
    extract(examples, tiny_elmo_spec, expected, layers=layers, codec="float32", device="cpu", progress=False)
    taken, extracted = Store.open(tmp_path / "taken"), Store.open(expected)
    assert taken.fingerprint == extracted.fingerprint
    assert (taken.n_layers, taken.dim) == (extracted.n_layers, extracted.dim)
    assert len(taken) == len(extracted)
    for example in examples:
        found, wanted = taken.get(example.tokens), extracted.get(example.tokens)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert list(verify(taken)) == []
    report = extract(
        [["a", "new", "one"]], tiny_elmo_spec, tmp_path / "taken", layers=layers, device="cpu", progress=False
    )
    assert report.n_encoded == 1


def test_what_cannot_be_taken_is_refused(apart, tmp_path):
    take_layers(apart, tmp_path / "one", "1")
    take_layers(apart, tmp_path / "two", "0,2")
    for store, layers, says in (
        (Store.open(tmp_path / "one"), "1", "keeps no layers apart"),
        (Store.open(tmp_path / "two"), "1", "keeps the layers 0, 2: there is no layer 1"),
        (Store.open(tmp_path / "two"), "average", "an average is of all"),
        (apart, "7", "has no layer 7"),
    ):
        with pytest.raises(UsageError, match=says):
            take_layers(store, tmp_path / "new", layers)
    assert not (tmp_path / "new").exists()
