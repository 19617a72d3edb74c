"""What the vectors of a sample are like: norms, dimensions, directions, layers compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.inspection.drawing import TokenDraw
from featurestore.inspection.similarity import linear_cka
from featurestore.report.drawing import Drawn
from featurestore.store.maintenance.statistics import Distribution

N_KEPT = 5_000
"""Tokens whose vectors stay in memory, for what needs many at once."""

_MOST_LISTED = 8
"""Dimensions that are listed by their numbers."""

_DEAD = 1e-6
"""Share of the mean variance under which a dimension is dead."""

_NEAR_EXTREME, _OFTEN = 0.01, 0.1
"""A dimension is saturated if more than a share ``_OFTEN`` of the tokens lies near its smallest or largest
value: nearer than ``_NEAR_EXTREME`` times the range between both."""


@dataclass(frozen=True)
class Dominant:
    """A dimension, its share of the layer's variance and its mean."""

    dimension: int
    share: float
    mean: float


@dataclass
class LayerGeometry:
    """What one layer's vectors are like.

    Attributes
    ----------
    norms : Distribution
        Euclidean norms of the tokens' vectors.
    dead, saturated : list of int
        Dimensions that hardly change; that often stand at their smallest or largest value.
    dominant : list of Dominant
        The dimensions of the largest variance, the largest first.
    share_of_five : float
        Share of the variance of the five largest dimensions.
    anisotropy : float
        Mean cosine of two different tokens of the sample (Ethayarajh 2019); 0 where directions are spread
        evenly. NaN of one token.
    effective_dimension : float
        Participation ratio of the covariance's eigenvalues, ``(sum v)^2 / sum v^2``: of how many equally
        strong directions the vectors would have that spread. NaN of one token.
    """

    norms: Distribution
    dead: list[int]
    saturated: list[int]
    dominant: list[Dominant]
    share_of_five: float
    anisotropy: float
    effective_dimension: float


@dataclass
class Geometry:
    """All layers, and how alike they are.

    Attributes
    ----------
    n_tokens : int
        In the sample.
    n_kept : int
        Tokens from which effective dimension and alignment were computed.
    layers : list of LayerGeometry
    alignment : list of list of float
        Linear CKA of each pair of layers.
    """

    n_tokens: int
    n_kept: int
    layers: list[LayerGeometry]
    alignment: list[list[float]] = field(default_factory=list)


class Kept:
    """Tokens drawn on the way: words, labels, places, vectors; each token of the sample with equal chance."""

    def __init__(self, n_tokens: int, seed: int, most: int = N_KEPT) -> None:
        self._draw = TokenDraw(n_tokens, most, seed)
        self._vectors: list[NDArray[np.float32]] = []
        self.words: list[str] = []
        self.places: list[tuple[bytes, int]] = []

    def add(self, drawn: Drawn) -> None:
        """Keep those tokens of a sentence that were drawn."""
        at = self._draw.positions(len(drawn.tokens))
        if len(at):
            self.words += [drawn.tokens[i] for i in at.tolist()]
            self.places += [(drawn.key, i) for i in at.tolist()]
            self._vectors.append(drawn.vectors[at])

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Vectors of the tokens kept, (n, n_layers, dim)."""
        if len(self._vectors) > 1:
            self._vectors = [np.concatenate(self._vectors)]
        return self._vectors[0]


class _Moments:
    """Sums over the tokens of one layer."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.total, self.squares = np.zeros(dim), np.zeros(dim)
        self.least, self.most = np.full(dim, np.inf), np.full(dim, -np.inf)
        self.directions = np.zeros(dim)
        self.n_directions = 0
        self.norms: list[NDArray[np.float64]] = []

    def add(self, vectors: NDArray[np.float32]) -> None:
        v = vectors.astype(np.float64)
        self.n += len(v)
        self.total += v.sum(axis=0)
        self.squares += np.square(v).sum(axis=0)
        np.minimum(self.least, v.min(axis=0), out=self.least)
        np.maximum(self.most, v.max(axis=0), out=self.most)
        norms = np.linalg.norm(v, axis=1)
        self.norms.append(norms)
        nonzero = norms > 0
        self.directions += (v[nonzero] / norms[nonzero, None]).sum(axis=0)
        self.n_directions += int(nonzero.sum())

    @property
    def variances(self) -> NDArray[np.float64]:
        return np.maximum(0.0, self.squares / self.n - np.square(self.total / self.n))

    @property
    def anisotropy(self) -> float:
        """Mean cosine of all pairs: the square of the sum of the directions has each pair twice."""
        n = self.n_directions
        return float((self.directions @ self.directions - n) / (n * (n - 1))) if n > 1 else float("nan")


def measure(sample: Iterable[Drawn], kept: Kept) -> Geometry:
    """Read a sample once and describe its vectors; ``kept`` takes its tokens on the way."""
    moments: list[_Moments] = []
    for drawn in sample:
        kept.add(drawn)
        if not moments:
            moments = [_Moments(drawn.vectors.shape[2]) for _ in range(drawn.vectors.shape[1])]
        for layer, sums in enumerate(moments):
            sums.add(drawn.vectors[:, layer])
    vectors = kept.vectors
    layers = [_layer(sums, vectors[:, number]) for number, sums in enumerate(moments)]
    alignment = linear_cka(vectors, vectors).tolist() if len(vectors) > 1 else []
    return Geometry(moments[0].n, len(vectors), layers, alignment)


def _layer(sums: _Moments, kept: NDArray[np.float32]) -> LayerGeometry:
    variances, mean = sums.variances, sums.total / sums.n
    total = float(variances.sum()) or 1.0
    order = np.argsort(-variances, kind="stable")
    dead = np.flatnonzero(variances <= _DEAD * variances.mean())
    room = _NEAR_EXTREME * (sums.most - sums.least)
    at_ends = np.maximum((kept <= sums.least + room).mean(axis=0), (kept >= sums.most - room).mean(axis=0))
    saturated = np.setdiff1d(np.flatnonzero(at_ends > _OFTEN), dead)
    return LayerGeometry(
        norms=Distribution.of(np.concatenate(sums.norms)),
        dead=dead.tolist(),
        saturated=saturated.tolist(),
        dominant=[
            Dominant(int(d), float(variances[d] / total), float(mean[d])) for d in order[:_MOST_LISTED]
        ],
        share_of_five=float(variances[order[:5]].sum() / total),
        anisotropy=sums.anisotropy,
        effective_dimension=_effective_dimension(kept),
    )


def _effective_dimension(vectors: NDArray[np.float32]) -> float:
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    # The smaller of the two products has the same eigenvalues.
    product = centred.T @ centred if len(centred) > centred.shape[1] else centred @ centred.T
    trace, squares = float(np.trace(product)), float(np.square(product).sum())
    return trace**2 / squares if len(vectors) > 1 and squares > 0 else float("nan")
