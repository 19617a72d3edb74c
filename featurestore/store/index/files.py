"""The file of a run of an index: its bytes, and what its header says.

All numbers are little-endian:

- header, 128 bytes: magic, number of keys, first shard, shard after the last one, bits (below), keys of the
  largest bucket, BLAKE2b of the shards' names, XXH3-64 of all that, zeros;
- table, ``2**bits + 1`` times 16 bytes: bucket b holds the keys whose first ``bits`` bits are b; where its
  records begin (they end where the next bucket's begin), and its check;
- records, 24 bytes a key in ascending order: first and last eight key bytes as numbers, shard and row as
  ``shard << 32 | row``.

``bits`` is such that a bucket has four to eight keys on average, which is two to four bytes of table a key.
The header of an earlier version lacks the first shard, which is 0.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash

from featurestore.disk.opening import open_for_reading
from featurestore.keyarrays import Words
from featurestore.store.index.filerows import DamagedIndexError, FileRows, OpenFile
from featurestore.store.index.run import TABLE_DAMAGED, IndexRun
from featurestore.store.index.shardlist import ShardList

logger = logging.getLogger(__name__)

_MAGIC, _EARLIER_MAGIC = b"FSINDEX3", b"FSINDEX2"
_HEADER_BYTES = 128
_HEADER, _EARLIER_HEADER = struct.Struct("<8sQQQQQ32s"), struct.Struct("<8sQQQQ32s")
_RECORD_BYTES = 24
_MOST_BITS = 40


@dataclass(frozen=True)
class RunFile:
    """The open file of a run, whose header is sound; what follows it is not read yet.

    Attributes
    ----------
    path : Path
    n_keys, first, stop, bits, largest : int
        As in :class:`~featurestore.store.index.run.IndexRun`.
    digest : bytes
        BLAKE2b of its shards' names.
    """

    path: Path
    n_keys: int
    first: int
    stop: int
    bits: int
    largest: int
    digest: bytes
    _file: OpenFile = field(repr=False, compare=False)

    def fits(self, shards: ShardList) -> bool:
        """Return whether it lies inside a list of shards and has no more keys than they; cheap."""
        # By its name there is one file over any shards, however many a stranger put there.
        if not self.first < self.stop <= len(shards) or self.path.name != _file_name(self.digest):
            return False
        n_keys = shards.n_keys(self.first, self.stop)
        return n_keys is None or self.n_keys <= n_keys

    def covers(self, shards: ShardList) -> bool:
        """Return whether its shards are those of a list."""
        return self.fits(shards) and self.digest == shards.digest(self.first, self.stop)

    def run(self, shards: ShardList, access: Literal["mmap", "pread"] = "mmap") -> IndexRun:
        """Return the run, mapped, or read by positioned reads where another computer may remove the file.

        Raises
        ------
        DamagedIndexError
            If the file is not what its header says.
        """
        n_table = (1 << self.bits) + 1
        mapped: mmap.mmap | None = None
        table: Words | FileRows
        records: Words | FileRows
        if access == "mmap":
            try:
                n_bytes = file_bytes(self.n_keys, self.bits)
                mapped = mmap.mmap(self._file.descriptor, n_bytes, access=mmap.ACCESS_READ)
            except (OSError, ValueError, OverflowError) as error:
                raise DamagedIndexError(f"an index cannot be mapped: {error}") from error
            words = np.frombuffer(mapped, "<u8", offset=_HEADER_BYTES)
            table = words[: 2 * n_table].reshape(-1, 2)
            records = words[2 * n_table :].reshape(-1, 3)
        else:
            table = FileRows(self._file, _HEADER_BYTES, n_table, 2)
            records = FileRows(self._file, _HEADER_BYTES + n_table * 16, self.n_keys, 3)
        if table[n_table - 1 : n_table].tolist() != [[self.n_keys, 0]]:
            raise DamagedIndexError(TABLE_DAMAGED)
        return IndexRun(table, records, self.first, self.stop, self.largest, shards.sizes, mapped)


def open_run(path: Path) -> RunFile | None:
    """Return the file of a run, None where there is none, its version is unknown or its header damaged."""
    try:
        file = OpenFile(open_for_reading(path))
        raw = os.pread(file.descriptor, _HEADER_BYTES, 0)
        n_bytes = os.fstat(file.descriptor).st_size
    except OSError:
        return None
    header = _EARLIER_HEADER if raw.startswith(_EARLIER_MAGIC) else _HEADER
    if len(raw) < _HEADER_BYTES or not raw.startswith((_MAGIC, _EARLIER_MAGIC)):
        return None
    fields, rest = raw[: header.size], raw[header.size :]
    if rest != _sealed(fields)[header.size :]:
        logger.warning("index %s is damaged; building it again", path)
        return None
    magic, n_keys, *span, bits, largest, digest = header.unpack(fields)
    first, stop = span if magic == _MAGIC else (0, *span)
    if bits > _MOST_BITS or n_bytes != file_bytes(n_keys, bits):
        return None
    return RunFile(path, n_keys, first, stop, bits, largest, digest, file)


def run_path(directory: Path, shards: ShardList, first: int, stop: int) -> Path:
    """Return where the run over these shards lies, or would lie."""
    return directory / _file_name(shards.digest(first, stop))


def run_files(directory: Path) -> list[Path]:
    """Return the index files of a directory, sorted; none where there is none or it cannot be listed."""
    try:
        return sorted(directory / name for name in os.listdir(directory) if name.endswith(".idx"))
    except OSError:
        return []


def file_bytes(n_keys: int, bits: int) -> int:
    """Return the size of the file of a run."""
    return _HEADER_BYTES + ((1 << bits) + 1) * 16 + n_keys * _RECORD_BYTES


def run_bytes(run: IndexRun, shards: ShardList) -> bytes:
    """Return the file of a run."""
    head = header_bytes(shards, run.first, run.stop, run.n_keys, run.bits, run.largest)
    arrays = (np.ascontiguousarray(array, "<u8").tobytes() for array in (run.table, run.records))
    return b"".join([head, *arrays])


def header_bytes(shards: ShardList, first: int, stop: int, n_keys: int, bits: int, largest: int) -> bytes:
    """Return the header of the file of a run."""
    digest = shards.digest(first, stop)
    return _sealed(_HEADER.pack(_MAGIC, n_keys, first, stop, bits, largest, digest))


def _file_name(digest: bytes) -> str:
    return f"{digest[:8].hex()}.idx"


def _sealed(fields: bytes) -> bytes:
    return (fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little")).ljust(_HEADER_BYTES, b"\0")
