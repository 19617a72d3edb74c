"""The measures, against scikit-learn and textbook formulas on the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.inspection.similarity import cosines, linear_cka, neighborhood_overlap, relative_l2s

RANDOM = np.random.default_rng(0)


def test_linear_cka_is_that_of_centred_gram_matrices():
    x, y = RANDOM.normal(size=(200, 2, 16)), RANDOM.normal(size=(200, 3, 24))
    y[:, 0, :16] += x[:, 0]
    centre = np.eye(200) - 1 / 200
    found = linear_cka(x, y)
    for i in range(2):
        for j in range(3):
            k, m = (centre @ (v @ v.T) @ centre for v in (x[:, i], y[:, j]))
            assert found[i, j] == pytest.approx(
                (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()), rel=1e-4
            )


def test_linear_cka_of_a_rotation_is_one_and_of_a_constant_unknown():
    x = RANDOM.normal(size=(300, 1, 12))
    turned, _ = np.linalg.qr(RANDOM.normal(size=(12, 12)))
    assert linear_cka(x, 7 * x @ turned + 3)[0, 0] == pytest.approx(1, abs=1e-5)
    assert np.isnan(linear_cka(x, np.ones((300, 1, 4)))[0, 0])


def test_neighbourhoods_are_those_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    x = RANDOM.normal(size=(150, 20))
    y = x + RANDOM.normal(size=x.shape)
    in_x, in_y = (
        NearestNeighbors(n_neighbors=11, metric="cosine").fit(v).kneighbors(v, return_distance=False)[:, 1:]
        for v in (x, y)
    )
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(in_x.tolist(), in_y.tolist(), strict=True)]
    np.testing.assert_allclose(neighborhood_overlap(x, y, 10), expected)
    assert neighborhood_overlap(x, 3 * x, 10).min() == 1


def test_cosine_and_relative_l2_of_zeros():
    a, b = np.array([[0.0, 0], [3, 4], [0, 0]]), np.array([[0.0, 0], [6, 8], [1, 0]])
    assert cosines(a, b).tolist() == [1, 1, 0]
    assert relative_l2s(a, b).tolist() == [0, 1, np.inf]
