"""Sentences that come more than once: found by their keys, compared, and one vector chosen for each.

ELMo's published code carries its state from batch to batch, so the same sentence has other vectors each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CorpusError
from featurestore.exchange.incoming.source import Arrival, Source
from featurestore.keys import KEY_BYTES, sentence_key
from featurestore.vectors import relative_l2

RULES = ("error", "first", "last", "mean")


@dataclass
class Repeats:
    """What was found of sentences that come more than once.

    Attributes
    ----------
    n_sentences, n_tokens : int
        Different sentences, and their tokens.
    n_repeats : int
        Occurrences beyond the first of each.
    n_differing : int
        Those whose vectors are not exactly those of the first.
    max_relative_l2, mean_relative_l2 : float
        Of those that differ, from the first.
    n_unused : int
        Vectors in the file that no sentence asked for.
    first_differing : Arrival or None
    groups : dict of bytes to list of Arrival
        By key, the occurrences with vectors of their own; where the file has one for all, the first alone.
    """

    n_sentences: int = 0
    n_tokens: int = 0
    n_repeats: int = 0
    n_differing: int = 0
    max_relative_l2: float = 0.0
    mean_relative_l2: float = 0.0
    n_unused: int = 0
    groups: dict[bytes, list[Arrival]] = field(default_factory=dict)
    first_differing: Arrival | None = None


def find_repeats(source: Source) -> Repeats:
    """Read which sentences a source has, and compare the vectors of those that come more than once.

    In memory are 16 bytes a sentence, and the sentences that are repeated.

    Raises
    ------
    AlignmentError, CorpusError, VectorError
        As the source does.
    """
    found, keys = Repeats(), bytearray()
    for arrival in source.arrivals():
        keys += sentence_key(arrival.tokens)
        found.n_tokens += len(arrival.tokens)
    n_read = len(keys) // KEY_BYTES
    if not n_read:
        raise CorpusError("holds no sentence to import", path=source.path)
    unique, counts = np.unique(_sortable(keys), return_counts=True)
    found.n_sentences, found.n_repeats = len(unique), n_read - len(unique)
    n_names = n_read
    if found.n_repeats:
        groups = found.groups = {key.tobytes(): [] for key in unique[counts > 1]}
        for arrival in source.arrivals():
            group = groups.get(sentence_key(arrival.tokens))
            if group is None:
                continue
            if group:
                found.n_tokens -= len(arrival.tokens)
            if any(arrival.name == other.name for other in group):
                n_names -= 1
            else:
                group.append(arrival)
        _compare(source, found)
    found.n_unused = max(0, source.n_stored - n_names)
    return found


def _sortable(keys: bytearray) -> NDArray[np.void]:
    """Return keys as two integers each, which NumPy can sort where raw bytes it cannot."""
    return np.frombuffer(keys, [("a", "<u8"), ("b", "<u8")])


def _compare(source: Source, found: Repeats) -> None:
    total = 0.0
    for first, *others in found.groups.values():
        if not others:
            continue
        expected = source.read(first)
        for other in others:
            vectors = source.read(other)
            if vectors.shape == expected.shape and np.array_equal(vectors, expected):
                continue
            found.n_differing += 1
            found.first_differing = found.first_differing or other
            difference = relative_l2(expected, vectors)
            total += difference
            found.max_relative_l2 = max(found.max_relative_l2, difference)
    if found.n_differing:
        found.mean_relative_l2 = total / found.n_differing


def require_rule(found: Repeats, rule: str, path: object) -> None:
    """Raise CorpusError if vectors of the same sentence differ, and no rule says which is taken."""
    first = found.first_differing
    if rule != "error" or first is None:
        return
    raise CorpusError(
        f"{found.n_differing:,} of {found.n_repeats:,} repeats of sentences in {path} have other vectors "
        f"than the first time, by a relative L2 of {found.mean_relative_l2:.3g} on average and "
        f"{found.max_relative_l2:.3g} at most (ELMo's published code carries its state from batch to "
        "batch): choose --duplicates first, last "
        f'or mean (in Python duplicates="first"). The first of them: {" ".join(first.tokens[:12])}',
        path=first.path or None,
        line=first.line or None,
    )


def chosen(source: Source, found: Repeats, rule: str) -> Iterator[tuple[Arrival, NDArray[np.floating]]]:
    """Yield each different sentence once, where it first comes, with the vectors that the rule chooses."""
    done: set[bytes] = set()
    for arrival in source.arrivals():
        key = sentence_key(arrival.tokens)
        group = found.groups.get(key)
        if group is None:
            yield arrival, source.read(arrival)
        elif key not in done:
            done.add(key)
            yield arrival, _of_group(source, group, rule)


def _of_group(source: Source, group: list[Arrival], rule: str) -> NDArray[np.floating]:
    if rule != "mean" or len(group) == 1:
        return source.read(group[-1 if rule == "last" else 0])
    total = source.read(group[0]).astype(np.float64)
    for arrival in group[1:]:
        vectors = source.read(arrival)
        if vectors.shape != total.shape:
            raise arrival.misaligned(f"its vectors are {vectors.shape}, before they were {total.shape}")
        total += vectors
    mean: NDArray[np.floating] = (total / len(group)).astype(np.float32)
    return mean
