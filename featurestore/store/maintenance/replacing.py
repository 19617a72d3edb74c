"""Shards of a store replaced by others with the same vectors: removing sentences, compacting small shards.

Readers keep their snapshot. What the new snapshot no longer lists, ``gc`` removes when nobody needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import DamagedStoreError, StoreError
from featurestore.store.format.directory import publish
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import Manifest, commit_note, following
from featurestore.store.format.shard import SealedShard, place
from featurestore.store.listing.shards import Shards
from featurestore.store.locks import committing
from featurestore.store.maintenance.gc import shards_besides
from featurestore.store.maintenance.parts import joined, part_of
from featurestore.store.maintenance.selection import Selection
from featurestore.store.store import Store
from featurestore.store.writer import WriteSession

logger = logging.getLogger(__name__)

_SMALL = 0.5
"""Share of a full shard's payload below which a shard is joined with others."""


@dataclass
class Removed:
    """What :func:`remove` did, or would do.

    Attributes
    ----------
    n_sentences, n_tokens : int
        Removed.
    n_shards, n_rewritten : int
        Shards that are left out, and those that are written anew without the removed sentences.
    n_left : int
        Sentences in the store afterwards.
    snapshot : int
        The new snapshot's number, the old one's if nothing was removed.
    """

    n_sentences: int = 0
    n_tokens: int = 0
    n_shards: int = 0
    n_rewritten: int = 0
    n_left: int = 0
    snapshot: int = 0


@dataclass
class Compacted:
    """What :func:`compact` did, or would do.

    Attributes
    ----------
    n_before, n_after : int
        Shards of the store.
    n_joined : int
        Shards that were joined with others.
    n_apart : int
        Small shards of int8 that stay as they are: each has norms of its own, and to join them would round
        their vectors once more.
    snapshot : int
        The new snapshot's number, the old one's if nothing was joined.
    """

    n_before: int = 0
    n_after: int = 0
    n_joined: int = 0
    n_apart: int = 0
    snapshot: int = 0


def remove(
    store: Store,
    selection: Selection,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Removed:
    """Publish a snapshot without some sentences; vectors are never decoded.

    Parameters
    ----------
    store : Store
        Others may read and write it meanwhile.
    selection : Selection
        Of the same snapshot; what is to go.
    dry_run : bool
        Only say what would be done.
    progress : callable, optional
        Called with the bytes of each shard that is written anew.

    Raises
    ------
    StoreError
        If another process removed or joined the same shards meanwhile; nothing is changed then.
    DamagedStoreError
        If a sentence that stays in a shard to be rewritten is damaged: repair the store first.
    StoreWriteError
        If the disk is full or failing. Nothing is changed then.
    """
    done = Removed(snapshot=store.snapshot, n_tokens=selection.n_tokens(store))
    done.n_sentences, done.n_left = selection.n_sentences, len(store) - selection.n_sentences
    chosen = [shard for shard, rows in enumerate(selection.rows) if len(rows)]
    sizes = [entry.n_sentences for entry in store.manifest.shards]
    kept = {shard: np.setdiff1d(np.arange(sizes[shard]), selection.rows[shard]) for shard in chosen}
    done.n_rewritten = sum(len(rows) > 0 for rows in kept.values())
    done.n_shards = len(chosen) - done.n_rewritten
    if dry_run or not chosen:
        return done
    replaced: dict[str, ShardEntry | None] = {}
    with committing(store.location):
        for shard, rows in kept.items():
            reader = store.passing(shard)
            sealed = part_of(reader, rows.tolist(), store.fingerprint) if len(rows) else None
            replaced[reader.entry.name] = _placed(store.location, sealed, filesystem)
            if progress is not None:
                progress(reader.entry.n_bytes)
        done.snapshot = _publish(store, replaced, filesystem)
    _ = store.refreshed().index
    return done


def compact(
    store: Store,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Compacted:
    """Publish a snapshot in which small shards are joined to full ones; vectors are never decoded.

    Committing a sentence at a time leaves thousands of shards, each a file to open.

    Parameters
    ----------
    store : Store
        Others may read and write it meanwhile.
    dry_run, progress
        As for :func:`remove`.

    Raises
    ------
    StoreError, DamagedStoreError, StoreWriteError
        As for :func:`remove`.
    """
    entries = store.manifest.shards
    small = [
        shard for shard, entry in enumerate(entries) if _payload(entry) < _SMALL * store.manifest.shard_bytes
    ]
    groups = [group for group in _groups(store, small) if len(group) > 1]
    n_joined = sum(map(len, groups))
    done = Compacted(
        n_before=len(entries),
        n_after=len(entries) - n_joined + len(groups),
        n_joined=n_joined,
        n_apart=sum(entries[shard].codec == "int8" for shard in small)
        - sum(entries[group[0]].codec == "int8" for group in groups for _ in group),
        snapshot=store.snapshot,
    )
    if dry_run or not groups:
        return done
    replaced: dict[str, ShardEntry | None] = {}
    with committing(store.location):
        for group in groups:
            readers = [store.passing(shard) for shard in group]
            sealed = joined(readers, store.fingerprint)
            replaced.update(dict.fromkeys((reader.entry.name for reader in readers[1:]), None))
            replaced[readers[0].entry.name] = _placed(store.location, sealed, filesystem)
            if progress is not None:
                progress(sum(reader.entry.n_bytes for reader in readers))
        done.snapshot = _publish(store, replaced, filesystem)
    _ = store.refreshed().index
    return done


def _payload(entry: ShardEntry) -> int:
    return entry.extents["values"].n_bytes


def _groups(store: Store, small: Sequence[int]) -> Iterator[list[int]]:
    """Yield small shards that fit into one, in their order; those of other norms or codecs not together."""
    waiting: dict[tuple[str, bytes], tuple[list[int], int]] = {}
    for shard in small:
        entry = store.manifest.shards[shard]
        norms = store.passing(shard).norms if "norms" in entry.extents else None
        kind = entry.codec, b"" if norms is None else norms.tobytes()
        group, n_bytes = waiting.get(kind, ([], 0))
        if group and n_bytes + _payload(entry) > store.manifest.shard_bytes:
            yield group
            group, n_bytes = [], 0
        waiting[kind] = [*group, shard], n_bytes + _payload(entry)
    yield from (group for group, _ in waiting.values())


def _placed(store: Path, sealed: SealedShard | None, filesystem: FileSystem) -> ShardEntry | None:
    if sealed is None:
        return None
    place(store, sealed.entry, [sealed.head, sealed.values], filesystem)
    return sealed.entry


def _publish(store: Store, replaced: Mapping[str, ShardEntry | None], filesystem: FileSystem) -> int:
    """Publish the latest snapshot with shards replaced, or left out; return its number."""
    session = WriteSession(store)
    while True:
        session.catch_up()
        last = session.manifest
        wanted = sorted(replaced)
        if gone := [wanted[i] for i in np.flatnonzero(last.shards.positions(wanted) < 0)]:
            raise StoreError(
                f"another process removed, joined or repaired shards of {store.path} meanwhile "
                f"({', '.join(gone[:3])}): nothing was changed; run this again"
            )
        # A shard that an earlier snapshot made of the same sentences may be listed already.
        manifest = replace(
            following(last, (), commit_note(last.commit), last.codec),
            shards=last.shards.replaced(replaced),
            left_out=_left_out(store.location, last, wanted),
        )
        if publish(store.location, manifest, filesystem) is not None:
            return manifest.number
        logger.info("another writer took snapshot %d; following it", manifest.number)


def _left_out(store: Path, last: Manifest, names: Sequence[str]) -> Shards:
    """Return the shards taken out of a store, these and earlier ones, whose files are still there."""
    if last.version == 1:
        return Shards()
    now = [last.shards[number] for number in last.shards.positions(names).tolist()]
    before = list[ShardEntry]()
    try:
        before += last.left_out
    except DamagedStoreError as error:
        logger.warning("which shards were taken out before is not known: %s", error)
    there = {file.name for file in shards_besides(store, [])}
    left = {entry.name: entry for entry in (*before, *now) if entry.name in there}
    return Shards(left.values())
