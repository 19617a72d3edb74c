"""A map of tokens in two dimensions: PCA, then t-SNE where scikit-learn is installed.

Not UMAP or PaCMAP: each process compiles their code anew, fifteen seconds before the first point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.report.geometry import Kept

MOST_TOKENS = 1_500
_COMPONENTS = 50
"""Principal components that t-SNE sees: what is beyond them is mostly noise, and costs time."""

_LEAST_FOR_TSNE = 100
"""Tokens from which on t-SNE is used: three times its perplexity."""


@dataclass(frozen=True)
class TokenMap:
    """Tokens at places in two dimensions.

    Attributes
    ----------
    method : str
        How the places were found.
    layer : str
        The layer whose vectors were projected.
    points : (n, 2) list of list of float
    words : list of str
    labels : list of str
        Empty where no labelled corpus was given.
    explained : float
        Share of the variance that the first two principal components have.
    """

    method: str
    layer: str
    points: list[list[float]]
    words: list[str]
    labels: list[str]
    explained: float


def principal_components(
    vectors: NDArray[np.float32], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates on the first ``n`` principal components, and all components' shares of variance."""
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    squares = np.square(s)
    return u[:, :n] * s[:n], squares / (squares.sum() or 1.0)


def token_map(
    vectors: NDArray[np.float32], words: list[str], labels: list[str], layer: str, seed: int
) -> TokenMap | None:
    """Place tokens in two dimensions, at most :data:`MOST_TOKENS` of them; None of fewer than three.

    Parameters
    ----------
    vectors : (n, dim) float32
    """
    step = max(1, -(-len(vectors) // MOST_TOKENS))
    vectors, words, labels = vectors[::step], words[::step], labels[::step]
    if len(vectors) < 3:
        return None
    coordinates, shares = principal_components(vectors, min(_COMPONENTS, *vectors.shape))
    method, points = "the first two principal components", coordinates[:, :2]
    if len(vectors) >= _LEAST_FOR_TSNE:
        try:
            from sklearn.manifold import TSNE
            from threadpoolctl import threadpool_limits
        except ImportError:
            method += " (a t-SNE needs the extra: pip install 'featurestore[report]')"
        else:
            # Its threads wait for each other busily: where others use the processor, one is faster than two.
            with threadpool_limits(1):
                points = TSNE(init="pca", random_state=seed, n_jobs=1).fit_transform(coordinates)
            method = f"t-SNE of {coordinates.shape[1]} principal components"
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 1)))
    return TokenMap(
        method,
        layer,
        np.asarray(points, np.float64).round(4).tolist(),
        words,
        labels,
        float(shares[:2].sum()),
    )


def map_of_kept(kept: Kept, layer: str, seed: int) -> TokenMap | None:
    """Place the tokens of a sample, without labels."""
    return token_map(kept.vectors[:, -1], kept.words, [], layer, seed)
