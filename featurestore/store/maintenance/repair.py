"""Repairing a store: damaged files are quarantined, and what is left becomes a snapshot that opens.

Nothing is deleted: damaged files move to ``STORE/damaged/``. The sentences of a damaged shard leave the
store with it, also those whose own bytes are intact, so that extracting the same corpora again writes the
same shard again. The long part, reading everything, runs while others write; what it found is checked once
more while nobody does.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.places import local_path
from featurestore.errors import DamagedStoreError, StoreWriteError
from featurestore.keys import Sentence
from featurestore.store.format.directory import (
    DAMAGED,
    INDEX,
    MANIFESTS,
    SHARDS,
    TMP,
    list_numbers,
    publish,
)
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import Manifest, commit_note
from featurestore.store.format.recover import HeadReader, entry_of_file
from featurestore.store.index.keyset import KeySet
from featurestore.store.index.loading import index_state
from featurestore.store.listing.shards import Shards
from featurestore.store.locks import cleaning
from featurestore.store.maintenance.gc import shards_besides
from featurestore.store.maintenance.snapshots import read_snapshots
from featurestore.store.snapshot import shard_list
from featurestore.store.store import Store
from featurestore.store.verification import Finding, verify_canaries, verify_shard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DamagedFile:
    """A file of the store that is not what was committed.

    Attributes
    ----------
    name : str
        Path below the store's directory.
    problem : str
        What is wrong, for people.
    entry : ShardEntry or None
        Of a shard that some intact manifest lists.
    missing : bool
        Whether there is no such file.
    row : int or None
        Of the first damaged sentence of a shard, where only sentences are damaged.
    """

    name: str
    problem: str
    entry: ShardEntry | None = None
    missing: bool = False
    row: int | None = None

    @classmethod
    def of(cls, directory: str, finding: Finding, entry: ShardEntry | None = None) -> DamagedFile:
        """Return the damaged file of a finding about a shard in a directory of the store."""
        return cls(f"{directory}/{finding.shard}", finding.problem, entry, finding.is_gone, finding.row)


@dataclass
class Repair:
    """What :func:`repair` found and did, or would do.

    Attributes
    ----------
    path : Path
        The store.
    result : Manifest
        The store afterwards.
    shards : list of DamagedFile
        Damaged or missing shards that the store loses.
    unreferenced : list of DamagedFile
        Damaged shards that the last snapshot did not reference.
    manifests : list of DamagedFile
    lists : list of DamagedFile
        Lists of shards; manifests that name one are among the damaged ones. The store's list is made again
        of the rows that are sound and the shards that are there.
    canaries : list of DamagedFile
        The store's canary file, if it is damaged: the next extraction makes new ones.
    adopted : list of ShardEntry
        Intact shards that no intact manifest listed, added to the store.
    index_rebuilt : bool
        Whether the index was missing, stale or wrong.
    moved : dict of str to str
        Quarantined files: old name to new name, both below the store's directory.
    """

    path: Path
    result: Manifest
    shards: list[DamagedFile] = field(default_factory=list)
    unreferenced: list[DamagedFile] = field(default_factory=list)
    manifests: list[DamagedFile] = field(default_factory=list)
    lists: list[DamagedFile] = field(default_factory=list)
    canaries: list[DamagedFile] = field(default_factory=list)
    adopted: list[ShardEntry] = field(default_factory=list)
    index_rebuilt: bool = False
    moved: dict[str, str] = field(default_factory=dict)

    @property
    def stray(self) -> list[DamagedFile]:
        """The old name of :attr:`unreferenced`."""
        return self.unreferenced

    @property
    def damaged(self) -> list[DamagedFile]:
        """Every damaged or missing file."""
        return [*self.shards, *self.unreferenced, *self.manifests, *self.lists, *self.canaries]

    @property
    def sound(self) -> bool:
        """Whether there was nothing to repair."""
        return not (self.damaged or self.adopted or self.index_rebuilt)

    def unreadable(self) -> list[DamagedFile]:
        """Return the lost shards whose tokens cannot be read either; each entry says how many sentences."""
        return [shard for shard in self._lost() if self._head(shard) is None]

    def lost_sentences(self) -> Iterator[Sentence]:
        """Iterate over the sentences of lost shards that the store has nowhere else, in stored order."""
        lost = self._lost()
        if not lost:
            return
        left = _keys_of(self.path, self.result.shards)
        for head in map(self._head, lost):
            if head is not None:
                missing = left.add(head.keys)
                yield from (head.tokens(row) for row in np.flatnonzero(missing).tolist())

    def _lost(self) -> list[DamagedFile]:
        # An unreferenced shard that an earlier snapshot lists was lost by a repair that was killed.
        return [shard for shard in (*self.shards, *self.unreferenced) if shard.entry is not None]

    def _head(self, shard: DamagedFile) -> HeadReader | None:
        file = self.path / self.moved.get(shard.name, shard.name)
        try:
            return None if shard.entry is None else HeadReader(file, shard.entry)
        except DamagedStoreError as error:
            logger.info("the sentences of %s are unknown: %s", file, error)
            return None


def repair(
    path: str | Path,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Repair:
    """Make a damaged store usable again.

    Every shard is verified. A snapshot without the damaged and missing ones is published on top of the last
    snapshot whose manifest is intact, with the intact shards that only damaged manifests listed. Then damaged
    files are quarantined, and the index is built again if it is not right.

    Parameters
    ----------
    path : str or Path
    dry_run : bool
        Only say what would be done.
    progress : callable, optional
        Called with the bytes of each shard checked.

    Raises
    ------
    NotAStoreError
        If the path is not a store.
    FormatVersionError
        If a newer featurestore wrote to it.
    DamagedStoreError
        If no manifest is intact: nothing says then what the vectors were made with.
    UnreadableStoreError
        If a file that may be intact cannot be opened. Nothing was changed.
    StoreWriteError
        If the disk is full or failing. Run it again.
    """
    path = local_path(path)
    intact: set[str] = set()
    found = _inspect(path, intact, progress)
    if dry_run:
        found.index_rebuilt = not all(_index_state(path, found.result))
        return found
    with cleaning(path):
        # Inspected again under the lock: others may have committed, or replaced a damaged file, since.
        found = _inspect(path, intact, None)
        is_new = found.result.number > list_numbers(path)[-1]
        if is_new and publish(path, found.result, filesystem) is None:
            raise StoreWriteError(
                f"another writer committed to {path} meanwhile, from where locks do not reach: run it again",
                path=path,
            )
        # The last manifest may be that of a repair that was killed before it was on the disk.
        filesystem.sync_directory(path / MANIFESTS)
        # Published first: a process killed here leaves unreferenced files, and the next repair goes on.
        for damaged in found.damaged:
            if not damaged.missing:
                found.moved[damaged.name] = _quarantine(path, damaged.name, filesystem)
        complete, right = _index_state(path, found.result)
        found.index_rebuilt = not (complete and right)
        if not right:
            for file in (path / INDEX).glob("*.idx"):
                filesystem.remove(file)
    _ = Store.open(path, filesystem=filesystem).index
    return found


def _inspect(path: Path, intact: set[str], progress: Callable[[int], object] | None) -> Repair:
    """Check every file of a store.

    Files that vanish meanwhile are skipped: gc removes what it finds unreferenced.

    Parameters
    ----------
    path : Path
    intact : set of str
        Hashes of shards that were found intact before; grows.
    progress : callable, optional
    """
    snapshots = read_snapshots(path)
    base = snapshots.base
    found = Repair(
        path,
        base,
        manifests=[DamagedFile(*each) for each in snapshots.damaged],
        lists=[DamagedFile(*each) for each in snapshots.damaged_lists],
    )
    kept = []
    for entry in base.shards:
        finding = _first_finding(path, entry, base, intact)
        if finding is None:
            kept.append(entry)
        else:
            found.shards.append(DamagedFile.of(SHARDS, finding, entry))
        if progress is not None:
            progress(entry.n_bytes)
    for finding in itertools.islice(verify_canaries(path, base), 1):
        found.canaries.append(DamagedFile(finding.shard, finding.problem, missing=finding.is_gone))
    besides = shards_besides(path, [base])
    listed = snapshots.entries({file.name for file in besides})
    # If the last manifest is damaged, some of these were committed. Otherwise they are those of killed
    # writers, and adopted where that brings no sentence a second time.
    last = snapshots.numbers[-1]
    at_stake = base.number != last or not snapshots.is_whole
    left_out = set() if at_stake else snapshots.left_out()
    unreferenced = []
    for file in besides:
        entry_found = listed.get(file.name)
        try:
            entry_found = entry_found or entry_of_file(file)
            finding = _first_finding(path, entry_found, base, intact)
            # What an earlier snapshot lists was removed on purpose, unless the list that named it is lost.
            # The last one names what was removed from snapshots that are gone.
            is_removed = file.name in left_out or (file.name in listed and snapshots.is_whole)
            if finding is None and not is_removed:
                unreferenced.append((entry_found, _head_keys(path, entry_found)))
        except DamagedStoreError as error:
            finding = Finding(file.name, str(error), is_gone=error.is_gone)
        if finding is not None and not finding.is_gone:
            found.unreferenced.append(DamagedFile.of(SHARDS, finding, entry_found))
    found.adopted = _worth_adopting(path, kept, unreferenced, at_stake)
    if found.shards or found.canaries or found.adopted or at_stake:
        found.result = replace(
            base,
            number=last + 1,
            shards=Shards((*kept, *found.adopted)),
            canaries=None if found.canaries else base.canaries,
            commit=commit_note(base.commit),
        )
    return found


def _first_finding(path: Path, entry: ShardEntry, manifest: Manifest, intact: set[str]) -> Finding | None:
    """Return what is wrong with a shard of a store, None if it is intact."""
    if entry.sha256 in intact:
        return None
    fingerprint = manifest.recipe.fingerprint
    for finding in verify_shard(path / SHARDS / entry.name, entry, fingerprint):
        return finding
    if entry.token_shape != manifest.token_shape:
        return Finding(
            entry.name, f"holds vectors of shape {entry.token_shape}, the store of {manifest.token_shape}"
        )
    intact.add(entry.sha256)
    return None


def _worth_adopting(
    path: Path,
    kept: Sequence[ShardEntry],
    unreferenced: Sequence[tuple[ShardEntry, NDArray[np.uint8]]],
    at_stake: bool,
) -> list[ShardEntry]:
    """Return the shards that bring only new sentences; with ``at_stake``, those that bring any."""
    if not unreferenced:
        return []
    known, adopted = _keys_of(path, kept), []
    for entry, keys in unreferenced:
        stored = known.contains(keys)
        if not stored.any() or (at_stake and not stored.all()):
            known.add(keys)
            adopted.append(entry)
    return adopted


def _keys_of(path: Path, entries: Iterable[ShardEntry]) -> KeySet:
    keys = KeySet(path / TMP)
    for entry in entries:
        keys.add(_head_keys(path, entry))
    return keys


def _head_keys(path: Path, entry: ShardEntry) -> NDArray[np.uint8]:
    return HeadReader(path / SHARDS / entry.name, entry).keys


def _quarantine(path: Path, name: str, filesystem: FileSystem) -> str:
    """Move a file to ``damaged/``, over no other file, and return its new name."""
    source, directory = path / name, path / DAMAGED
    filesystem.make_directory(directory)
    for attempt in itertools.count(1):
        target = directory / (source.name if attempt == 1 else f"{source.stem}-{attempt}{source.suffix}")
        if not os.path.lexists(target):
            break
    filesystem.replace(source, target)
    filesystem.sync_directory(source.parent)
    return str(target.relative_to(path))


def _index_state(path: Path, manifest: Manifest) -> tuple[bool, bool]:
    """Return whether an index on disk covers all shards of a snapshot, and whether what it says is right."""
    return index_state(
        path / INDEX, shard_list(manifest), lambda number: _head_keys(path, manifest.shards[number])
    )
