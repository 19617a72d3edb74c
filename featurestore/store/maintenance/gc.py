"""Collecting garbage: removing what no snapshot worth keeping, no open reader and no living writer needs.

Two things protect a file. Locks (:mod:`featurestore.store.locks`): while gc removes, no commit is under way,
and a snapshot that somebody has open stays. Age: where locks do not reach other computers, nothing is removed
that was needed until recently.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.locking import lock_excludes
from featurestore.disk.places import local_path
from featurestore.disk.temporary import may_be_in_use
from featurestore.errors import DamagedStoreError, UsageError
from featurestore.store.format.directory import (
    CANARIES,
    INDEX,
    MANIFESTS,
    SHARDS,
    TMP,
    list_numbers,
    manifest_path,
    read_listed,
    read_without_lists,
)
from featurestore.store.format.manifest import Manifest
from featurestore.store.index.loading import stale_files, used_files
from featurestore.store.listing.files import LISTS
from featurestore.store.listing.shards import Shards
from featurestore.store.locks import cleaning, unused
from featurestore.store.snapshot import shard_list

KEEP_LAST = 2
"""Snapshots kept whatever their age: with one alone, a damaged manifest would be a lost store."""

OLDER_THAN = 24 * 3600.0
"""Seconds for which a file must have been garbage before it is removed."""

SHARD_NAME = re.compile(r"[0-9a-f]{32}\.h5")
LIST_NAME = re.compile(r"[0-9a-f]{32}\.list")

_MOST_INDEXED = 64
"""Snapshots, the last ones, whose index files stay."""

_CLOCK_TICK = 0.02
"""Seconds after which a directory that changes has another time than before, on any kernel."""

Kind = Literal["manifest", "list", "shard", "canaries", "index", "temporary"]


@dataclass(frozen=True)
class GarbageFile:
    """A file that the store does not need.

    Attributes
    ----------
    kind : {"manifest", "list", "shard", "canaries", "index", "temporary"}
        An old snapshot, an unreferenced list of shards, shard, canary file or index, or an orphaned temporary
        file.
    name : str
        Path below the store's directory.
    n_bytes : int
    """

    kind: Kind
    name: str
    n_bytes: int


@dataclass
class Collection:
    """What :func:`collect` did, or would do.

    Attributes
    ----------
    removed : list of GarbageFile
    too_young : list of GarbageFile
        Garbage that stays because it was needed, or written, too recently.
    in_use : list of int
        Old snapshots that stay because somebody has them open.
    kept : list of int
        All snapshots that stay.
    """

    removed: list[GarbageFile] = field(default_factory=list)
    too_young: list[GarbageFile] = field(default_factory=list)
    in_use: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes of what was removed."""
        return sum(garbage.n_bytes for garbage in self.removed)


def collect(
    path: str | Path,
    *,
    keep_last: int = KEEP_LAST,
    older_than: float = OLDER_THAN,
    dry_run: bool = False,
    now: float | None = None,
    filesystem: FileSystem = LOCAL,
) -> Collection:
    """Remove what a store does not need any more.

    Removed are: snapshots that a later one followed ``older_than`` seconds ago or earlier, unless they are
    among the last ``keep_last`` or open in some process; lists, shards, canary files and indexes that no
    remaining snapshot references, if they are as old; temporary files of dead writers. Quarantined files
    stay.

    Parameters
    ----------
    path : str or Path
    keep_last : int
    older_than : float
        Seconds. 0 is safe where every reader and writer is on this computer, or the file system carries
        ``flock`` from one computer to another.
    dry_run : bool
        Only say what would be removed.
    now : float, optional
        Seconds since 1970, by default the clock's.

    Raises
    ------
    NotAStoreError
        If the path is not a store.
    DamagedStoreError
        If a snapshot that stays cannot be read, so that what it needs is unknown. No shard is removed then.
    StoreWriteError
        If something cannot be removed. What is gone was not needed; run it again.
    """
    path = local_path(path)
    if keep_last < 1:
        raise UsageError(f"keeping the last {keep_last} snapshots would remove the store: keep at least 1")
    if older_than < 0:
        raise UsageError(f"an age of {older_than:g} seconds is in the future: give 0 or more")
    before = (time.time() if now is None else now) - older_than
    list_numbers(path)  # raises if this is no store, before a lock file is made in it
    with nullcontext() if dry_run else cleaning(path):
        return _Collector(path, before, dry_run, filesystem).collect(keep_last)


class _Collector:
    """One run of :func:`collect`: what it removed and left, so far.

    Parameters
    ----------
    path : Path
    before : float
        Time up to which garbage must have been garbage, seconds since 1970.
    dry_run : bool
    filesystem : FileSystem
    """

    def __init__(self, path: Path, before: float, dry_run: bool, filesystem: FileSystem) -> None:
        self._path, self._before, self._dry_run, self._filesystem = path, before, dry_run, filesystem
        self._done = Collection()

    def collect(self, keep_last: int) -> Collection:
        """Remove snapshots first, then what only they referenced."""
        self._collect_manifests(keep_last)
        shards, indexes = _unreferenced(self._path, self._done.kept, _require_readable(self._path))
        self._collect_files("shard", [file for file in shards if file.parent.name == SHARDS])
        self._collect_files("canaries", [file for file in shards if file.parent.name == CANARIES])
        self._collect_files("list", _unreferenced_lists(self._path, self._done.kept, self._before))
        self._collect_files("index", indexes)
        for file in _temporary_files(self._path):
            with unused(file) as alone:
                if alone:
                    self._collect_files("temporary", [file])
        return self._done

    def _collect_manifests(self, keep_last: int) -> None:
        numbers = list_numbers(self._path)
        followers = dict(itertools.pairwise(numbers))
        if not self._dry_run:
            # A writer tells by the directory's time that nothing came or went since its last commit.
            time.sleep(_CLOCK_TICK)
        for position, number in enumerate(numbers):
            # Its age counts from the next snapshot: until then it was the latest.
            is_recent = position >= len(numbers) - keep_last or (
                _change_time(manifest_path(self._path, followers[number])) > self._before
            )
            if is_recent or not self._removed_unused(number):
                self._done.kept.append(number)
                if not is_recent:
                    self._done.in_use.append(number)
        if self._done.removed and not self._dry_run:
            # Before any shard goes: after a power cut no snapshot may lack its shards.
            self._filesystem.sync_directory(self._path / MANIFESTS)

    def _removed_unused(self, number: int) -> bool:
        file = manifest_path(self._path, number)
        with unused(file) as alone:
            if alone:
                self._remove("manifest", file)
        return alone

    def _collect_files(self, kind: Kind, files: Iterable[Path]) -> None:
        directories = set()
        for file in files:
            if kind == "temporary":
                is_young = may_be_in_use(file, self._before, locks_exclude=lock_excludes(file))
            else:
                is_young = _change_time(file) > self._before
            if is_young:
                self._done.too_young.append(self._garbage(kind, file))
                continue
            self._remove(kind, file)
            directories.add(file.parent)
        for directory in sorted(directories) if not self._dry_run else ():
            self._filesystem.sync_directory(directory)

    def _remove(self, kind: Kind, file: Path) -> None:
        garbage = self._garbage(kind, file)
        if not self._dry_run:
            self._filesystem.remove(file)
        self._done.removed.append(garbage)

    def _garbage(self, kind: Kind, file: Path) -> GarbageFile:
        return GarbageFile(kind, str(file.relative_to(self._path)), _status(file).st_size)


ReadListed = Callable[[Path, int, Shards | None], Manifest | None]


def unreferenced_files(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the shard files, canaries included, and the index files that no snapshot references.

    Both are empty where a damaged manifest leaves that open.
    """
    try:
        return _unreferenced(path, list_numbers(path), _read_listed)
    except DamagedStoreError:
        return [], []


def _unreferenced(path: Path, numbers: list[int], read: ReadListed) -> tuple[list[Path], list[Path]]:
    """Return the shard and index files that none of these snapshots references."""
    shards = [*shards_besides(path, []), *shards_besides(path, [], CANARIES)]
    indexes: list[Path] | None = None
    known: Shards | None = None
    for position, number in enumerate(reversed(numbers)):
        # An index is derived: one that only an old snapshot uses is built again there.
        if not shards and (indexes == [] or position >= _MOST_INDEXED):
            break  # nothing is left that an older snapshot could need
        manifest = read(path, number, known)
        if manifest is None:
            continue  # removed by another gc since it was listed
        known = manifest.shards
        shards = _without(shards, manifest)
        if indexes is None:
            indexes = stale_files(path / INDEX, shard_list(manifest))
        elif indexes:
            used = used_files(path / INDEX, shard_list(manifest)) or ()
            indexes = [file for file in indexes if file not in used]
    return shards, indexes or []


def _require_readable(path: Path) -> ReadListed:
    """Return a way to read manifests whose errors say what damage means for gc."""

    def read(_: Path, number: int, known: Shards | None) -> Manifest | None:
        try:
            return _read_listed(path, number, known)
        except DamagedStoreError as error:
            raise DamagedStoreError(
                f"{error}. What this snapshot needs is unknown, so no shard was removed: run "
                f"`featurestore repair {path}` first",
                path=error.path,
            ) from error

    return read


def _read_listed(path: Path, number: int, known: Shards | None) -> Manifest | None:
    return read_listed(path, number, known=known)


def _unreferenced_lists(path: Path, numbers: list[int], before: float) -> list[Path]:
    """Return the lists, last written or named before some time, that none of these snapshots names."""
    lists = {file.name: file for file in _named(path / LISTS, LIST_NAME) if _change_time(file) <= before}
    for number in reversed(numbers):
        if not lists:
            break
        try:
            manifest = read_without_lists(path, number)
        except DamagedStoreError as error:
            if error.is_gone:
                continue
            raise
        for reference in (*manifest.shards.references, *manifest.left_out.references):
            lists.pop(reference.name, None)
    return sorted(lists.values())


def shards_besides(path: Path, manifests: Iterable[Manifest], directory: str = SHARDS) -> list[Path]:
    """Return the shard files of a directory that none of these manifests references, sorted by name."""
    shards = _named(path / directory, SHARD_NAME)
    for manifest in manifests:
        shards = _without(shards, manifest)
    return shards


def _named(directory: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return what has such a name in a directory and is no directory itself, sorted."""
    try:
        with os.scandir(directory) as found:
            names = [
                entry.name
                for entry in found
                if pattern.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    return [directory / name for name in sorted(names)]


def orphaned_files(path: Path) -> list[Path]:
    """Return the temporary files whose writer is dead."""
    before = time.time() - OLDER_THAN
    orphaned = []
    for file in _temporary_files(path):
        with unused(file) as alone:
            if alone and not may_be_in_use(file, before, locks_exclude=lock_excludes(file)):
                orphaned.append(file)
    return orphaned


def _temporary_files(path: Path) -> list[Path]:
    found = [*(path / TMP).glob("*"), *(path / INDEX).glob(".*.tmp")]
    return sorted(file for file in found if stat.S_ISREG(_status(file).st_mode))


def _without(shards: list[Path], manifest: Manifest) -> list[Path]:
    if not shards:
        return []
    referenced = set(manifest.shards.names())
    if manifest.canaries is not None:
        referenced.add(manifest.canaries.name)
    return [file for file in shards if file.name not in referenced]


def _change_time(file: Path) -> float:
    """Return when a file was last written or named, in seconds since 1970."""
    status = _status(file)
    return max(status.st_mtime, status.st_ctime)


def _status(file: Path) -> os.stat_result:
    try:
        return file.lstat()
    except FileNotFoundError:
        return os.stat_result((0,) * 10)  # another process removed it
