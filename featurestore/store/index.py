"""The index: sorted keys to (shard, row), so that a sentence is found without opening its shard.

It is derived: rebuilt from the shards whenever it is missing or stale, extended when shards were added. An
index can never make a reader return a wrong vector, because every row it names is checked against the key
stored there; a damaged one is noticed by its checksum and rebuilt.

File: 64-byte header (magic, number of keys, number of shards, BLAKE2b of the shard names, XXH3-64 of the
rest), then four arrays in ascending key order: first eight key bytes and last eight key bytes as unsigned
numbers, shard (u4), row (u4).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore.errors import StoreWriteError
from featurestore.keys import KEY_BYTES
from featurestore.store.filesystem import (
    LOCAL,
    FileSystem,
    open_for_reading,
    temporary_name,
    write_atomic,
)
from featurestore.store.indexing import COLUMNS, IndexColumns

logger = logging.getLogger(__name__)

_MAGIC = b"FSINDEX1"
_HEADER = struct.Struct("<8sQQ32sQ")
_BYTES_PER_KEY = 24

MOST_IN_MEMORY = 1 << 20
"""Keys up to which an index is built in memory."""

Words = NDArray[np.uint64]
Numbers = NDArray[np.uint32]


@dataclass(frozen=True)
class Locations:
    """Where sentences lie.

    Attributes
    ----------
    shard, row : (n,) int64
        Number of the shard in the manifest and of the sentence in the shard; -1 where the sentence is
        not in the store.
    """

    shard: NDArray[np.int64]
    row: NDArray[np.int64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        return self.shard >= 0

    def __len__(self) -> int:
        return len(self.shard)


def key_words(keys: NDArray[np.uint8]) -> tuple[Words, Words]:
    """Split (n, 16) keys into their first and last eight bytes as big-endian numbers, each (n,) uint64."""
    words = np.ascontiguousarray(keys).reshape(-1, KEY_BYTES).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def keys_array(keys: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return 16-byte keys as an (n, 16) uint8 array."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)


def find(high: Words, low: Words, wanted_high: Words, wanted_low: Words) -> NDArray[np.int64]:
    """Return the position of each wanted key among sorted ones, -1 where it is not; (n,) int64."""
    result = np.full(len(wanted_high), -1, np.int64)
    if not len(high) or not len(wanted_high):
        return result
    # Asking in ascending order lets each search start in memory the last one touched.
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
        # Two keys may share their first eight bytes: look at the next one.
        open_questions = open_questions[~hit]
        position[open_questions] += 1
    return result


@dataclass(frozen=True)
class Index:
    """Sorted keys with their places; the arrays may be memory-mapped.

    Attributes
    ----------
    high, low : (n,) uint64
    shard, row : (n,) uint32
    n_shards : int
        How many of the manifest's shards it covers, from the first.
    """

    high: Words
    low: Words
    shard: Numbers
    row: Numbers
    n_shards: int

    def locate(self, keys: NDArray[np.uint8]) -> Locations:
        """Find (n, 16) uint8 keys."""
        at = find(self.high, self.low, *key_words(keys))
        hit = at >= 0
        shard, row = np.full(len(at), -1, np.int64), np.full(len(at), -1, np.int64)
        shard[hit], row[hit] = self.shard[at[hit]], self.row[at[hit]]
        return Locations(shard, row)

    def with_prefix(self, digits: str) -> list[tuple[int, int]]:
        """Return (shard, row) of the keys that begin with these hexadecimal digits, of which 16 count."""
        digits = digits[:16]
        low = int(digits.ljust(16, "0"), 16)
        high = int(digits.ljust(16, "f"), 16)
        first = int(np.searchsorted(self.high, np.uint64(low), side="left"))
        last = int(np.searchsorted(self.high, np.uint64(high), side="right"))
        return list(zip(self.shard[first:last].tolist(), self.row[first:last].tolist(), strict=True))

    def extended(self, additions: Sequence[NDArray[np.uint8]]) -> Index:
        """Return an index that also covers further shards, by their keys; of equal keys the first stays."""
        highs, lows, shards, rows = [self.high], [self.low], [self.shard], [self.row]
        for number, keys in enumerate(additions, start=self.n_shards):
            high, low = key_words(keys)
            highs.append(high)
            lows.append(low)
            shards.append(np.full(len(high), number, np.uint32))
            rows.append(np.arange(len(high), dtype=np.uint32))
        high, low = np.concatenate(highs), np.concatenate(lows)
        shard, row = np.concatenate(shards), np.concatenate(rows)
        order = np.lexsort((row, shard, low, high))
        high, low = high[order], low[order]
        fresh = np.ones(len(high), bool)
        fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        order = order[fresh]
        return Index(high[fresh], low[fresh], shard[order], row[order], self.n_shards + len(additions))


def empty_index() -> Index:
    """Return an index of nothing."""
    words, numbers = np.empty(0, np.uint64), np.empty(0, np.uint32)
    return Index(words, words, numbers, numbers, 0)


def load_index(
    directory: Path,
    shard_names: Sequence[str],
    read_keys: Callable[[int], NDArray[np.uint8]],
    *,
    sizes: Sequence[int] | None = None,
    filesystem: FileSystem = LOCAL,
    save: bool = True,
    most_in_memory: int = MOST_IN_MEMORY,
) -> Index:
    """Return the index over a list of shards: from disk, extended from disk, or rebuilt.

    Parameters
    ----------
    directory : Path
        The store's ``index/``.
    shard_names : sequence of str
        In manifest order.
    read_keys : callable
        Shard number to its (n, 16) uint8 keys.
    sizes : sequence of int, optional
        Sentences of each shard: an index that holds more, or points behind them, is not believed.
    save : bool
        Write a new index for the next reader; a directory that cannot be written is fine.
    most_in_memory : int
        Keys of an index that is built in memory, at 100 bytes each; with more (by ``sizes``) it is merged to
        its file in bounded memory, if that can be written.
    """
    best: Index | None = None
    superseded = []
    for path in sorted(directory.glob("*.idx")) if directory.is_dir() else []:
        index = _read(path, shard_names, sizes)
        if index is None:
            continue
        if index.n_shards == len(shard_names):
            return index
        superseded.append(path)
        if best is None or index.n_shards > best.n_shards:
            best = index
    best = best or empty_index()
    logger.info("indexing %d of %d shards", len(shard_names) - best.n_shards, len(shard_names))
    path = directory / f"{_names_hash(shard_names)[:8].hex()}.idx"
    whole: Index | None = None
    if save:
        try:
            if sizes is not None and sum(sizes) > most_in_memory:
                _write_merged(path, best, shard_names, read_keys, filesystem)
                whole = _read(path, shard_names, sizes)
            else:
                whole = _extended(best, shard_names, read_keys)
                write_atomic(path, _to_bytes(whole, shard_names), filesystem)
            for old in superseded:
                filesystem.remove(old)
            filesystem.remove_abandoned(directory, ".*.tmp")
        except StoreWriteError as error:
            logger.debug("the index is kept in memory only: %s", error)
    return whole or _extended(best, shard_names, read_keys)


def _extended(
    index: Index, shard_names: Sequence[str], read_keys: Callable[[int], NDArray[np.uint8]]
) -> Index:
    return index.extended([read_keys(number) for number in range(index.n_shards, len(shard_names))])


def _write_merged(
    path: Path,
    index: Index,
    shard_names: Sequence[str],
    read_keys: Callable[[int], NDArray[np.uint8]],
    filesystem: FileSystem,
) -> None:
    """Write the index over all shards without holding it in memory."""
    filesystem.make_directory(path.parent)
    arrays = index.high, index.low, index.shard, index.row
    columns = IndexColumns(arrays, index.n_shards, len(shard_names), read_keys, path.parent, filesystem)
    header = _header(columns.n_keys, shard_names, columns.digest())
    n_bytes = _HEADER.size + columns.n_keys * _BYTES_PER_KEY
    temporary = path.parent / f".{path.name}.{temporary_name('.tmp')}"
    with filesystem.temporary_file(temporary, itertools.chain([header], columns.parts()), n_bytes):
        filesystem.replace(temporary, path)


def stale_files(directory: Path, shard_names: Sequence[str], sizes: Sequence[int]) -> list[Path]:
    """Return the index files that :func:`load_index` neither needs nor believes, sorted."""
    paths = directory.glob("*.idx") if directory.is_dir() else ()
    found = {path: _read(path, shard_names, sizes) for path in paths}
    complete = any(index is not None and index.n_shards == len(shard_names) for index in found.values())
    return sorted(
        path
        for path, index in found.items()
        if not path.is_dir() and (index is None or (complete and index.n_shards < len(shard_names)))
    )


def _names_hash(shard_names: Sequence[str]) -> bytes:
    return hashlib.blake2b("\n".join(shard_names).encode(), digest_size=32).digest()


def _to_bytes(index: Index, shard_names: Sequence[str]) -> bytes:
    arrays = index.high, index.low, index.shard, index.row
    body = b"".join(
        np.ascontiguousarray(array, dtype).tobytes() for array, dtype in zip(arrays, COLUMNS, strict=True)
    )
    return _header(len(index.high), shard_names, xxhash.xxh3_64_intdigest(body)) + body


def _header(n_keys: int, shard_names: Sequence[str], digest: int) -> bytes:
    return _HEADER.pack(_MAGIC, n_keys, len(shard_names), _names_hash(shard_names), digest)


def _read(path: Path, shard_names: Sequence[str], sizes: Sequence[int] | None) -> Index | None:
    """Return the index in a file, or None if it is damaged or belongs to other shards."""
    try:
        descriptor = open_for_reading(path)
    except OSError:
        return None
    try:
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return None
        magic, n_keys, n_shards, names, digest = _HEADER.unpack(header)
        size = os.fstat(descriptor).st_size
        if magic != _MAGIC or n_shards > len(shard_names) or size != _HEADER.size + n_keys * _BYTES_PER_KEY:
            return None
        if names != _names_hash(shard_names[:n_shards]):
            return None
        if sizes is not None and n_keys > sum(sizes[:n_shards]):
            return None
        mapped = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
    body = mapped[_HEADER.size :]
    if xxhash.xxh3_64_intdigest(body) != digest:
        logger.warning("index %s is damaged; building it again", path)
        return None
    high = np.frombuffer(body, "<u8", n_keys, 0)
    low = np.frombuffer(body, "<u8", n_keys, 8 * n_keys)
    shard = np.frombuffer(body, "<u4", n_keys, 16 * n_keys)
    row = np.frombuffer(body, "<u4", n_keys, 20 * n_keys)
    if n_keys and int(shard.max()) >= n_shards:
        return None
    if sizes is not None and n_keys and (row >= np.asarray(sizes, np.uint32)[shard]).any():
        return None
    return Index(high, low, shard, row, n_shards)
