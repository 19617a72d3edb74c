"""Statistics of a store: lengths of sentences, repeats, and a sample of vector norms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.store.store import Store


@dataclass(frozen=True)
class Distribution:
    """A histogram with the usual summary.

    Attributes
    ----------
    mean, std, smallest, median, p95, largest : float
    edges, counts : tuple
        ``counts[i]`` values lie between ``edges[i]`` and ``edges[i + 1]``.
    """

    mean: float
    std: float
    smallest: float
    median: float
    p95: float
    largest: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(
        cls, values: NDArray[np.floating] | NDArray[np.integer], edges: Sequence[float] | None = None
    ) -> Distribution:
        """Summarise values; ``edges`` are twelve equal steps unless given."""
        counts, found = np.histogram(values, bins=12 if edges is None else np.asarray(edges, float))
        median, p95 = np.percentile(values, [50, 95])
        return cls(
            float(values.mean()), float(values.std()), float(values.min()), float(median), float(p95),
            float(values.max()), tuple(map(float, found)), tuple(map(int, counts)),
        )  # fmt: skip

    def bins(self) -> list[tuple[float, float]]:
        """Return the lower and upper edge of each bin."""
        return list(zip(self.edges[:-1], self.edges[1:], strict=True))

    def summary(self, style: str) -> str:
        """Return the summary in one line, numbers formatted by ``style``."""
        named = {
            "mean": self.mean, "std": self.std, "min": self.smallest, "median": self.median,
            "p95": self.p95, "max": self.largest,
        }  # fmt: skip
        return ", ".join(f"{name} {style.format(value)}" for name, value in named.items())


@dataclass(frozen=True)
class Statistics:
    """What :func:`gather_statistics` found.

    Attributes
    ----------
    n_sentences, n_tokens : int
    n_repeated : int
        Sentences stored more than once (two writers may race); readers use the first.
    lengths : Distribution
        Tokens of each sentence.
    norms : Distribution
        Euclidean norms of the sampled tokens' vectors (all layers together).
    n_norms : int
        Tokens sampled.
    value_mean, value_std : float
        Of all values of the sampled vectors.
    """

    n_sentences: int
    n_tokens: int
    n_repeated: int
    lengths: Distribution
    norms: Distribution
    n_norms: int
    value_mean: float
    value_std: float

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics for ``--json``."""
        return asdict(self)


def gather_statistics(store: Store, *, sample: int = 2000) -> Statistics:
    """Count a store that holds at least one sentence.

    Parameters
    ----------
    store : Store
    sample : int
        Sentences whose vectors are read, spread evenly over the store.

    Raises
    ------
    DamagedStoreError
        If something read is not what was committed.
    """
    chosen = np.unique(np.linspace(0, len(store) - 1, min(sample, len(store))).astype(np.int64))
    starts = np.cumsum([0, *(entry.n_sentences for entry in store.manifest.shards)])
    bounds = np.searchsorted(chosen, starts).tolist()
    of_shards, norms = list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    totals, squares, n_values = 0.0, 0.0, 0
    for shard, (begin, end) in enumerate(itertools.pairwise(bounds)):
        reader = store.passing(shard)
        offsets = reader.offsets.astype(np.int64)
        of_shards.append(offsets[1:] - offsets[:-1])
        for row in (chosen[begin:end] - starts[shard]).tolist():
            vectors = reader.read(row)
            flat = vectors.reshape(len(vectors), -1).astype(np.float64)
            norms.append(np.sqrt((flat**2).sum(axis=1)))
            totals += float(flat.sum())
            squares += float((flat**2).sum())
            n_values += flat.size
    lengths, all_norms = np.concatenate(of_shards), np.concatenate(norms)
    mean = totals / n_values
    return Statistics(
        n_sentences=len(lengths),
        n_tokens=int(lengths.sum()),
        n_repeated=len(lengths) - len(store.index),
        lengths=Distribution.of(lengths, _length_edges(int(lengths.max()))),
        norms=Distribution.of(all_norms),
        n_norms=len(all_norms),
        value_mean=mean,
        value_std=float(np.sqrt(max(0.0, squares / n_values - mean**2))),
    )


def _length_edges(longest: int) -> list[float]:
    """Return edges that grow, since most sentences are short and a few very long."""
    edges = [1, 2, 3, 5, 8, 12, 17, 23, 30, 40, 60, 100, 200, 500, 1000, 10_000, 100_000, 1_000_000]
    return [float(edge) for edge in edges if edge <= longest] + [float(longest + 1)]
