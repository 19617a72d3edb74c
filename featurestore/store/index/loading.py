"""The file of an index: read, written, extended, superseded by a larger one.

All numbers are little-endian:

- header, 128 bytes: magic, number of keys, number of shards, bits (below), keys of the largest bucket,
  BLAKE2b of the shard names, XXH3-64 of all that, zeros;
- table, ``2**bits + 1`` times 16 bytes: bucket b holds the keys whose first ``bits`` bits are b; where its
  records begin (they end where the next bucket's begin), and its check;
- records, 24 bytes a key in ascending order: first and last eight key bytes as numbers, shard and row as
  ``shard << 32 | row``.

``bits`` is such that a bucket has four to eight keys on average, which is two to four bytes of table a key.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore.disk.atomic import temporary_beside, write_atomic
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.opening import open_for_reading
from featurestore.errors import StoreWriteError
from featurestore.keyarrays import Words
from featurestore.store.index.buckets import RECORD_WORDS
from featurestore.store.index.building import MergedIndex
from featurestore.store.index.filerows import DamagedIndexError, FileRows, OpenFile
from featurestore.store.index.lookup import Index, empty_index
from featurestore.store.index.runs import MemoryRun

logger = logging.getLogger(__name__)

_MAGIC = b"FSINDEX2"
_HEADER_BYTES = 128
_HEADER = struct.Struct("<8sQQQQ32s")
_MOST_BITS = 40

MOST_IN_MEMORY = 1 << 18
"""Keys up to which an index is built in memory."""

SUPERSEDED_SECONDS = 24 * 3600.0
"""How long an index stays after a larger one was written: readers on other computers may have it mapped."""

_MOST_SUPERSEDED = 64
"""Such indexes that stay at most, the last ones: each is as large as the index itself."""


def load_index(
    directory: Path,
    shard_names: Sequence[str],
    read_keys: Callable[[int], NDArray[np.uint8]],
    *,
    sizes: Sequence[int] | None = None,
    filesystem: FileSystem = LOCAL,
    access: Literal["mmap", "pread"] = "mmap",
    save: bool = True,
    rebuild: bool = False,
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
        Sentences of each shard: an index that holds more, or points beyond them, is rebuilt.
    access : {"mmap", "pread"}
        How the file is read: mapped, or by positioned reads where it may be removed by another computer.
    save : bool
        Write a new index for the next reader; a directory that cannot be written is fine.
    rebuild : bool
        Take nothing from disk: an index there was found damaged.
    most_in_memory : int
        Keys of an index that is built in memory, at 100 bytes each; with more (by ``sizes``) it is merged to
        its file in bounded memory, if that can be written.
    """
    path = index_path(directory, shard_names)
    complete = None if rebuild else _read(path, shard_names, sizes, access)
    if complete is not None and complete.n_shards == len(shard_names):
        return complete
    found = []
    for each in [] if rebuild else _index_files(directory):
        index = None if each == path else _read(each, shard_names, sizes, access)
        if index is not None:
            found.append((each, index))
    found.sort(key=lambda pair: -pair[1].n_shards)
    best = empty_index()
    # An index that is extended gets new checks, so each of its buckets is compared with its old one first.
    damaged = []
    for each, index in found:
        if _is_intact(each, index):
            best = index
            break
        damaged.append(each)
    logger.info("indexing %d of %d shards", len(shard_names) - best.n_shards, len(shard_names))
    built: Index | None = None
    if save:
        try:
            if sizes is not None and sum(sizes) > most_in_memory:
                _write_merged(path, best, shard_names, read_keys, filesystem)
            else:
                built = _extended(best, shard_names, read_keys)
                write_atomic(path, index_bytes(built, shard_names), filesystem)
            for each in (*damaged, *_superseded(path, [each for each, _ in found])):
                filesystem.remove(each)
            filesystem.remove_orphaned(directory, ".*.tmp")
            # Mapped, it takes no memory of this process.
            built = _read(path, shard_names, sizes, access) or built
        except StoreWriteError as error:
            logger.debug("the index is kept in memory only: %s", error)
    return built or _extended(best, shard_names, read_keys)


def index_path(directory: Path, shard_names: Sequence[str]) -> Path:
    """Return where the index over a list of shards lies, or would lie."""
    return directory / f"{_names_hash(shard_names)[:8].hex()}.idx"


def _superseded(newest: Path, older: Iterable[Path]) -> list[Path]:
    """Return those of older indexes, the largest first, that nobody should still be reading.

    The age of each counts from when the one that followed it was written: until then readers opened it.
    """
    gone, follower = [], _written(newest)
    now = follower  # by the clock that dates the others: that of the disk, perhaps of another computer
    for position, path in enumerate(older):
        if now - follower > SUPERSEDED_SECONDS or position >= _MOST_SUPERSEDED:
            gone.append(path)
        follower = _written(path)
    return gone


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0  # somebody else removed it


def _index_files(directory: Path) -> list[Path]:
    """Return the index files of a directory, sorted; none where there is none or it cannot be listed."""
    try:
        return sorted(directory / name for name in os.listdir(directory) if name.endswith(".idx"))
    except OSError:
        return []


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
    before = index.records if isinstance(index.records, FileRows) else MemoryRun(index.records)
    merged = MergedIndex(before, index.n_shards, len(shard_names), read_keys, path.parent, filesystem)
    header = _header(merged.n_keys, merged.bits, merged.largest, shard_names)
    temporary = temporary_beside(path)
    parts = itertools.chain([header], merged.parts())
    with filesystem.temporary_file(temporary, parts, _file_bytes(merged.n_keys, merged.bits)):
        filesystem.replace(temporary, path)


def stale_files(directory: Path, shard_names: Sequence[str], sizes: Sequence[int]) -> list[Path]:
    """Return the index files that :func:`load_index` does not use, sorted: superseded or damaged."""
    found = {}
    for path in _index_files(directory):
        index = _read(path, shard_names, sizes)
        found[path] = index if index is not None and _is_intact(path, index) else None
    complete = any(index is not None and index.n_shards == len(shard_names) for index in found.values())
    return sorted(
        path
        for path, index in found.items()
        if not path.is_dir() and (index is None or (complete and index.n_shards < len(shard_names)))
    )


def is_index_of(path: Path, shard_names: Sequence[str], sizes: Sequence[int]) -> bool:
    """Return whether a file is the index over a list of shards, and sound."""
    if path != index_path(path.parent, shard_names):
        return False
    index = _read(path, shard_names, sizes)
    return index is not None and index.n_shards == len(shard_names) and _is_intact(path, index)


def _is_intact(path: Path, index: Index) -> bool:
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


def index_bytes(index: Index, shard_names: Sequence[str]) -> bytes:
    """Return the file of an index over the shards of those names."""
    arrays = (np.ascontiguousarray(array, "<u8").tobytes() for array in (index.table, index.records))
    return b"".join([_header(len(index), index.bits, index.largest, shard_names), *arrays])


def _header(n_keys: int, bits: int, largest: int, shard_names: Sequence[str]) -> bytes:
    fields = _HEADER.pack(_MAGIC, n_keys, len(shard_names), bits, largest, _names_hash(shard_names))
    return (fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little")).ljust(_HEADER_BYTES, b"\0")


def _read(
    path: Path,
    shard_names: Sequence[str],
    sizes: Sequence[int] | None,
    access: Literal["mmap", "pread"] = "mmap",
) -> Index | None:
    """Return the index in a file, or None if its header is damaged or it belongs to other shards."""
    try:
        descriptor = open_for_reading(path)
    except OSError:
        return None
    file = OpenFile(descriptor)
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
        n_table = (1 << bits) + 1
        mapped: mmap.mmap | None = None
        table: Words | FileRows
        records: Words | FileRows
        if access == "mmap":
            mapped = mmap.mmap(descriptor, _file_bytes(n_keys, bits), access=mmap.ACCESS_READ)
            words = np.frombuffer(mapped, "<u8", offset=_HEADER_BYTES)
            table = words[: 2 * n_table].reshape(-1, 2)
            records = words[2 * n_table :].reshape(-1, RECORD_WORDS)
        else:
            table = FileRows(file, _HEADER_BYTES, n_table, 2)
            records = FileRows(file, _HEADER_BYTES + n_table * 16, n_keys, RECORD_WORDS)
        if table[n_table - 1 : n_table].tolist() != [[n_keys, 0]]:
            logger.warning("index %s is damaged; building it again", path)
            return None
    except (OSError, ValueError, OverflowError, DamagedIndexError):
        return None
    of_shards = None if sizes is None else np.array(sizes[:n_shards], np.uint64)
    return Index(table, records, n_shards, largest, of_shards, mapped)
