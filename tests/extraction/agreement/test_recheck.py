"""Encoding stored sentences again, with a real encoder, on stores it filled and on one it did not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore import Store, extract, load_encoder
from featurestore.errors import RecipeMismatchError
from featurestore.extraction.recheck import encode_again
from featurestore.keys import sentence_key

SENTENCES = [(f"s{i}", *(f"w{i * j % 13}" for j in range(i % 11))) for i in range(60)]


def filled(path: Path, encoder, **options) -> Store:
    extract(SENTENCES, encoder, path, progress=False, **{"shard_bytes": 8_000, **options})
    return Store.open(path)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_encoder_that_filled_a_store_gives_its_vectors_again(tmp_path, tiny_elmo, codec):
    store = filled(tmp_path / "store", tiny_elmo, codec=codec, token_budget=40)
    found = encode_again(store, tiny_elmo, 50)
    assert (found.n_sentences, found.differing) == (50, [])
    assert 0 <= found.mean <= found.largest < {"float32": 1e-5, "float16": 5e-4, "int8": 2e-2}[codec]


@pytest.mark.parametrize("layers", ["all", "top"])
def test_layers_are_compared_too(tmp_path, tiny_elmo_spec, layers):
    encoder = load_encoder(tiny_elmo_spec, layers=layers, device="cpu")
    assert encode_again(filled(tmp_path / "store", encoder), encoder, 20).differing == []


def test_lower_precision_is_allowed_what_it_explains(tmp_path, tiny_elmo_spec):
    encoder = load_encoder(tiny_elmo_spec, precision="bfloat16", device="cpu")
    store = filled(tmp_path / "store", encoder, token_budget=200)
    assert encode_again(store, encoder, 60).differing == []


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_vectors_of_something_else_are_named_with_both_figures(tmp_path, tiny_elmo, codec):
    store = Store.create(tmp_path / "store", recipe=tiny_elmo.recipe, dim=tiny_elmo.dim, codec=codec)
    with store.write() as session:
        for number, (tokens, vectors) in enumerate(zip(SENTENCES, tiny_elmo.encode(SENTENCES), strict=True)):
            # One sentence is a tenth off, one has the vectors of another order; all others are right.
            wrong = vectors * 1.1 if number == 3 else vectors[::-1] if number == 10 else vectors
            session.add(tokens, np.ascontiguousarray(wrong))
    found = encode_again(store.refreshed(), tiny_elmo, 60)
    assert [difference.tokens for difference in found.differing] == [SENTENCES[10], SENTENCES[3]]
    worst, other = found.differing
    assert worst.relative_l2 == found.largest > 0.1
    assert other.relative_l2 == pytest.approx(0.1, rel=0.1)
    assert other.key == sentence_key(SENTENCES[3]).hex()
    assert other.tolerance < 0.06
    assert len(encode_again(store.refreshed(), tiny_elmo, 60, tolerance=0.2).differing) == 1


def test_sample_is_drawn_by_the_seed(tmp_path, tiny_elmo):
    store = filled(tmp_path / "store", tiny_elmo)
    tokens = [encode_again(store, tiny_elmo, 10, seed=seed, tolerance=1e-12).differing for seed in (1, 1, 2)]
    drawn = [{difference.key for difference in found} for found in tokens]
    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1] != drawn[2]
    assert encode_again(store, tiny_elmo, 10_000).n_sentences == len(SENTENCES)


def test_encoder_of_another_recipe_is_refused(tmp_path, tiny_elmo, tiny_elmo_spec):
    store = filled(tmp_path / "store", tiny_elmo)
    with pytest.raises(RecipeMismatchError, match="layers"):
        encode_again(store, load_encoder(tiny_elmo_spec, layers="top", device="cpu"), 5)


def test_empty_store_has_nothing_to_encode(tmp_path, tiny_elmo):
    store = Store.create(tmp_path / "store", recipe=tiny_elmo.recipe, dim=tiny_elmo.dim)
    assert encode_again(store, tiny_elmo, 5).n_sentences == 0
