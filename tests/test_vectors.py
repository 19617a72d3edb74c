"""The shape of vectors, and differences that count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore.vectors import exceeds, layers_and_dim, token_shape, vector_shape


@pytest.mark.parametrize(
    ("n_layers", "dim", "shape"), [(1, 8, (5, 8)), (3, 8, (5, 3, 8)), (2, 1, (5, 2, 1)), (1, 1, (5, 1))]
)
def test_layers_have_an_axis_where_there_are_several(n_layers, dim, shape):
    assert vector_shape(5, n_layers, dim) == shape
    assert token_shape(n_layers, dim) == shape[1:]
    assert layers_and_dim(shape) == (n_layers, dim)


@pytest.mark.parametrize(
    ("difference", "tolerance", "too_much"),
    [(0.0, 0.0, False), (1.0, 1.0, False), (1.1, 1.0, True), (np.nan, 1.0, True), (1.0, np.nan, True),
     (np.inf, 1.0, True), (np.inf, np.inf, False), (-1.0, 0.0, False)],
)  # fmt: skip
def test_not_a_number_exceeds_everything(difference, tolerance, too_much):
    assert exceeds(difference, tolerance) is too_much
    assert bool(exceeds(np.float64(difference), tolerance)) is too_much
    assert exceeds(np.array([difference, 0.0]), tolerance).tolist() == [too_much, exceeds(0.0, tolerance)]
    assert exceeds(torch.tensor([difference]), tolerance).tolist() == [too_much]
