"""Products with a fixed weight: right with and without arranging, and refused where they would be wrong."""

from __future__ import annotations

import logging

import pytest
import torch

from featurestore.encoders.elmo.model import linear as products
from featurestore.encoders.elmo.model.linear import PrepackedLinear, prepacking_works
from tests.kit.elmo import differences, golden_network, golden_sentences, run

APPLIED = {"none": torch.clone, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture
def unknown():
    """Nothing is known about arranging, before and after."""
    prepacking_works.cache_clear()
    yield
    prepacking_works.cache_clear()


def some(*shape, dtype, seed=0, size=1.0):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def check(dtype, activation, n_rows, *, biased=True):
    weight, rows = some(70, 90, dtype=dtype, size=0.1), some(n_rows, 200, dtype=dtype, seed=1)[:, 5:95]
    bias = some(70, dtype=dtype, seed=2) if biased else None
    found = PrepackedLinear(weight, bias, activation)(rows)
    exact = rows.double() @ weight.double().t() + (bias.double() if biased else 0)
    assert found.dtype == dtype
    assert found.shape == (n_rows, 70)
    # Where nonlinearities follow a product that was rounded, they pass on that error.
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 16 * torch.finfo(dtype).eps}
    torch.testing.assert_close(found.double(), APPLIED[activation](exact), **tolerance)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 17, 300])
@pytest.mark.parametrize("activation", APPLIED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_multiplies_rightly(dtype, activation, n_rows):
    check(dtype, activation, n_rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_bias(dtype):
    check(dtype, "none", 9, biased=False)


@pytest.mark.parametrize("activation", APPLIED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_nothing_can_be_prepacked(monkeypatch, dtype, activation):
    monkeypatch.setattr(products, "prepacking_works", lambda dtype: False)
    check(dtype, activation, 17)


def fails(*arguments):
    raise RuntimeError("no such operator here")


def slightly_wrong(real):
    def multiplied(rows, *arguments):
        return real(rows + 0.01, *arguments)

    return multiplied


def without_activation(real):
    def multiplied(rows, weight, bias, activation):
        return real(rows, weight, bias, "none")

    return multiplied


def no_number(real):
    def multiplied(*arguments):
        return real(*arguments) * torch.nan

    return multiplied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda real: fails, "RuntimeError: no such operator here"),
        (slightly_wrong, "are wrong"),
        (without_activation, "activation sigmoid, are wrong"),
        (no_number, "are wrong"),
    ],
)
def test_operators_that_are_missing_or_wrong_are_not_used(unknown, monkeypatch, caplog, dtype, break_it, why):
    if not prepacking_works(dtype):
        pytest.skip(f"weights in {dtype} cannot be prepacked on this processor")
    prepacking_works.cache_clear()
    monkeypatch.setattr(products, "_multiplied", break_it(products._multiplied))
    with caplog.at_level(logging.INFO):
        assert not prepacking_works(dtype)
    assert why in caplog.text
    check(dtype, "tanh", 5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_elmo_is_the_same_without_arranging_but_for_rounding(monkeypatch, precision):
    sentences = golden_sentences()
    prepacked = run(golden_network(precision), sentences)
    monkeypatch.setattr(products, "prepacking_works", lambda dtype: False)
    plain = run(golden_network(precision), sentences)
    bound = {"float32": 1e-6, "bfloat16": 1e-2, "float16": 2e-3}[precision]
    assert differences(prepacked, plain)[1] < bound
