"""The buckets of an index: which one a key belongs to, and the check that shows whether one is intact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore.keyarrays import Words

RECORD_WORDS = 3
"""First and last eight bytes of the key, and its place: ``shard << 32 | row``."""

_ODD = np.array(
    [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5],
    np.uint64,
)

_ODD_NUMBERS: list[int] = _ODD.tolist()
_64_BITS = (1 << 64) - 1


def bits_for(n_keys: int) -> int:
    """Return how many bits of a key choose its bucket, so that a bucket has four to eight keys on average."""
    return max(0, n_keys.bit_length() - 3)


def buckets_of(high: Words, bits: int) -> Words:
    """Return the bucket of each key, given its first eight bytes."""
    return high >> np.uint64(64 - bits) if bits else np.zeros(len(high), np.uint64)


def bucket_table(buckets: NDArray[np.int64], records: Words, position: int, bits: int) -> Words:
    """Return where the records of consecutive buckets begin, and the buckets' checks; (n_buckets, 2).

    Parameters
    ----------
    buckets : (n_buckets,) int64
    records : (n, 3) uint64
        The records of these buckets, in ascending order.
    position : int
        Of the first record in the index.
    bits : int
    """
    edges = np.append(buckets, buckets[-1:] + 1).astype(np.uint64)
    first = np.searchsorted(buckets_of(records[:, 0], bits), edges)
    table = np.empty((len(buckets), 2), np.uint64)
    table[:, 0] = position + first[:-1]
    table[:, 1] = bucket_checks(
        buckets,
        table[:, 0],
        (position + first[1:]).astype(np.uint64),
        records,
        position + np.arange(len(records)),
    )
    return table


def bucket_checks(
    buckets: NDArray[np.int64], starts: Words, stops: Words, records: Words, positions: NDArray[np.int64]
) -> Words:
    """Return the checks of buckets: sums of 64-bit hashes of their records, number and edges; (n_buckets,).

    Parameters
    ----------
    buckets : (n_buckets,) int64
    starts, stops : (n_buckets,) uint64
        The edges of their records in the index.
    records : (n, 3) uint64
        Their records, end to end.
    positions : (n,) int64
        Of the records in the index.
    """
    mixed = records[:, 0] * _ODD[0]
    mixed += records[:, 1] * _ODD[1]
    mixed += records[:, 2] * _ODD[2]
    mixed += positions.astype(np.uint64) * _ODD[3]
    totals = np.zeros(len(records) + 1, np.uint64)
    np.cumsum(_mixed(mixed), out=totals[1:])
    ends = np.cumsum((stops - starts).astype(np.int64))
    begins = ends - (stops - starts).astype(np.int64)
    of_edges = _mixed(buckets.astype(np.uint64) * _ODD[4] + starts * _ODD[3] + stops * _ODD[2] + _ODD[1])
    checks: Words = totals[ends] - totals[begins] + of_edges
    return checks


def bucket_check(bucket: int, start: int, stop: int, records: Sequence[Sequence[int]]) -> int:
    """Return the check of one bucket as :func:`bucket_checks` does; ten times as fast if it is small.

    Parameters
    ----------
    bucket : int
    start, stop : int
        The edges of its records in the index.
    records : sequence of (int, int, int)
        All of them.
    """
    a, b, c, d, e = _ODD_NUMBERS
    total = _mixed_number(bucket * e + start * d + stop * c + b)
    for position, (high, low, place) in enumerate(records, start):
        total += _mixed_number(high * a + low * b + place * c + position * d)
    return total & _64_BITS


def _mixed_number(word: int) -> int:
    word &= _64_BITS
    word = (word ^ word >> 32) * _ODD_NUMBERS[0] & _64_BITS
    return word ^ word >> 29


def _mixed(words: Words) -> Words:
    words ^= words >> np.uint64(32)
    words *= _ODD[0]
    words ^= words >> np.uint64(29)
    return words
