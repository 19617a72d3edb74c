"""Sentences that stand apart from all others of a sample, and pairs that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.inspection.likeness import differs_in, normal_form
from featurestore.inspection.similarity import directions
from featurestore.report.drawing import Drawn

N_NEAREST = 5
"""Sentences that a sentence is compared with: those nearest to it."""

_MOST_SENTENCES = 4_000
_MOST_LISTED = 10

NEARLY_SAME = 0.98
"""Cosine of centred mean vectors from which two sentences are near-duplicates."""


@dataclass(frozen=True)
class Outlier:
    """A sentence and its mean cosine with the five sentences nearest to it."""

    tokens: tuple[str, ...]
    key: str
    cosine: float


@dataclass(frozen=True)
class NearDuplicate:
    """Two sentences, the cosine of their mean vectors, and in what their spelling differs if that is all."""

    tokens: tuple[str, ...]
    other: tuple[str, ...]
    keys: tuple[str, str]
    cosine: float
    differs_in: tuple[str, ...]


@dataclass
class Sentences:
    """What was found among ``n_sentences`` sentences; pairs beyond those listed are counted."""

    n_sentences: int
    n_near_duplicates: int = 0
    outliers: list[Outlier] = field(default_factory=list)
    near_duplicates: list[NearDuplicate] = field(default_factory=list)


def measure_sentences(sample: Iterable[Drawn]) -> Sentences:
    """Compare the mean vectors of sentences, all layers end to end, the mean of all taken away."""
    tokens: list[tuple[str, ...]] = []
    keys: list[str] = []
    means: list[NDArray[np.float32]] = []
    for drawn in sample:
        if len(means) == _MOST_SENTENCES:
            break
        tokens.append(tuple(drawn.tokens))
        keys.append(drawn.key.hex())
        means.append(drawn.vectors.mean(axis=0, dtype=np.float64).ravel().astype(np.float32))
    found = Sentences(len(means))
    if len(means) <= N_NEAREST:
        return found
    x = np.stack(means)
    x -= x.mean(axis=0)
    x = directions(x)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    near = -np.partition(-cosines, N_NEAREST - 1, axis=1)[:, :N_NEAREST]
    mean = near.mean(axis=1)
    for i in np.argsort(mean, kind="stable")[:_MOST_LISTED].tolist():
        found.outliers.append(Outlier(tokens[i], keys[i], float(mean[i])))
    rows, columns = np.nonzero(np.triu(cosines >= NEARLY_SAME, 1))
    found.n_near_duplicates = len(rows)
    order = np.argsort(-cosines[rows, columns], kind="stable")[:_MOST_LISTED]
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        same = normal_form(tokens[i]) == normal_form(tokens[j])
        spelling = differs_in(tokens[i], tokens[j]) if same else ()
        found.near_duplicates.append(
            NearDuplicate(tokens[i], tokens[j], (keys[i], keys[j]), float(cosines[i, j]), spelling)
        )
    return found
