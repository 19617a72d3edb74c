"""Collecting garbage: what no snapshot worth keeping, no open reader and no living writer needs.

Two things protect a file. Locks (:mod:`featurestore.store.locks`): while gc removes, no commit is under way,
and a snapshot that somebody has open stays. Age: where locks do not reach other computers, nothing goes that
was needed not long ago.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import DamagedStoreError, UsageError
from featurestore.store.format.directory import (
    CANARIES,
    INDEX,
    MANIFESTS,
    SHARDS,
    TMP,
    list_numbers,
    manifest_path,
    read_manifest,
)
from featurestore.store.format.manifest import Manifest
from featurestore.store.index.loading import is_index_of, stale_files
from featurestore.store.locks import cleaning, unused

KEEP_LAST = 2
"""Snapshots kept whatever their age: with one alone, a damaged manifest would be a lost store."""

OLDER_THAN = 24 * 3600.0
"""Seconds for which a file must have been needless before it goes."""

SHARD_NAME = re.compile(r"[0-9a-f]{32}\.h5")


@dataclass(frozen=True)
class Leftover:
    """A file that the store does not need.

    Attributes
    ----------
    kind : {"manifest", "shard", "canaries", "index", "temporary"}
    name : str
        Below the store's directory.
    n_bytes : int
    """

    kind: str
    name: str
    n_bytes: int


@dataclass
class Collection:
    """What :func:`collect` did, or would do.

    Attributes
    ----------
    removed : list of Leftover
    too_young : list of Leftover
        Needless too, but not for long enough.
    in_use : list of int
        Old snapshots that stay because somebody has them open.
    kept : list of int
        All snapshots that stay.
    """

    removed: list[Leftover] = field(default_factory=list)
    too_young: list[Leftover] = field(default_factory=list)
    in_use: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes of what was removed."""
        return sum(leftover.n_bytes for leftover in self.removed)


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

    That is: snapshots followed by a later one for ``older_than`` seconds, unless they are among the last
    ``keep_last`` or open in some process; then shards that no snapshot left lists, if they lie there for as
    long; index files that no longer fit; temporary files of dead writers. What repair set aside stays.

    Parameters
    ----------
    path : str or Path
    keep_last : int
    older_than : float
        Seconds. 0 is safe where every reader and writer is on this computer, or the file system carries
        ``flock`` from one to another.
    dry_run : bool
        Only say what would go.
    now : float, optional
        Seconds since 1970, by default the clock's.

    Raises
    ------
    NotAStoreError
        If the path is not a store.
    DamagedStoreError
        If a snapshot that stays cannot be read, so that nobody knows what it needs. No shard is removed then.
    StoreWriteError
        If something cannot be removed. What is gone was not needed; run it again.
    """
    path = Path(path)
    if keep_last < 1:
        raise UsageError(f"keeping the last {keep_last} snapshots would remove the store: keep at least 1")
    if older_than < 0:
        raise UsageError(f"an age of {older_than:g} seconds is in the future: give 0 or more")
    before = (time.time() if now is None else now) - older_than
    list_numbers(path)  # before a lock file is made in what is no store
    with nullcontext() if dry_run else cleaning(path):
        collection = Collection()
        _collect_manifests(path, keep_last, before, dry_run, collection, filesystem)
        latest = _read_kept(path, collection.kept[-1])
        candidates = [*unlisted_shards(path, [latest]), *unlisted_shards(path, [latest], CANARIES)]
        indexes = stale_indexes(path, latest)
        for number in reversed(collection.kept[:-1]):
            if not candidates and not indexes:
                break  # nothing is left that an older snapshot could need
            manifest = _read_kept(path, number)
            candidates = _without(candidates, manifest)
            indexes = _without_index(path, indexes, manifest)
        for kind, directory in (("shard", SHARDS), ("canaries", CANARIES)):
            files = [file for file in candidates if file.parent.name == directory]
            _remove_files(path, kind, files, before, dry_run, collection, filesystem)
        _remove_files(path, "index", indexes, before, dry_run, collection, filesystem)
        _remove_orphaned(path, dry_run, collection, filesystem)
    return collection


def unlisted_shards(path: Path, manifests: Iterable[Manifest], directory: str = SHARDS) -> list[Path]:
    """Return the shard files of a directory that none of these manifests list, sorted by name."""
    found = sorted((path / directory).iterdir()) if (path / directory).is_dir() else []
    shards = [file for file in found if SHARD_NAME.fullmatch(file.name) and not _is_directory(file)]
    for manifest in manifests:
        shards = _without(shards, manifest)
    return shards


def needless_shards(path: Path) -> list[Path]:
    """Return the shard files that no snapshot lists; none where a damaged manifest leaves that open.

    Canaries are such files too.
    """
    shards = [*unlisted_shards(path, []), *unlisted_shards(path, [], CANARIES)]
    for number in reversed(list_numbers(path)):
        if not shards:
            break
        try:
            shards = _without(shards, read_manifest(path, number))
        except DamagedStoreError:
            return []
    return shards


def stale_indexes(path: Path, manifest: Manifest) -> list[Path]:
    """Return the index files of no use for a snapshot; those of others may be among them."""
    names = [shard.name for shard in manifest.shards]
    return stale_files(path / INDEX, names, [shard.n_sentences for shard in manifest.shards])


def _without_index(path: Path, indexes: Iterable[Path], manifest: Manifest) -> list[Path]:
    """Leave out the index over the shards of a snapshot, which its readers have open."""
    names = [shard.name for shard in manifest.shards]
    sizes = [shard.n_sentences for shard in manifest.shards]
    return [file for file in indexes if not is_index_of(file, names, sizes)]


def abandoned_files(path: Path) -> list[Path]:
    """Return the temporary files whose writer is gone."""
    gone = []
    for file in _temporary_files(path):
        with unused(file) as alone:
            if alone:
                gone.append(file)
    return gone


def _collect_manifests(
    path: Path, keep_last: int, before: float, dry_run: bool, collection: Collection, filesystem: FileSystem
) -> None:
    numbers = list_numbers(path)
    followers = dict(itertools.pairwise(numbers))
    for position, number in enumerate(numbers):
        # As old as its follower: until then it was the store.
        recent = position >= len(numbers) - keep_last or _changed(path, followers[number]) > before
        if recent or not _removed_unused(path, number, dry_run, collection, filesystem):
            collection.kept.append(number)
            if not recent:
                collection.in_use.append(number)
    if collection.removed and not dry_run:
        # Before any shard goes: after a power cut no snapshot may lack its shards.
        filesystem.sync_directory(path / MANIFESTS)


def _removed_unused(
    path: Path, number: int, dry_run: bool, collection: Collection, filesystem: FileSystem
) -> bool:
    file = manifest_path(path, number)
    with unused(file) as alone:
        if alone:
            leftover = _leftover(path, "manifest", file)
            if not dry_run:
                filesystem.remove(file)
            collection.removed.append(leftover)
    return alone


def _remove_files(
    path: Path,
    kind: str,
    files: Iterable[Path],
    before: float | None,
    dry_run: bool,
    collection: Collection,
    filesystem: FileSystem,
) -> None:
    directories = set()
    for file in files:
        leftover = _leftover(path, kind, file)
        if before is not None and _change_time(file) > before:
            collection.too_young.append(leftover)
            continue
        if not dry_run:
            filesystem.remove(file)
        directories.add(file.parent)
        collection.removed.append(leftover)
    for directory in sorted(directories) if not dry_run else ():
        filesystem.sync_directory(directory)


def _remove_orphaned(path: Path, dry_run: bool, collection: Collection, filesystem: FileSystem) -> None:
    for file in _temporary_files(path):
        with unused(file) as alone:
            if alone:
                _remove_files(path, "temporary", [file], None, dry_run, collection, filesystem)


def _temporary_files(path: Path) -> list[Path]:
    found = [*(path / TMP).glob("*"), *(path / INDEX).glob(".*.tmp")]
    return sorted(file for file in found if stat.S_ISREG(_status(file).st_mode))


def _read_kept(path: Path, number: int) -> Manifest:
    try:
        return read_manifest(path, number)
    except DamagedStoreError as error:
        raise DamagedStoreError(
            f"{error}. What this snapshot needs is unknown, so no shard was removed: run "
            f"`featurestore repair {path}` first"
        ) from error


def _without(shards: Iterable[Path], manifest: Manifest) -> list[Path]:
    listed = {shard.name for shard in manifest.shards}
    if manifest.canaries is not None:
        listed.add(manifest.canaries.name)
    return [file for file in shards if file.name not in listed]


def _changed(path: Path, number: int) -> float:
    return _change_time(manifest_path(path, number))


def _change_time(file: Path) -> float:
    """Return when a file was last written or named, in seconds since 1970."""
    status = _status(file)
    return max(status.st_mtime, status.st_ctime)


def _status(file: Path) -> os.stat_result:
    try:
        return file.lstat()
    except FileNotFoundError:
        return os.stat_result((0,) * 10)  # somebody else removed it


def _is_directory(file: Path) -> bool:
    return stat.S_ISDIR(_status(file).st_mode)


def _leftover(path: Path, kind: str, file: Path) -> Leftover:
    return Leftover(kind, str(file.relative_to(path)), _status(file).st_size)
