"""Vectors so small that a codec loses more of them than its rounding are refused, not stored as zeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import UsageError, VectorError
from featurestore.store.format.codec import get_codec
from featurestore.store.format.shard import ShardDraft
from featurestore.store.format.staging import relative_losses, stage
from featurestore.store.store import Store
from tests.kit.stores import RECIPE, sentence

TOKENS = ("a", "small", "one")
FLOAT16 = 2.0**-11


def vectors(scale: float, dim: int = 64, dtype=np.float32, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(3, dim)) * scale).astype(dtype)


def put(codec: str, given: np.ndarray, tokens=TOKENS) -> np.ndarray:
    """Put vectors into a draft, in both ways, which must agree; return them as they are staged."""
    shape = {"dim": given.shape[-1], "n_layers": given.shape[1] if given.ndim == 3 else 1}
    draft = ShardDraft([tokens], codec=get_codec(codec), **shape)
    accepted = ShardDraft([tokens], codec=get_codec(codec), **shape).put_all([0], given)
    try:
        draft.put(0, given)
    except VectorError:
        assert not accepted
        raise
    assert accepted
    return draft._staged.astype(np.float64)


@pytest.mark.parametrize("scale", [1e-7, 1e-6, 1e-8, 1e-9, 1e-20, 1e-40])
def test_float16_refuses_vectors_that_underflow(scale):
    with pytest.raises(
        VectorError,
        match=r"float16 cannot hold vectors as small as that of token \d \('\w+'\) of 'a small one': of its "
        r"norm [\d.e-]+, [\d.]+% would be lost, 0\.05% at most is allowed. Use --codec float32 or int8",
    ):
        put("float16", vectors(scale))


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dim", [1, 2, 50, 1024])
def test_float16_takes_what_it_holds(scale, dim):
    given = np.abs(vectors(scale, dim)) + np.float32(scale)
    staged = put("float16", given)
    assert np.linalg.norm(staged - given) <= FLOAT16 * np.linalg.norm(given)


@pytest.mark.parametrize("codec", ["float16", "float32", "int8"])
def test_zeros_are_held_by_every_codec(codec):
    given = vectors(1.0)
    given[1] = 0
    given[2] = -0.0
    assert (put(codec, given)[1:] == 0).all()


def test_one_small_token_among_large_ones_is_named():
    given = vectors(1.0)
    given[1] *= 1e-7
    with pytest.raises(VectorError, match=r"token 1 \('small'\) of"):
        put("float16", given)


def test_one_small_layer_beside_large_ones_is_named():
    given = np.stack([vectors(1.0), vectors(1e-8), vectors(1.0, seed=2)], axis=1)
    with pytest.raises(VectorError, match=r"token \d \('\w+'\), layer 1, of"):
        put("float16", given)


def test_small_values_of_a_vector_that_is_not_small_are_rounded_as_they_may():
    given = vectors(1e-9)
    given[:, 7] = 1
    assert np.abs(put("float16", given) - given).max() < 2.0**-25


def test_what_is_given_as_float16_is_held_as_it_is():
    given = vectors(1e-7, dtype=np.float16)
    assert (put("float16", given) == given).all()


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("scale", [1e-7, 1e-9, 1e-25])
def test_other_codecs_hold_small_vectors(tmp_path, codec, scale):
    store = Store.create(tmp_path / "store", recipe=RECIPE, dim=64, codec=codec)
    given = vectors(scale)
    with store.write() as session:
        session.add(TOKENS, given)
        session.add(sentence(1), np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32))
    found = store.refreshed().get(TOKENS).astype(np.float64)
    assert np.linalg.norm(found - given) <= 5e-2 * np.linalg.norm(given.astype(np.float64))


def test_float32_holds_subnormal_numbers_of_its_own_and_refuses_smaller_ones():
    given = vectors(1e-41)
    assert (put("float32", given) == given).all()
    with pytest.raises(VectorError, match="float32 cannot hold vectors as small"):
        put("float32", vectors(1e-44, dtype=np.float64))


def test_int8_refuses_what_its_scales_cannot_hold():
    with pytest.raises(VectorError, match=r"int8 cannot hold vectors as small.*100\.00%.*--codec float32$"):
        put("int8", vectors(1e-36))


@settings(max_examples=150)
@given(st.integers(-60, 10), st.integers(1, 70), st.integers(0, 2**32), st.booleans())
def test_what_is_taken_is_rounded_and_no_more(power, dim, seed, sparse):
    random = np.random.default_rng(seed)
    given = random.normal(size=(3, dim)) * 2.0**power * 2.0 ** random.integers(-8, 8, (3, 1))
    if sparse:
        given[random.random((3, dim)) < 0.8] = 0
    given = given.astype(np.float32)
    codec, out = get_codec("float16"), np.empty((3, dim), "<f2")
    try:
        stage(out, given, TOKENS, codec)
        taken = True
    except VectorError:
        taken = False
    losses = relative_losses(given.astype("<f2"), given, codec)
    assert taken == (losses.max() <= FLOAT16)


def test_a_session_refuses_the_sentence_and_keeps_the_others(tmp_path):
    store = Store.create(tmp_path / "store", recipe=RECIPE, dim=64)
    with store.write() as session:
        session.add(sentence(1), vectors(1.0)[:2])
        with pytest.raises(VectorError, match="would be lost"):
            session.add(TOKENS, vectors(1e-7))
    assert [tokens for _, _, tokens in store.refreshed().sentences()] == [sentence(1)]


def test_int8_is_not_decoded_without_what_it_is_multiplied_with():
    values, out = np.ones((2, 3), np.int8), np.zeros((2, 3), np.float32)
    scales, norms = np.full(2, 2, np.float32), np.full(3, 0.5, np.float32)
    codec = get_codec("int8")
    for lacking in ((None, norms), (scales, None), (None, None)):
        with pytest.raises(UsageError, match="scales and norms"):
            codec.decode_into(out, values, *lacking)
    codec.decode_into(out, values, scales, norms)
    assert (out == 1).all()
