"""How alike two sets of vectors of the same tokens are, also where their dimensions differ."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]
AnyFloat = TypeVar("AnyFloat", bound=np.floating[Any])

_BLOCK_ROWS = 1024


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each pair of vectors, computed in float64; 1 where both are zero, 0 where one is.

    Parameters
    ----------
    a, b : (..., dim) float

    Returns
    -------
    (...) float64
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    products = np.sum(x * y, axis=-1)
    lengths = np.sqrt(np.sum(x * x, axis=-1) * np.sum(y * y, axis=-1))
    both_zero = ~(x.any(axis=-1) | y.any(axis=-1))
    found: NDArray[np.float64] = np.where(
        both_zero, 1.0, np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    )
    return found


def relative_l2s(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return the norm of each difference over the norm of ``a``; infinite where only ``a`` is zero.

    Parameters
    ----------
    a, b : (..., dim) float

    Returns
    -------
    (...) float64
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    difference, norm = (np.sqrt(np.sum(v * v, axis=-1)) for v in (x - y, x))
    ratio: NDArray[np.float64] = np.divide(
        difference, norm, out=np.where(difference == 0, 0.0, np.inf), where=norm > 0
    )
    return ratio


def linear_cka(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return the linear centred kernel alignment of each layer of one set of vectors with each of another.

    1 where one is a rotation and scaling of the other, 0 where no direction of one goes with one of the
    other (Kornblith, Norouzi, Lee and Hinton 2019, "Similarity of Neural Network Representations Revisited").
    NaN where the vectors of one side are all equal. Few tokens make any two sets alike: take several times as
    many as there are dimensions.

    Parameters
    ----------
    a : (n_tokens, n_layers_a, dim_a) float
    b : (n_tokens, n_layers_b, dim_b) float
        Of the same tokens.

    Returns
    -------
    (n_layers_a, n_layers_b) float64
    """
    xs, ys = _centred(a), _centred(b)
    own_x, own_y = ([float(np.linalg.norm(v.T @ v)) for v in layers] for layers in (xs, ys))
    result = np.full((len(xs), len(ys)), np.nan)
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            own = own_x[i] * own_y[j]
            if own > 0:
                result[i, j] = float(np.linalg.norm(x.T @ y)) ** 2 / own
    return result


def _centred(vectors: Vectors) -> list[NDArray[np.float32]]:
    """Return each layer with its mean taken away, scaled so that squares stay within float32."""
    layers = []
    for number in range(vectors.shape[1]):
        layer = vectors[:, number].astype(np.float64)
        layer -= layer.mean(axis=0)
        largest = np.abs(layer).max(initial=0.0)
        layers.append((layer / (largest or 1.0)).astype(np.float32))
    return layers


def directions(vectors: NDArray[AnyFloat]) -> NDArray[AnyFloat]:
    """Return each vector divided by its Euclidean norm; zero stays zero.

    Parameters
    ----------
    vectors : (n, dim) float

    Returns
    -------
    (n, dim) float
        Of the same type.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[AnyFloat] = np.divide(vectors, np.where(norms > 0, norms, 1), dtype=vectors.dtype)
    return found


def nearest(vectors: Vectors, k: int) -> NDArray[np.int64]:
    """Return the ``k`` vectors of the largest cosine with each, itself left out; (n, k) int64."""
    x = directions(vectors.astype(np.float32))
    found = np.empty((len(x), k), np.int64)
    for start in range(0, len(x), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS] @ x.T
        own = np.arange(len(block))
        block[own, own + start] = -np.inf
        found[start : start + len(block)] = np.argpartition(-block, k - 1, axis=1)[:, :k]
    return found


def neighborhood_overlap(a: Vectors, b: Vectors, k: int = 10) -> NDArray[np.float64]:
    """Return, for each token, the share of its ``k`` nearest tokens that two sets of vectors agree on.

    Parameters
    ----------
    a : (n_tokens, dim_a) float
    b : (n_tokens, dim_b) float
        Of the same tokens, more than ``k``.
    k : int

    Returns
    -------
    (n_tokens,) float64
    """
    in_a, in_b = np.sort(nearest(a, k), axis=1), np.sort(nearest(b, k), axis=1)
    both = np.sort(np.concatenate([in_a, in_b], axis=1), axis=1)
    shared: NDArray[np.float64] = (both[:, 1:] == both[:, :-1]).sum(axis=1) / k
    return shared
