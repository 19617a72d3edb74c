"""Count-based language models over the classes of a biLM's vocabulary: what a biLM has to beat.

A unigram model, and a trigram with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999), whose
discounts come from the counts in closed form: nothing is tuned. Each predicts the words of a sentence and its
end marker; backward, the words from last to first and the begin marker. The marker a sentence starts with is
given, never predicted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.pretraining.streams import Text
from featurestore.pretraining.vocabulary import Vocabulary

END, BEGIN = 0, 1
"""Classes of the markers, by the layout of a vocabulary file."""

Classes = NDArray[np.int64]
Events = tuple[Classes, Classes, Classes]
"""The two classes before each scored one, and that one; three arrays of equal length."""


def events(text: Text, vocabulary: Vocabulary, *, backward: bool) -> Events:
    """Return every scored position of a text with the two before it, in reading order.

    A sentence's first marker stands before it twice, so that its first word has a context of two as well.
    """
    classes = np.array(vocabulary.classes(text.types), np.int64)[text.tokens]
    first, last = (END, BEGIN) if backward else (BEGIN, END)
    before, after = np.array([first, first]), np.array([last])
    parts: list[Classes] = []
    for sentence in np.split(classes, text.ends[:-1]):
        parts += [before, sentence[::-1] if backward else sentence, after]
    flat = np.concatenate(parts)
    lengths = np.diff(text.ends, prepend=0) + 3
    starts = np.cumsum(lengths) - lengths
    scored = np.ones(len(flat), bool)
    scored[starts] = scored[starts + 1] = False
    here = np.flatnonzero(scored)
    return flat[here - 2], flat[here - 1], flat[here]


class Unigram:
    """Relative frequencies; a hundredth is added to each count so that no class is impossible.

    Parameters
    ----------
    training : Events
    n_classes : int
        With both markers, of which one is never predicted.
    first : int
        The marker that is not.
    """

    def __init__(self, training: Events, n_classes: int, *, first: int) -> None:
        counts = np.bincount(training[2], minlength=n_classes) + 0.01
        counts[first] = 0
        self._shares = counts / counts.sum()

    def probabilities(self, events: Events) -> NDArray[np.float64]:
        """Return the probability of each event."""
        return self._shares[events[2]]


class Trigram:
    """Interpolated modified Kneser-Ney of order three; the parameters are those of :class:`Unigram`."""

    def __init__(self, training: Events, n_classes: int, *, first: int) -> None:
        self._uniform = 1 / (n_classes - 1)
        self._n_classes = n_classes
        trigrams, counts = np.unique(self._key(*training), return_counts=True)
        self._of_two = _Level(trigrams, counts, n_classes)
        # Below the highest order a word counts once for each distinct word it has been seen after; but what
        # begins a sentence is never after anything else, so there the plain counts say more.
        bigrams, row, kinds = np.unique(trigrams % n_classes**2, return_inverse=True, return_counts=True)
        plain = np.bincount(row, weights=counts).astype(np.int64)
        self._of_one = _Level(bigrams, np.where(bigrams // n_classes == first, plain, kinds), n_classes)
        words, kinds = np.unique(bigrams % n_classes, return_counts=True)
        self._of_none = _Level(words, kinds, n_classes)

    def probabilities(self, events: Events) -> NDArray[np.float64]:
        """Return the probability of each event."""
        n = self._n_classes
        key = self._key(*events)
        result = np.full(len(key), self._uniform)
        for level, keys in ((self._of_none, key % n), (self._of_one, key % n**2), (self._of_two, key)):
            result = level.interpolate(keys, result)
        return result

    def _key(self, before: Classes, previous: Classes, word: Classes) -> Classes:
        # Below 2**63 for vocabularies of up to two million classes.
        return (before * self._n_classes + previous) * self._n_classes + word


class _Level:
    """One order of the model: what each n-gram keeps of its count, and contexts leave to the order below.

    Parameters
    ----------
    keys : (n,) int64, ascending
        N-grams seen, as context * n_classes + word.
    counts : (n,) int64
    n_classes : int
    """

    def __init__(self, keys: Classes, counts: Classes, n_classes: int) -> None:
        self._keys, self._n_classes = keys, n_classes
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        self._contexts, starts = np.unique(keys // n_classes, return_index=True)
        totals = np.add.reduceat(counts, starts)
        self._left = np.add.reduceat(discounts, starts) / totals
        self._kept = (counts - discounts) / np.repeat(totals, np.diff(starts, append=len(keys)))

    def interpolate(self, keys: Classes, lower: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities of n-grams, given those by the order below."""
        at, found = _find(self._keys, keys)
        context, known = _find(self._contexts, keys // self._n_classes)
        mixed = np.where(found, self._kept[at], 0.0) + self._left[context] * lower
        return np.where(known, mixed, lower)


def _discounts(counts: Classes) -> NDArray[np.float64]:
    """Return what is taken from counts of 0, 1, 2, and 3 or more."""
    n = [0, *(int((counts == size).sum()) for size in (1, 2, 3, 4))]
    if not all(n[1:]):
        return np.array([0.0, 0.5, 0.75, 0.75])  # too few n-grams to estimate them
    y = n[1] / (n[1] + 2 * n[2])
    estimated = [size - (size + 1) * y * n[size + 1] / n[size] for size in (1, 2, 3)]
    return np.array([0.0, *(np.clip(value, 0.05, size) for size, value in enumerate(estimated, 1))])


def _find(table: Classes, keys: Classes) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where keys stand in an ascending table, and whether they are there."""
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return at, table[at] == keys


def perplexity(probabilities: NDArray[np.float64]) -> float:
    """Return exp of the mean negative log-probability."""
    return float(np.exp(-np.log(probabilities).mean()))
