"""Keys as arrays of numbers: many of them found at once among sorted ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from featurestore.keys import KEY_BYTES

Words = NDArray[np.uint64]


def key_words(keys: NDArray[np.uint8]) -> tuple[Words, Words]:
    """Split (n, 16) keys into their first and last eight bytes as big-endian numbers, each (n,) uint64."""
    words = np.ascontiguousarray(keys).reshape(-1, KEY_BYTES).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def keys_array(keys: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return 16-byte keys as an (n, 16) uint8 array."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)


def split_keys(keys: NDArray[np.uint8]) -> list[bytes]:
    """Return (n, 16) keys one by one."""
    raw = keys.tobytes()
    return [raw[start : start + KEY_BYTES] for start in range(0, len(raw), KEY_BYTES)]


def find(high: Words, low: Words, wanted_high: Words, wanted_low: Words) -> NDArray[np.int64]:
    """Return the position of each wanted key among sorted ones, -1 where it is missing; (n,) int64."""
    result = np.full(len(wanted_high), -1, np.int64)
    if not len(high) or not len(wanted_high):
        return result
    # In ascending order each search begins in memory that the last one touched.
    order = np.argsort(wanted_high, kind="stable")
    position = np.searchsorted(high, wanted_high[order])
    open_questions = np.arange(len(order))
    while len(open_questions):
        at = position[open_questions]
        inside = at < len(high)
        open_questions, at = open_questions[inside], at[inside]
        asked = order[open_questions]
        same_high = high[at] == wanted_high[asked]
        open_questions, at, asked = open_questions[same_high], at[same_high], asked[same_high]
        hit = low[at] == wanted_low[asked]
        result[asked[hit]] = at[hit]
        # Several keys may share their first eight bytes: try the next one.
        open_questions = open_questions[~hit]
        position[open_questions] += 1
    return result
