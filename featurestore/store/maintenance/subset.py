"""Some or all sentences of a store as a store of their own; vectors are never decoded.

A shard that is wanted whole is taken whole: as a second name of the same file on the same disk, as a copy
otherwise. All is committed at once: until then the new store is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.store.format.shard import place
from featurestore.store.locks import committing
from featurestore.store.maintenance.derived import commit_all, make_like, take_whole
from featurestore.store.maintenance.parts import part_of
from featurestore.store.maintenance.selection import Selection
from featurestore.store.store import Store


@dataclass
class Taken:
    """What :func:`subset` took.

    Attributes
    ----------
    n_whole, n_part : int
        Shards taken whole, and in part.
    n_sentences, n_tokens, n_bytes : int
    """

    n_whole: int = 0
    n_part: int = 0
    n_sentences: int = 0
    n_tokens: int = 0
    n_bytes: int = 0


def subset(
    store: Store,
    selection: Selection,
    into: str | Path,
    *,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Taken:
    """Make a store of some sentences of another, with its recipe and canaries.

    Parameters
    ----------
    store : Store
        It does not change.
    selection : Selection
        Of the same snapshot.
    into : str or Path
        A directory that does not exist or is empty; or what a killed run of this left.
    progress : callable, optional
        Called with the bytes of each shard done.

    Raises
    ------
    UsageError
        If something else is at the path.
    DamagedStoreError
        If a sentence that is wanted is damaged: repair the store first.
    StoreWriteError
        If the disk is full or failing. The new store is empty then; run it again.
    """
    target, taken = make_like(store, into, filesystem=filesystem), Taken()
    entries, keys = [], []
    with committing(target.location):
        for shard, rows in enumerate(selection.rows):
            reader = store.passing(shard)
            if len(rows) == len(reader):
                take_whole(reader, target.location, filesystem)
                entry = reader.entry
                taken.n_whole += 1
            elif len(rows):
                sealed = part_of(reader, rows.tolist(), store.fingerprint)
                place(target.location, sealed.entry, [sealed.head, sealed.values], filesystem)
                entry = sealed.entry
                taken.n_part += 1
            if len(rows):
                entries.append(entry)
                keys.append(reader.keys[rows])
                taken.n_sentences += entry.n_sentences
                taken.n_tokens += entry.n_tokens
                taken.n_bytes += entry.n_bytes
            if progress is not None:
                progress(reader.entry.n_bytes)
        commit_all(target, entries, keys, store)
    return taken
