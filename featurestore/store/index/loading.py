"""Indexes on disk: opened, extended, built anew; runs superseded by larger ones removed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.atomic import temporary_beside, write_atomic
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import StoreWriteError
from featurestore.keyarrays import Words
from featurestore.store.index.building import MergedRun
from featurestore.store.index.covering import Piece, cover, n_kept
from featurestore.store.index.filerows import DamagedIndexError
from featurestore.store.index.files import (
    RunFile,
    file_bytes,
    header_bytes,
    open_run,
    run_bytes,
    run_files,
    run_path,
)
from featurestore.store.index.lookup import Index, shard_records
from featurestore.store.index.run import IndexRun
from featurestore.store.index.shardlist import ShardList

logger = logging.getLogger(__name__)

Access = Literal["mmap", "pread"]
ReadKeys = Callable[[int], NDArray[np.uint8]]

MOST_IN_MEMORY = 1 << 18
"""Keys up to which a run is built in memory."""

SUPERSEDED_SECONDS = 24 * 3600.0
"""How long a run stays after a larger one was written: readers on other computers may have it mapped."""

_MOST_SUPERSEDED = 64
"""Such runs that stay at most, the last ones."""


def load_index(
    directory: Path,
    shards: ShardList,
    read_keys: ReadKeys,
    *,
    filesystem: FileSystem = LOCAL,
    access: Access = "mmap",
    save: bool = True,
    distrust: bool = False,
    most_in_memory: int = MOST_IN_MEMORY,
) -> Index:
    """Return the index over a list of shards: from disk, extended from disk, or rebuilt.

    Parameters
    ----------
    directory : Path
        The store's ``index/``.
    shards : ShardList
        With their sizes a run that holds more, or points beyond them, is built again.
    read_keys : callable
        Shard number to its (n, 16) uint8 keys.
    access : {"mmap", "pread"}
        How files are read: mapped, or by positioned reads where they may be removed by another computer.
    save : bool
        Write what is missing for the next reader; a directory that cannot be written is fine.
    distrust : bool
        Compare all checks before anything on disk is used: something there was found damaged.
    most_in_memory : int
        Keys of a run that is built in memory, at 100 bytes each; with more (by their sizes) it is merged to
        its file in bounded memory, if that can be written.
    """
    if not distrust and (alone := _in_one_file(directory, shards, access)) is not None:
        return Index((alone,))
    found = _survey(directory, shards, access, distrust=distrust)
    if found.is_complete:
        return Index(tuple(found.runs(found.pieces)))
    builder = _Builder(directory, shards, read_keys, filesystem, most_in_memory)
    kept, replaced = found.pieces[: found.n_kept], found.pieces[found.n_kept :]
    logger.info("indexing shards %d to %d of %d", replaced[0].first, len(shards), len(shards))
    built: IndexRun | None = None
    if save:
        try:
            built = builder.build(replaced, found)
            path = builder.path(replaced)
            if built is not None:
                write_atomic(path, run_bytes(built, shards), filesystem)
            written = open_run(path)
            for each in (*found.damaged, *_superseded(path, found, shards)):
                if each != path:
                    filesystem.remove(each)
            filesystem.remove_orphaned(directory, ".*.tmp")
            # Mapped, it takes no memory of this process.
            built = (written and _opened(written, shards, access)) or built
        except StoreWriteError as error:
            logger.debug("the index is kept in memory only: %s", error)
    if built is not None:
        return Index((*found.runs(kept), built))
    # What is there is used as it is; of the rest each piece is a run in memory.
    return Index(
        tuple(
            builder.in_memory([piece], found) if piece.file is None else next(found.runs([piece]))
            for piece in found.pieces
        )
    )


def used_files(directory: Path, shards: ShardList) -> list[Path] | None:
    """Return the files that :func:`load_index` opens for a list of shards; None if they do not cover it."""
    found = _survey(directory, shards)
    return found.used if found.is_complete else None


def stale_files(directory: Path, shards: ShardList) -> list[Path]:
    """Return the index files that :func:`load_index` does not use, sorted: superseded or damaged."""
    found = _survey(directory, shards, distrust=True)
    return [path for path in run_files(directory) if path not in found.used and not path.is_dir()]


def damaged_files(directory: Path, shards: ShardList) -> list[Path]:
    """Return the index files over shards of a list that are not what was written, sorted."""
    damaged = set(_survey(directory, shards, distrust=True).damaged)
    whole = run_path(directory, shards, 0, len(shards))
    opened = open_run(whole)
    if whole.exists() and not (opened and opened.covers(shards)):
        damaged.add(whole)
    return sorted(damaged)


def index_state(directory: Path, shards: ShardList, read_keys: ReadKeys) -> tuple[bool, bool]:
    """Return whether sound files cover a list of shards, and whether what they say is right."""
    found = _survey(directory, shards, distrust=True)
    return found.is_complete, all(Index((run,)).is_right(read_keys) for run in found.runs(found.pieces))


@dataclass
class _Survey:
    """What lies on disk of the index over a list of shards."""

    pieces: list[Piece[RunFile]]
    """They cover the list, of files that are over its shards."""
    n_kept: int
    """The first of them that stay where one is missing; those after them were verified."""
    unused: list[RunFile]
    damaged: list[Path]
    _opened: dict[Path, IndexRun] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(piece.file is not None for piece in self.pieces)

    @property
    def used(self) -> list[Path]:
        return [piece.file.path for piece in self.pieces if piece.file is not None]

    def runs(self, pieces: Sequence[Piece[RunFile]]) -> Iterator[IndexRun]:
        """Yield the open runs of those pieces that have a file."""
        for piece in pieces:
            if piece.file is not None:
                yield self._opened[piece.file.path]


def _survey(
    directory: Path, shards: ShardList, access: Access = "mmap", *, distrust: bool = False
) -> _Survey:
    opened = map(open_run, run_files(directory))
    files = [file for file in opened if file is not None and file.fits(shards)]
    runs: dict[Path, IndexRun] = {}
    verified: set[Path] = set()
    damaged: list[Path] = []
    while True:
        pieces = cover(files, shards)
        kept = n_kept(pieces)
        unusable: list[RunFile] = []
        for number, piece in enumerate(pieces):
            file = piece.file
            if file is None:
                continue
            if file.path not in runs:
                if not file.covers(shards):
                    # Of other shards: where one is, there may be many.
                    unusable += [each for each in files if not each.covers(shards)]
                    break
                run = _opened(file, shards, access)
                if run is None:
                    unusable.append(file)
                    damaged.append(file.path)
                    continue
                runs[file.path] = run
            # What is merged gets new checks, so each bucket is compared with its old one first.
            if (distrust or number >= kept) and file.path not in verified:
                if not _is_intact(file.path, runs[file.path]):
                    unusable.append(file)
                    damaged.append(file.path)
                verified.add(file.path)
        files = [file for file in files if file not in unusable]
        if not unusable:
            used = [piece.file for piece in pieces if piece.file is not None]
            return _Survey(pieces, kept, [file for file in files if file not in used], damaged, runs)


def _in_one_file(directory: Path, shards: ShardList, access: Access) -> IndexRun | None:
    """Return the run over all shards, if there is one: that of most stores, found without listing files."""
    file = open_run(run_path(directory, shards, 0, len(shards)))
    if file is None or file.stop != len(shards) or not file.covers(shards):
        return None
    return _opened(file, shards, access)


def _opened(file: RunFile, shards: ShardList, access: Access) -> IndexRun | None:
    try:
        return file.run(shards, access)
    except DamagedIndexError as damage:
        logger.warning("%s (%s)", damage, file.path)
        return None


def _is_intact(path: Path, run: IndexRun) -> bool:
    try:
        run.verify()
    except DamagedIndexError as damage:
        logger.warning("%s (%s)", damage, path)
        return False
    return True


def _superseded(newest: Path, found: _Survey, shards: ShardList) -> list[Path]:
    """Return those of older runs that nobody should still be reading.

    The age of each counts from when the first one that holds all its shards was written: until then readers
    opened it.
    """
    last = found.pieces[found.n_kept :]
    older = [piece.file for piece in last if piece.file is not None]
    older += [file for file in found.unused if file.covers(shards)]
    older.sort(key=lambda file: (-file.stop, file.first))
    # By the clock that dates the others: that of the disk, perhaps of another computer.
    now = _written(newest)
    kept = [piece.file for piece in found.pieces[: found.n_kept] if piece.file is not None]
    gone = []
    for position, file in enumerate(older):
        holding = [
            _written(other.path) for other in (*older, *kept)
            if other is not file and other.first <= file.first and file.stop <= other.stop
        ]  # fmt: skip
        if now - min([now, *holding]) > SUPERSEDED_SECONDS or position >= _MOST_SUPERSEDED:
            gone.append(file.path)
    return gone


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0  # somebody else removed it


@dataclass
class _Builder:
    """Makes runs over successive shards, of files on disk and of keys read from shards."""

    directory: Path
    shards: ShardList
    read_keys: ReadKeys
    filesystem: FileSystem
    most_in_memory: int

    def path(self, pieces: Sequence[Piece[RunFile]]) -> Path:
        """Return where the run over some pieces lies."""
        return run_path(self.directory, self.shards, pieces[0].first, pieces[-1].stop)

    def build(self, pieces: Sequence[Piece[RunFile]], found: _Survey) -> IndexRun | None:
        """Return the run over some pieces; None if it was too large for memory and is in its file now."""
        n_keys = self.shards.n_keys(pieces[0].first, pieces[-1].stop)
        if n_keys is None or n_keys <= self.most_in_memory:
            return self.in_memory(pieces, found)
        path = self.path(pieces)
        self.filesystem.make_directory(path.parent, lasting=False)
        before = [run.sorted_rows for run in found.runs(pieces)]
        merged = MergedRun(before, self._missing(pieces), path.parent, self.filesystem)
        self._write(path, pieces[0].first, pieces[-1].stop, merged)
        return None

    def in_memory(self, pieces: Sequence[Piece[RunFile]], found: _Survey) -> IndexRun:
        """Return the run over some pieces."""
        parts = [*(np.asarray(run.records) for run in found.runs(pieces)), *self._missing(pieces)]
        return IndexRun.of(parts, pieces[0].first, pieces[-1].stop, self.shards.sizes)

    def _missing(self, pieces: Sequence[Piece[RunFile]]) -> Iterator[Words]:
        """Yield the records of shards that no file covers."""
        for piece in pieces:
            if piece.file is None:
                for number in range(piece.first, piece.stop):
                    yield shard_records(number, self.read_keys(number))

    def _write(self, path: Path, first: int, stop: int, merged: MergedRun) -> None:
        header = header_bytes(self.shards, first, stop, merged.n_keys, merged.bits, merged.largest)
        temporary = temporary_beside(path)
        n_bytes = file_bytes(merged.n_keys, merged.bits)
        with self.filesystem.temporary_file(temporary, merged.parts(header), n_bytes):
            self.filesystem.replace(temporary, path)
