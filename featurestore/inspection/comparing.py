"""Comparing two stores over the sentences that both hold: recipes, vectors, words, neighbourhoods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import FieldDifference, MissingSentencesError, UsageError
from featurestore.inspection.drawing import TokenDraw
from featurestore.inspection.json_values import json_value
from featurestore.inspection.similarity import cosines, linear_cka, neighborhood_overlap, relative_l2s
from featurestore.keys import Sentence
from featurestore.store.store import Store

_STEP = 4096
"""Keys looked up at a time."""

MOST_ALIGNED = 5_000
"""Tokens over which layers are aligned (linear CKA)."""

_MOST_AROUND = 3_000
"""Tokens among which neighbours are compared."""

N_NEIGHBORS = 10
"""Neighbours of a token that are compared."""

_LEAST_OCCURRENCES = 3
"""Words that occur less often in the sample are not listed."""


class DifferingSentence(NamedTuple):
    """A sentence that the stores have different vectors for: the largest relative L2 of a token's layer."""

    tokens: Sentence
    key: str
    relative_l2: float
    position: int


class DifferingWord(NamedTuple):
    """A word and how much the stores differ over its occurrences, on average."""

    word: str
    n_occurrences: int
    difference: float


@dataclass
class Spread:
    """Mean, median, 99th percentile, largest and smallest of some numbers; NaN if there are none."""

    mean: float = float("nan")
    median: float = float("nan")
    p99: float = float("nan")
    largest: float = float("nan")
    smallest: float = float("nan")

    @classmethod
    def of(cls, numbers: NDArray[np.float64]) -> Spread:
        """Summarise numbers."""
        if not numbers.size:
            return cls()
        median, p99 = np.percentile(numbers, [50, 99])
        return cls(
            float(numbers.mean()), float(median), float(p99), float(numbers.max()), float(numbers.min())
        )


@dataclass
class Comparison:
    """What :func:`compare_stores` found.

    Attributes
    ----------
    recipe : list of FieldDifference
        Fields in which the recipes differ: ``ours`` is of the first store.
    codecs : tuple of str
        Of the shards of the first store and of the second.
    shapes : tuple of (int, int)
        Layers and dimensions of the first store and of the second.
    n_a, n_b, n_both : int
        Sentences in the first store, in the second, and in both.
    n_compared, n_tokens : int
        Sentences and tokens whose vectors were read.
    is_sample : bool
        Whether ``n_compared`` sentences were drawn at random from the ``n_both``.
    relative_l2, cosine : Spread or None
        Over tokens and layers; None where the shapes differ.
    by_layer : list of float
        Mean relative L2 of each layer; empty where the shapes differ.
    alignment : (n_layers_a, n_layers_b) list of list of float
        Linear CKA of each pair of layers.
    overlap : float
        Mean share of the ten nearest tokens that both agree on, all layers end to end.
    n_aligned, n_around : int
        Tokens from which ``alignment`` and ``overlap`` were computed.
    sentences : list of DifferingSentence
        Those that differ most, the worst first; empty where the shapes differ.
    words : list of DifferingWord
        Those that differ most: by relative L2, or where the shapes differ by the share of neighbours that
        are not the same.
    """

    recipe: list[FieldDifference]
    codecs: tuple[tuple[str, ...], tuple[str, ...]]
    shapes: tuple[tuple[int, int], tuple[int, int]]
    n_a: int
    n_b: int
    n_both: int
    n_compared: int = 0
    n_tokens: int = 0
    is_sample: bool = False
    relative_l2: Spread | None = None
    cosine: Spread | None = None
    by_layer: list[float] = field(default_factory=list)
    alignment: list[list[float]] = field(default_factory=list)
    overlap: float = float("nan")
    n_aligned: int = 0
    n_around: int = 0
    sentences: list[DifferingSentence] = field(default_factory=list)
    words: list[DifferingWord] = field(default_factory=list)

    @property
    def same_shape(self) -> bool:
        """Whether vectors can be compared value by value."""
        return self.shapes[0] == self.shapes[1]

    def exceeds(self, tolerance: float) -> bool:
        """Return whether a token's relative L2 is beyond a tolerance, or the shapes leave it undefined."""
        return self.relative_l2 is None or not self.relative_l2.largest <= tolerance

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for ``--json``: null for what is not a number."""
        found: dict[str, Any] = json_value(
            {
                **asdict(self),
                "recipe": [difference._asdict() for difference in self.recipe],
                "sentences": [one._asdict() for one in self.sentences],
                "words": [one._asdict() for one in self.words],
            }
        )
        return found


def compare_stores(
    a: Store,
    b: Store,
    *,
    sample: int = 2000,
    seed: int = 0,
    most: int = 10,
    progress: Callable[[int], object] | None = None,
) -> Comparison:
    """Compare two stores over the sentences that both hold.

    Parameters
    ----------
    a, b : Store
        They may differ in codec, precision, layers, initial state or model.
    sample : int
        Sentences drawn at random of those both hold; 0 compares all.
    seed : int
        Of the random draw.
    most : int
        Sentences listed at most, and words.
    progress : callable, optional
        Called with 1 for each sentence read.

    Raises
    ------
    MissingSentencesError
        If no sentence is in both.
    UsageError
        If ``sample`` is below 0.
    DamagedStoreError
        If what is read is not what was committed.
    """
    places = _common(a, b)
    codecs = tuple(tuple(sorted({shard.codec for shard in store.manifest.shards})) for store in (a, b))
    comparison = Comparison(
        recipe=a.recipe.diff(b.recipe), codecs=(codecs[0], codecs[1]),
        shapes=((a.n_layers, a.dim), (b.n_layers, b.dim)), n_a=len(a), n_b=len(b), n_both=len(places),
    )  # fmt: skip
    if not len(places):
        raise MissingSentencesError(
            f"{a.path} and {b.path} have no sentence in common: there is nothing to compare "
            f"({len(a):,} and {len(b):,} sentences)",
            n_missing=len(a), n_wanted=len(a), store=b.path,
        )  # fmt: skip
    if sample < 0:
        raise UsageError(f"sample is {sample}: expected 0 (all) or more")
    if 0 < sample < len(places):
        drawn = np.random.default_rng(seed).choice(len(places), sample, replace=False)
        places, comparison.is_sample = places[np.sort(drawn)], True
    _compare_vectors(comparison, a, b, places, seed, most, progress)
    return comparison


def _common(a: Store, b: Store) -> NDArray[np.int64]:
    """Return shard and row in each store of the sentences that both hold, (n, 4) int64."""
    found = [np.zeros((0, 4), np.int64)]
    for shard in range(len(a.manifest.shards)):
        keys = a.keys_of(shard)
        for start in range(0, len(keys), _STEP):
            located = b.locate(keys[start : start + _STEP])
            rows = np.flatnonzero(located.found)
            place = np.full(len(rows), shard), rows + start, located.shard[rows], located.row[rows]
            found.append(np.stack(place, axis=1).astype(np.int64))
    return np.concatenate(found)


def _compare_vectors(
    comparison: Comparison, a: Store, b: Store, places: NDArray[np.int64], seed: int, most: int,
    progress: Callable[[int], object] | None,
) -> None:  # fmt: skip
    differences, angles, by_layer = [], [], np.zeros(a.n_layers)
    by_word: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    worst: list[DifferingSentence] = []
    kept = _Kept(int(sum(a.reader(int(s)).length(int(r)) for s, r in places[:, :2])), seed)
    for tokens, key, x, y in _pairs(a, b, places):
        kept.add(tokens, x, y)
        if comparison.same_shape:
            distance, cosine = relative_l2s(x, y), cosines(x, y)
            differences.append(distance.ravel())
            angles.append(cosine.ravel())
            by_layer += distance.sum(axis=0)
            of_token = distance.max(axis=1)
            for token, value in zip(tokens, of_token.tolist(), strict=True):
                entry = by_word[token]
                entry[0] += 1
                entry[1] += value
            at = int(of_token.argmax())
            worst.append(DifferingSentence(tokens, key.hex(), float(of_token[at]), at))
            if len(worst) > 100 * most:
                worst = _worst(worst, most)
        comparison.n_compared += 1
        comparison.n_tokens += len(tokens)
        if progress is not None:
            progress(1)
    if comparison.same_shape:
        comparison.relative_l2 = Spread.of(np.concatenate(differences))
        comparison.cosine = Spread.of(np.concatenate(angles))
        comparison.by_layer = (by_layer / comparison.n_tokens).tolist()
        comparison.sentences = _worst(worst, most)
    _align(comparison, kept)
    if not comparison.same_shape:
        for word, share in zip(kept.around_words, kept.overlaps.tolist(), strict=True):
            entry = by_word[word]
            entry[0] += 1
            entry[1] += 1 - share
    words = [
        DifferingWord(word, int(n), total / n)
        for word, (n, total) in by_word.items()
        if n >= _LEAST_OCCURRENCES and total > 0
    ]
    comparison.words = sorted(words, key=lambda one: (-one.difference, one.word))[:most]


def _pairs(
    a: Store, b: Store, places: NDArray[np.int64]
) -> Iterator[tuple[Sentence, bytes, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield each sentence, its key, and its vectors in both stores, (n_tokens, n_layers, dim)."""
    for shard_a, row_a, shard_b, row_b in places.tolist():
        reader = a.reader(shard_a)
        key, tokens = reader.key(row_a), reader.tokens(row_a)
        x, y = reader.read(row_a), b.reader_of(shard_b, row_b, key).read(row_b)
        yield (
            tokens,
            key,
            x.reshape(len(tokens), a.n_layers, a.dim),
            y.reshape(len(tokens), b.n_layers, b.dim),
        )


def _worst(sentences: list[DifferingSentence], most: int) -> list[DifferingSentence]:
    found = [one for one in sentences if one.relative_l2 > 0 or np.isnan(one.relative_l2)]
    return sorted(found, key=lambda one: (-one.relative_l2, one.key))[:most]


class _Kept:
    """Tokens drawn on the way, whose vectors stay for measures that need many at once."""

    def __init__(self, n_tokens: int, seed: int) -> None:
        self._draw = TokenDraw(n_tokens, MOST_ALIGNED, seed)
        self._words: list[str] = []
        self._x: list[NDArray[np.float32]] = []
        self._y: list[NDArray[np.float32]] = []
        self.around_words: list[str] = []
        self.overlaps: NDArray[np.float64] = np.zeros(0)

    def add(self, tokens: Sentence, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Keep those of a sentence's tokens that were drawn."""
        at = self._draw.positions(len(tokens))
        if len(at):
            self._words += [tokens[i] for i in at.tolist()]
            self._x.append(x[at])
            self._y.append(y[at])

    def arrays(self) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
        """Return the words and the vectors in both stores, (n, n_layers, dim)."""
        return self._words, np.concatenate(self._x), np.concatenate(self._y)


def _align(comparison: Comparison, kept: _Kept) -> None:
    words, x, y = kept.arrays()
    comparison.n_aligned = len(words)
    comparison.alignment = linear_cka(x, y).tolist()
    step = max(1, -(-len(words) // _MOST_AROUND))
    x, y = (v[::step].reshape(len(v[::step]), -1) for v in (x, y))
    kept.around_words = words[::step]
    if len(x) > N_NEIGHBORS:
        kept.overlaps = neighborhood_overlap(x, y, N_NEIGHBORS)
        comparison.overlap, comparison.n_around = float(kept.overlaps.mean()), len(x)
    else:
        kept.around_words = []
