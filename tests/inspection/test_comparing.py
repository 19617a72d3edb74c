"""Comparing stores: value by value where shapes agree, by structure where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.errors import MissingSentencesError
from featurestore.inspection.comparing import compare_stores
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.kit.stores import RECIPE, sentence, vectors_of


def filled(path, numbers, *, change=lambda tokens, vectors: vectors, recipe=RECIPE, **options) -> Store:
    store = Store.create(path, recipe=recipe, **{"dim": 8, "codec": "float32", **options})
    with store.write() as session:
        for number in numbers:
            tokens = sentence(number)
            session.add(tokens, change(tokens, vectors_of(tokens)))
    return Store.open(path)


def test_figures_are_those_of_numpy(tmp_path):
    def changed(tokens, vectors):
        return vectors * np.where(np.array(tokens) == "cat", 1.5, 1.0)[:, None].astype(np.float32)

    a = filled(tmp_path / "a", range(50))
    b = filled(tmp_path / "b", range(10, 60), change=changed, recipe=Recipe({"kind": "test", "version": 2}))
    found = compare_stores(a, b, sample=0)
    assert (found.n_a, found.n_b, found.n_both, found.n_compared) == (50, 50, 40, 40)
    assert not found.is_sample
    assert [(d.field, d.ours, d.theirs) for d in found.recipe] == [("version", 1, 2)]
    tokens = [token for number in range(10, 50) for token in sentence(number)]
    n_cats = tokens.count("cat")
    assert found.n_tokens == len(tokens)
    assert found.relative_l2.largest == pytest.approx(0.5, rel=1e-6)
    assert found.relative_l2.mean == pytest.approx(0.5 * n_cats / len(tokens), rel=1e-6)
    assert found.cosine.smallest == pytest.approx(1)
    assert [(one.word, one.n_occurrences) for one in found.words] == [("cat", n_cats)]
    assert {one.tokens[one.position] for one in found.sentences} == {"cat"}
    assert found.exceeds(0.4)
    assert not found.exceeds(0.51)


def test_equal_stores_of_other_codecs_are_within_the_codec(tmp_path):
    a, b = filled(tmp_path / "a", range(40)), filled(tmp_path / "b", range(40), codec="float16")
    found = compare_stores(a, b, sample=0)
    assert found.recipe == []
    assert found.codecs == (("float32",), ("float16",))
    assert 0 < found.relative_l2.largest < 2**-10
    assert found.overlap > 0.99
    assert found.alignment[0][0] == pytest.approx(1, abs=1e-5)


def test_stores_of_other_shapes_are_compared_by_structure(tmp_path):
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))

    def wider(tokens, vectors):
        return (np.pad(vectors, ((0, 0), (0, 4))) @ turned).astype(np.float32)

    a, b = filled(tmp_path / "a", range(40)), filled(tmp_path / "b", range(40), change=wider, dim=12)
    found = compare_stores(a, b, sample=0)
    assert not found.same_shape
    assert found.relative_l2 is None
    assert found.exceeds(1e9)
    assert found.alignment[0][0] == pytest.approx(1, abs=1e-5)  # a rotation
    assert found.overlap == 1
    assert found.words == []


def test_a_sample_is_drawn_by_its_seed(tmp_path):
    a, b = filled(tmp_path / "a", range(40)), filled(tmp_path / "b", range(40), codec="int8")
    one, again, other = (compare_stores(a, b, sample=10, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert (one.is_sample, one.n_compared, one.n_both) == (True, 10, 40)


def test_stores_with_nothing_in_common_are_refused(tmp_path):
    a, b = filled(tmp_path / "a", range(5)), filled(tmp_path / "b", range(5, 9))
    with pytest.raises(MissingSentencesError) as refused:
        compare_stores(a, b)
    assert (refused.value.n_missing, refused.value.n_wanted) == (5, 5)
    with pytest.raises(MissingSentencesError):
        compare_stores(Store.create(tmp_path / "empty", recipe=RECIPE, dim=8), a)


def test_a_single_short_sentence_is_compared_without_neighbours(tmp_path):
    a, b = filled(tmp_path / "a", [3]), filled(tmp_path / "b", [3])
    found = compare_stores(a, b)
    assert found.relative_l2.largest == 0
    assert found.n_around == 0
    assert np.isnan(found.overlap)
