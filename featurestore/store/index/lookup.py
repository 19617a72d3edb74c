"""The index: key to (shard, row), so that a sentence is found without opening its shard.

It is derived: rebuilt from the shards whenever it is missing, stale or damaged, extended when shards were
added. It is mapped and never read as a whole; a lookup touches its keys' buckets only, and each bucket it
touches has a check of its own, so that a damaged one can neither hide a sentence nor invent one. What it says
of a sentence that it finds is compared with the key in the shard all the same.

File, all numbers little-endian:

- header, 128 bytes: magic, number of keys, number of shards, bits (below), keys of the largest bucket,
  BLAKE2b of the shard names, XXH3-64 of all that, zeros;
- table, ``2**bits + 1`` times 16 bytes: bucket b holds the keys whose first ``bits`` bits are b; where its
  records begin (they end where the next bucket's begin), and its check;
- records, 24 bytes a key in ascending order: first and last eight key bytes as numbers, shard and row as
  ``shard << 32 | row``.

``bits`` is such that a bucket has four to eight keys on average, which is two to four bytes of table a key.
Keys are hashes, so buckets are even; where they are not (a stranger's store), lookups become slow, not wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore.disk.atomic import write_atomic
from featurestore.disk.filesystem import LOCAL, FileSystem, temporary_name
from featurestore.disk.opening import open_for_reading
from featurestore.errors import StoreWriteError
from featurestore.keyarrays import Words, find, key_words
from featurestore.store.index.buckets import (
    RECORD_WORDS,
    bits_for,
    bucket_check,
    bucket_checks,
    bucket_table,
    buckets_of,
)
from featurestore.store.index.building import MergedIndex

logger = logging.getLogger(__name__)

_MAGIC = b"FSINDEX2"
_HEADER = struct.Struct("<8sQQQQ32s")
_HEADER_BYTES = 128
_MOST_BITS = 40
_BUCKETS_AT_ONCE = 1 << 16
_FEW_RECORDS = 32
"""Records of a bucket up to which one key is found faster without arrays; keys being hashes, that is all."""

MOST_IN_MEMORY = 1 << 18
"""Keys up to which an index is built in memory."""

Numbers = NDArray[np.uint32]


class DamagedIndexError(Exception):
    """An index is not what was written: build it again, nothing is lost."""


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

    @classmethod
    def nowhere(cls, n: int) -> Locations:
        """Return the places of so many sentences that are not in the store."""
        return cls(np.full(n, -1, np.int64), np.full(n, -1, np.int64))

    @property
    def found(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        return self.shard >= 0

    def __len__(self) -> int:
        return len(self.shard)


@dataclass(frozen=True)
class Index:
    """Keys in buckets, with their places; the arrays may be memory-mapped.

    Attributes
    ----------
    table : (2**bits + 1, 2) uint64
        Where each bucket's records begin, and its check.
    records : (n, 3) uint64
    n_shards : int
        How many of the manifest's shards it covers, from the first.
    largest : int
        Keys of the largest bucket: what says otherwise is damaged, before memory is taken for it.
    sizes : (n_shards,) uint64, optional
        Sentences of each shard; places beyond them are damage.
    """

    table: Words
    records: Words
    n_shards: int
    largest: int
    sizes: Words | None = None
    _map: mmap.mmap | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, high: Words, low: Words, shard: Numbers, row: Numbers, n_shards: int) -> Index:
        """Return the index of distinct keys in ascending order, given as first and last eight bytes."""
        places = (shard.astype(np.uint64) << np.uint64(32)) | row.astype(np.uint64)
        records = np.stack([high, low, places], axis=1)
        bits = bits_for(len(records))
        table = np.zeros(((1 << bits) + 1, 2), np.uint64)
        table[:-1] = bucket_table(np.arange(1 << bits), records, 0, bits)
        table[-1, 0] = len(records)
        return cls(table, records, n_shards, int(np.diff(table[:, 0].astype(np.int64)).max()))

    def __len__(self) -> int:
        return len(self.records)

    @property
    def high(self) -> Words:
        """First eight bytes of each key; (n,) uint64."""
        return self.records[:, 0]

    @property
    def low(self) -> Words:
        """Last eight bytes of each key; (n,) uint64."""
        return self.records[:, 1]

    @property
    def shard(self) -> Numbers:
        """(n,) uint32."""
        numbers: Numbers = (self.records[:, 2] >> np.uint64(32)).astype(np.uint32)
        return numbers

    @property
    def row(self) -> Numbers:
        """(n,) uint32."""
        numbers: Numbers = (self.records[:, 2] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return numbers

    @property
    def bits(self) -> int:
        """How many bits of a key choose its bucket."""
        return (len(self.table) - 1).bit_length() - 1

    def locate(self, keys: NDArray[np.uint8]) -> Locations:
        """Find (n, 16) uint8 keys.

        Raises
        ------
        DamagedIndexError
            If a bucket that one of them could be in is not what was written.
        """
        if len(keys) == 1 and (single := self._locate_one(keys.tobytes())) is not None:
            return single
        locations = Locations.nowhere(len(keys))
        high, low = key_words(keys)
        order = np.argsort(high)
        high, low = high[order], low[order]
        buckets = buckets_of(high, self.bits)
        records = self._bucket_records(buckets[_firsts(buckets)].astype(np.int64))
        at = find(records[:, 0], records[:, 1], high, low)
        hit = at >= 0
        locations.shard[order[hit]], locations.row[order[hit]] = self._places(records[at[hit]])
        return locations

    def _locate_one(self, key: bytes) -> Locations | None:
        """Find one key without arrays, which cost more; None if its bucket is too large for that."""
        self._require_whole()
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        bucket = high >> (64 - self.bits)
        (start, check), (stop, _) = self.table[bucket : bucket + 2].tolist()
        if stop - start > _FEW_RECORDS:
            return None
        records = self.records[start:stop].tolist()
        if len(records) != stop - start or bucket_check(bucket, start, stop, records) != check:
            raise DamagedIndexError("a bucket of an index is damaged")
        for position, (record_high, record_low, _) in enumerate(records, start):
            if (record_high, record_low) == (high, low):
                return Locations(*self._places(self.records[position : position + 1]))
        return Locations.nowhere(1)

    def with_prefix(self, digits: str) -> list[tuple[int, int]]:
        """Return (shard, row) of the keys that begin with these hexadecimal digits, of which 16 count."""
        digits = digits[:16]
        edges = np.array([int(digits.ljust(16, fill), 16) for fill in "0f"], np.uint64)
        first, last = buckets_of(edges, self.bits).tolist()
        records = self._bucket_records(np.arange(first, last + 1))
        records = records[(records[:, 0] >= edges[0]) & (records[:, 0] <= edges[1])]
        shard, row = self._places(records)
        return list(zip(shard.tolist(), row.tolist(), strict=True))

    def verify(self) -> None:
        """Look at everything.

        Raises
        ------
        DamagedIndexError
        """
        for start in range(0, len(self.table) - 1, _BUCKETS_AT_ONCE):
            stop = min(start + _BUCKETS_AT_ONCE, len(self.table) - 1)
            self._places(self._bucket_records(np.arange(start, stop)))

    def extended(self, additions: Sequence[NDArray[np.uint8]]) -> Index:
        """Return an index that also covers further shards, by their keys; of equal keys the first stays."""
        highs, lows, places = [self.records[:, 0]], [self.records[:, 1]], [self.records[:, 2]]
        for number, keys in enumerate(additions, start=self.n_shards):
            high, low = key_words(keys)
            highs.append(high)
            lows.append(low)
            places.append(np.arange(len(high), dtype=np.uint64) | (np.uint64(number) << np.uint64(32)))
        high, low, place = np.concatenate(highs), np.concatenate(lows), np.concatenate(places)
        # Stable, so of equal keys the one of the earliest place comes first; and quick with runs in order.
        order = np.argsort(high, kind="stable")
        high = high[order]
        tied = np.flatnonzero(high[1:] == high[:-1])
        if len(tied):
            tied = np.union1d(tied, tied + 1)
            among = order[tied]
            order[tied] = among[np.lexsort((low[among], high[tied]))]
        low = low[order]
        fresh = np.ones(len(high), bool)
        fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        place = place[order[fresh]]
        shard, row = (place >> np.uint64(32)).astype(np.uint32), place.astype(np.uint32)
        return Index.of(high[fresh], low[fresh], shard, row, self.n_shards + len(additions))

    def _require_whole(self) -> None:
        if self._map is not None and self._map.size() < _file_bytes(len(self.records), self.bits):
            raise DamagedIndexError("an index was cut while it was open")

    def _bucket_records(self, buckets: NDArray[np.int64]) -> Words:
        """Return the records of ascending buckets, end to end, after comparing each one's check."""
        self._require_whole()
        starts, checks = self.table.take(buckets, axis=0).T
        stops = self.table[buckets + 1, 0]
        sizes = stops - starts  # unsigned: a step back is a huge one
        if len(buckets) and (int(sizes.max()) > self.largest or int(stops.max()) > len(self.records)):
            raise DamagedIndexError("the table of an index is damaged")
        ends = np.cumsum(sizes.astype(np.int64))
        begins = ends - sizes.astype(np.int64)
        positions = np.arange(len(ends) and ends[-1]) + np.repeat(
            starts.astype(np.int64) - begins, sizes.astype(np.int64)
        )
        records: Words = self.records.take(positions, axis=0)
        if (bucket_checks(buckets, starts, stops, records, positions) != checks).any():
            raise DamagedIndexError("a bucket of an index is damaged")
        return records

    def _places(self, records: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard and row of records, after making sure that there are such."""
        shard, row = records[:, 2] >> np.uint64(32), records[:, 2] & np.uint64(0xFFFFFFFF)
        if len(records) and int(shard.max()) >= self.n_shards:
            raise DamagedIndexError("an index points to a shard that is not there")
        if self.sizes is not None and (row >= self.sizes[shard]).any():
            raise DamagedIndexError("an index points behind the end of a shard")
        return shard.astype(np.int64), row.astype(np.int64)


def _firsts(ascending: Words) -> NDArray[np.bool_]:
    """Return where a number is not the one before it."""
    first = np.ones(len(ascending), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return first


def empty_index() -> Index:
    """Return an index of nothing."""
    words, numbers = np.empty(0, np.uint64), np.empty(0, np.uint32)
    return Index.of(words, words, numbers, numbers, 0)


def load_index(
    directory: Path,
    shard_names: Sequence[str],
    read_keys: Callable[[int], NDArray[np.uint8]],
    *,
    sizes: Sequence[int] | None = None,
    filesystem: FileSystem = LOCAL,
    save: bool = True,
    believe: bool = True,
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
    believe : bool
        False: what lies on disk was found damaged; rebuild.
    most_in_memory : int
        Keys of an index that is built in memory, at 100 bytes each; with more (by ``sizes``) it is merged to
        its file in bounded memory, if that can be written.
    """
    paths = sorted(directory.glob("*.idx")) if believe and directory.is_dir() else []
    found = [(path, index) for path in paths if (index := _read(path, shard_names, sizes)) is not None]
    for _, index in found:
        if index.n_shards == len(shard_names):
            return index
    best = empty_index()
    # What is built on must be right in every bucket, for it gets new checks.
    for path, index in sorted(found, key=lambda pair: -pair[1].n_shards):
        if _is_sound(path, index):
            best = index
            break
    logger.info("indexing %d of %d shards", len(shard_names) - best.n_shards, len(shard_names))
    path = directory / f"{_names_hash(shard_names)[:8].hex()}.idx"
    built: Index | None = None
    if save:
        try:
            if sizes is not None and sum(sizes) > most_in_memory:
                _write_merged(path, best, shard_names, read_keys, filesystem)
            else:
                built = _extended(best, shard_names, read_keys)
                write_atomic(path, _to_bytes(built, shard_names), filesystem)
            for superseded, _ in found:
                filesystem.remove(superseded)
            filesystem.remove_orphaned(directory, ".*.tmp")
            # Mapped, it takes no memory of this process.
            built = _read(path, shard_names, sizes) or built
        except StoreWriteError as error:
            logger.debug("the index is kept in memory only: %s", error)
    return built or _extended(best, shard_names, read_keys)


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
    filesystem.make_directory(path.parent, lasting=False)
    merged = MergedIndex(index.records, index.n_shards, len(shard_names), read_keys, path.parent, filesystem)
    header = _header(merged.n_keys, merged.bits, merged.largest, shard_names)
    temporary = path.parent / f".{path.name}.{temporary_name('.tmp')}"
    parts = itertools.chain([header], merged.parts())
    with filesystem.temporary_file(temporary, parts, _file_bytes(merged.n_keys, merged.bits)):
        filesystem.replace(temporary, path)


def stale_files(directory: Path, shard_names: Sequence[str], sizes: Sequence[int]) -> list[Path]:
    """Return the index files that :func:`load_index` neither needs nor believes, sorted."""
    found = {}
    for path in directory.glob("*.idx") if directory.is_dir() else ():
        index = _read(path, shard_names, sizes)
        found[path] = index if index is not None and _is_sound(path, index) else None
    complete = any(index is not None and index.n_shards == len(shard_names) for index in found.values())
    return sorted(
        path
        for path, index in found.items()
        if not path.is_dir() and (index is None or (complete and index.n_shards < len(shard_names)))
    )


def _is_sound(path: Path, index: Index) -> bool:
    try:
        index.verify()
    except DamagedIndexError as damage:
        logger.warning("%s (%s)", damage, path)
        return False
    return True


def _names_hash(shard_names: Sequence[str]) -> bytes:
    return hashlib.blake2b("\n".join(shard_names).encode(), digest_size=32).digest()


def _file_bytes(n_keys: int, bits: int) -> int:
    return _HEADER_BYTES + ((1 << bits) + 1) * 16 + n_keys * 8 * RECORD_WORDS


def _to_bytes(index: Index, shard_names: Sequence[str]) -> bytes:
    arrays = (np.ascontiguousarray(array, "<u8").tobytes() for array in (index.table, index.records))
    return b"".join([_header(len(index), index.bits, index.largest, shard_names), *arrays])


def _header(n_keys: int, bits: int, largest: int, shard_names: Sequence[str]) -> bytes:
    fields = _HEADER.pack(_MAGIC, n_keys, len(shard_names), bits, largest, _names_hash(shard_names))
    return (fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little")).ljust(_HEADER_BYTES, b"\0")


def _read(path: Path, shard_names: Sequence[str], sizes: Sequence[int] | None) -> Index | None:
    """Return the index in a file, mapped, or None if its header is damaged or it belongs to other shards."""
    try:
        descriptor = open_for_reading(path)
    except OSError:
        return None
    try:
        header = os.pread(descriptor, _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            return None
        fields, rest = header[: _HEADER.size], header[_HEADER.size :]
        if rest != xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little").ljust(len(rest), b"\0"):
            logger.warning("index %s is damaged; building it again", path)
            return None
        _, n_keys, n_shards, bits, largest, names = _HEADER.unpack(fields)
        if n_shards > len(shard_names) or names != _names_hash(shard_names[:n_shards]):
            return None
        if bits > _MOST_BITS or os.fstat(descriptor).st_size != _file_bytes(n_keys, bits):
            return None
        if sizes is not None and n_keys > sum(sizes[:n_shards]):
            return None
        mapped = mmap.mmap(descriptor, _file_bytes(n_keys, bits), access=mmap.ACCESS_READ)
    except (OSError, ValueError, OverflowError):
        return None
    finally:
        os.close(descriptor)
    words = np.frombuffer(mapped, "<u8", offset=_HEADER_BYTES)
    n_table = 2 * ((1 << bits) + 1)
    table, records = words[:n_table].reshape(-1, 2), words[n_table:].reshape(-1, RECORD_WORDS)
    if table[-1].tolist() != [n_keys, 0]:
        logger.warning("index %s is damaged; building it again", path)
        return None
    of_shards = None if sizes is None else np.array(sizes[:n_shards], np.uint64)
    return Index(table, records, n_shards, largest, of_shards, mapped)
