"""Casting with torch gives NumPy's bits."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.store.format.casting import cast

EDGES = np.array(
    [0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, -70000.0, 6e-8, 2.98e-8, 2.99e-8, 1e-10, 1.00048828125,
     1.00146484375, np.inf, -np.inf, np.nan, 3.4e38, 1e-40],
    np.float32,
)  # fmt: skip


def some(dtype):
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([EDGES, random.standard_normal(100_000), bits]).astype(dtype).reshape(-1, 2)


def numpy_has(vectors, to):
    with np.errstate(over="ignore", invalid="ignore"):
        return vectors.astype(to)


@pytest.mark.parametrize("to", ["<f2", "<f4"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_bits_are_those_of_numpy(dtype, to):
    vectors = some(dtype)
    out = np.empty(vectors.shape, to)
    cast(out, vectors)
    expected = numpy_has(vectors, to)
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(out), nan)  # which NaN it is says nothing
    assert out[~nan].tobytes() == expected[~nan].tobytes()


@pytest.mark.parametrize("how", ["read-only", "reversed", "every other column"])
def test_any_view_will_do(how):
    whole = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
    if how == "read-only":
        whole.flags.writeable = False
    vectors = {"read-only": whole, "reversed": whole[::-1], "every other column": whole[:, ::2]}[how]
    out = np.empty(vectors.shape, np.float16)
    cast(out, vectors)
    assert np.array_equal(out, vectors.astype(np.float16))
