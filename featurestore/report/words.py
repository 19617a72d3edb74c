"""How much a word's vectors depend on its context: self-similarity, and the words that change most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.inspection.similarity import directions
from featurestore.report.drawing import Drawn

LEAST_OCCURRENCES = 5
"""Words that occur less often in the sample do not count."""

_MOST_WORDS = 3_000
"""Words whose vectors are added up, the most frequent first."""

_MOST_LISTED = 12
_MOST_OCCURRENCES = 60
"""Occurrences of a listed word that are compared with each other, the first ones."""


@dataclass(frozen=True)
class Occurrence:
    """A word in a sentence."""

    tokens: tuple[str, ...]
    position: int
    key: str


@dataclass(frozen=True)
class WordContexts:
    """A word, how alike its vectors are, and the two occurrences that are least alike.

    Attributes
    ----------
    word : str
    n_occurrences : int
        In the sample.
    self_similarity : float
        Mean cosine of the vectors of two occurrences.
    cosine : float
        Of the two occurrences that are least alike.
    occurrences : tuple of Occurrence
        Those two.
    """

    word: str
    n_occurrences: int
    self_similarity: float
    cosine: float
    occurrences: tuple[Occurrence, ...]


@dataclass
class Words:
    """Self-similarity over words.

    Attributes
    ----------
    n_words : int
        Words met often enough.
    self_similarity : list of float
        For each layer the mean over these words. The nearer it is to the anisotropy, the more the context
        decides.
    ambiguous : list of WordContexts
        The words least like themselves in the last layer.
    """

    n_words: int
    self_similarity: list[float] = field(default_factory=list)
    ambiguous: list[WordContexts] = field(default_factory=list)


def measure_words(sample: Iterable[Drawn]) -> Words:
    """Read a sample three times: count words, add up directions, look at those that change most."""
    counts = Counter(token for drawn in sample for token in drawn.tokens)
    frequent = [word for word, n in counts.most_common(_MOST_WORDS) if n >= LEAST_OCCURRENCES]
    if not frequent:
        return Words(0)
    number = {word: i for i, word in enumerate(frequent)}
    sums, n = _directions(sample, number)
    pairs = n * (n - 1)
    # The square of a sum of directions has each pair twice.
    alike = (np.einsum("lwd,lwd->lw", sums, sums, dtype=np.float64) - n) / np.maximum(pairs, 1)
    usable = n[-1] >= LEAST_OCCURRENCES
    # Signs and figures change with their context most of all, and tell nobody anything.
    is_word = np.array([any(map(str.isalpha, word)) for word in frequent])
    of_last = np.where(usable & is_word, alike[-1], np.inf)
    chosen = [
        frequent[i] for i in np.argsort(of_last, kind="stable")[:_MOST_LISTED] if np.isfinite(of_last[i])
    ]
    found = _least_alike(sample, set(chosen))
    return Words(
        int(usable.sum()),
        [float(layer[usable].mean()) for layer in alike] if usable.any() else [],
        [
            WordContexts(word, int(n[-1, number[word]]), float(of_last[number[word]]), *found[word])
            for word in chosen
        ],
    )


def _directions(
    sample: Iterable[Drawn], number: dict[str, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the sum of each word's unit vectors, (n_layers, n_words, dim), and how many they are."""
    sums: NDArray[np.float32] | None = None
    n: NDArray[np.int64] = np.zeros((1, len(number)), np.int64)
    for drawn in sample:
        if sums is None:
            _, n_layers, dim = drawn.vectors.shape
            sums, n = (
                np.zeros((n_layers, len(number), dim), np.float32),
                np.zeros((n_layers, len(number)), np.int64),
            )
        at = [(i, number[token]) for i, token in enumerate(drawn.tokens) if token in number]
        for i, word in at:
            norms = np.linalg.norm(drawn.vectors[i], axis=1)
            nonzero = norms > 0
            sums[nonzero, word] += drawn.vectors[i, nonzero] / norms[nonzero, None]
            n[nonzero, word] += 1
    if sums is None:
        raise ValueError("an empty sample has no words")
    return sums, n


def _least_alike(sample: Iterable[Drawn], words: set[str]) -> dict[str, tuple[float, tuple[Occurrence, ...]]]:
    """Return for each word the two occurrences least alike in the last layer, after their cosine."""
    met: dict[str, list[tuple[Occurrence, NDArray[np.float32]]]] = {word: [] for word in words}
    for drawn in sample:
        for i, token in enumerate(drawn.tokens):
            if token in words and len(met[token]) < _MOST_OCCURRENCES:
                met[token].append((Occurrence(tuple(drawn.tokens), i, drawn.key.hex()), drawn.vectors[i, -1]))
    found: dict[str, tuple[float, tuple[Occurrence, ...]]] = {}
    for word, occurrences in met.items():
        vectors = np.stack([vector for _, vector in occurrences]).astype(np.float64)
        unit = directions(vectors)
        cosines = unit @ unit.T
        a, b = np.unravel_index(int(np.argmin(cosines)), cosines.shape)
        found[word] = float(cosines[a, b]), (occurrences[int(a)][0], occurrences[int(b)][0])
    return found
