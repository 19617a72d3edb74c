"""Repairing a store: damaged files are set aside, and what is left becomes a snapshot that opens.

Nothing is deleted: damaged files move to ``STORE/damaged/``. The sentences of a damaged shard leave the store
with it, also those whose own bytes are sound, so that extracting the same corpora again writes the same shard
again. The long part, reading everything, goes on while others write; what it found is looked at once more
when nobody does.
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
from featurestore.errors import DamagedStoreError, StoreWriteError
from featurestore.keys import Sentence
from featurestore.store.format.directory import (
    DAMAGED,
    INDEX,
    MANIFESTS,
    SHARDS,
    TMP,
    list_numbers,
    manifest_path,
    publish,
    read_manifest,
)
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import Manifest, commit_note
from featurestore.store.format.recover import HeadReader, entry_of_file
from featurestore.store.index.keyset import KeySet
from featurestore.store.index.loading import load_index
from featurestore.store.index.lookup import empty_index
from featurestore.store.locks import cleaning
from featurestore.store.maintenance.gc import unlisted_shards
from featurestore.store.store import Store
from featurestore.store.verification import verify_canaries, verify_shard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DamagedFile:
    """A manifest or shard that is not what was committed.

    Attributes
    ----------
    name : str
        Below the store's directory.
    problem : str
    entry : ShardEntry or None
        Of a shard that some sound manifest lists.
    missing : bool
        There is no file.
    """

    name: str
    problem: str
    entry: ShardEntry | None = None
    missing: bool = False


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
    stray : list of DamagedFile
        Damaged shards that it did not use.
    manifests : list of DamagedFile
    canaries : list of DamagedFile
        The store's own, where they are: the next extraction makes new ones.
    adopted : list of ShardEntry
        Sound shards that no sound manifest listed, taken in.
    index_rebuilt : bool
        Whether the index was missing, stale or wrong.
    moved : dict of str to str
        Where what was set aside lies now, by its old name; both below the store's directory.
    """

    path: Path
    result: Manifest
    shards: list[DamagedFile] = field(default_factory=list)
    stray: list[DamagedFile] = field(default_factory=list)
    manifests: list[DamagedFile] = field(default_factory=list)
    canaries: list[DamagedFile] = field(default_factory=list)
    adopted: list[ShardEntry] = field(default_factory=list)
    index_rebuilt: bool = False
    moved: dict[str, str] = field(default_factory=dict)

    @property
    def damaged(self) -> list[DamagedFile]:
        """All that is damaged or missing."""
        return [*self.shards, *self.stray, *self.manifests, *self.canaries]

    @property
    def sound(self) -> bool:
        """Whether there was nothing to repair."""
        return not (self.damaged or self.adopted or self.index_rebuilt)

    def unreadable(self) -> list[DamagedFile]:
        """Return the lost shards of which not even the tokens can be read; each entry says how many."""
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
        # A stray one that an earlier snapshot listed was lost by a repair that did not come to its end.
        return [shard for shard in (*self.shards, *self.stray) if shard.entry is not None]

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
    snapshot whose manifest is sound, with the sound shards that only damaged manifests listed; then what is
    damaged is set aside, and the index is built again if it is not right.

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
        If no manifest is sound: nothing says then what the vectors were made with.
    UnreadableStoreError
        If a file may not be opened, which may be sound. Nothing was changed.
    StoreWriteError
        If the disk is full or failing. Run it again.
    """
    path = Path(path)
    sound: set[str] = set()
    found = _examine(path, sound, progress)
    if dry_run:
        found.index_rebuilt = not all(_index_state(path, found.result))
        return found
    with cleaning(path):
        # What was committed since, and once more what is damaged: another process may have replaced it.
        found = _examine(path, sound, None)
        if found.result.number > list_numbers(path)[-1] and not publish(path, found.result, filesystem):
            raise StoreWriteError(
                f"another writer committed to {path} meanwhile, from where locks do not reach: run it again"
            )
        # The last manifest may be that of a repair that was killed before it was on the disk.
        filesystem.sync_directory(path / MANIFESTS)
        # Published first: a process killed here leaves files that nobody lists, and the next repair goes on.
        for damaged in found.damaged:
            if not damaged.missing:
                found.moved[damaged.name] = _set_aside(path, damaged.name, filesystem)
        complete, right = _index_state(path, found.result)
        found.index_rebuilt = not (complete and right)
        if not right:
            # An index of other shards stays: somebody may be reading the snapshot that it fits.
            for file in (path / INDEX).glob("*.idx"):
                filesystem.remove(file)
    _ = Store.open(path, filesystem=filesystem).index
    return found


def _examine(path: Path, sound: set[str], progress: Callable[[int], object] | None) -> Repair:
    """Look at everything; ``sound`` holds the hashes of shards that were found so, and grows."""
    numbers = list_numbers(path)
    manifests: dict[int, Manifest] = {}
    damaged = []
    for number in reversed(numbers):
        try:
            manifests[number] = read_manifest(path, number)
        except DamagedStoreError as error:
            name = str(manifest_path(path, number).relative_to(path))
            damaged.append(DamagedFile(name, str(error)))
    if not manifests:
        raise DamagedStoreError(
            f"no manifest of {path} is sound, so nothing says what its vectors were made with: restore one "
            f"in {path / MANIFESTS} from a copy, or extract into a new store. The last: {damaged[0].problem}"
        )
    base = manifests[max(manifests)]
    found = Repair(path, base, manifests=damaged)
    kept = []
    for entry in base.shards:
        problem = _problem(path, entry, base, sound)
        if problem:
            missing = not os.path.lexists(path / SHARDS / entry.name)
            found.shards.append(DamagedFile(f"{SHARDS}/{entry.name}", problem, entry, missing))
        else:
            kept.append(entry)
        if progress is not None:
            progress(entry.n_bytes)
    for finding in itertools.islice(verify_canaries(path, base), 1):
        missing = not os.path.lexists(path / finding.shard)
        found.canaries.append(DamagedFile(finding.shard, finding.problem, missing=missing))
    listed = {entry.name: entry for manifest in manifests.values() for entry in manifest.shards}
    unlisted = []
    for file in unlisted_shards(path, [base]):
        entry_found = listed.get(file.name) or entry_of_file(file)
        if isinstance(entry_found, str):
            found.stray.append(DamagedFile(f"{SHARDS}/{file.name}", entry_found))
        elif problem := _problem(path, entry_found, base, sound):
            found.stray.append(DamagedFile(f"{SHARDS}/{file.name}", problem, entry_found))
        elif file.name not in listed:
            unlisted.append(entry_found)
    # If the last manifest is damaged, some of these were committed. Else they are those of killed writers,
    # and taken in where that brings no sentence a second time.
    at_stake = base.number != numbers[-1]
    found.adopted = _worth_adopting(path, kept, unlisted, at_stake)
    if found.shards or found.canaries or found.adopted or at_stake:
        found.result = replace(
            base,
            number=numbers[-1] + 1,
            shards=(*kept, *found.adopted),
            canaries=None if found.canaries else base.canaries,
            commit=commit_note(base.commit),
        )
    return found


def _problem(path: Path, entry: ShardEntry, manifest: Manifest, sound: set[str]) -> str:
    """Return what is wrong with a shard of a store, or an empty string."""
    if entry.sha256 in sound:
        return ""
    fingerprint = manifest.recipe.fingerprint
    for finding in verify_shard(path / SHARDS / entry.name, entry, fingerprint):
        return finding.problem
    if entry.token_shape != manifest.token_shape:
        return f"holds vectors of shape {entry.token_shape}, the store of {manifest.token_shape}"
    sound.add(entry.sha256)
    return ""


def _worth_adopting(
    path: Path, kept: Sequence[ShardEntry], unlisted: Sequence[ShardEntry], at_stake: bool
) -> list[ShardEntry]:
    """Return the shards that bring new sentences: any, where they are at stake, else nothing but new ones."""
    if not unlisted:
        return []
    known, adopted = _keys_of(path, kept), []
    for entry in unlisted:
        keys = _head_keys(path, entry)
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


def _set_aside(path: Path, name: str, filesystem: FileSystem) -> str:
    """Move a file to ``damaged/`` and return its new name; one that lies there already stays."""
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
    """Return whether an index lies on disk that covers all shards, and whether what it says is right."""
    keys = [_head_keys(path, entry) for entry in manifest.shards]
    asked_for = []

    def read_keys(number: int) -> NDArray[np.uint8]:
        asked_for.append(number)
        return keys[number]

    loaded = load_index(
        path / INDEX,
        [entry.name for entry in manifest.shards],
        read_keys,
        sizes=[entry.n_sentences for entry in manifest.shards],
        save=False,
    )
    fresh = empty_index().extended(keys)
    return not asked_for, all(
        np.array_equal(getattr(loaded, name), getattr(fresh, name)) for name in ("table", "records")
    )
