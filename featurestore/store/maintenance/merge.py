"""Merging stores of one recipe, filled on several machines, into one.

A shard with only new sentences is taken whole: as a second name of the same file on the same disk, as a copy
otherwise. Of a shard with some sentences that are stored already, a new shard of the others is made; vectors
are never decoded. What was merged is committed as it comes, so a merge that was killed goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.places import local_path
from featurestore.errors import StoreError, UsageError
from featurestore.store.canaries import read_canaries, require_same_canaries
from featurestore.store.format.directory import TMP
from featurestore.store.format.shard import place
from featurestore.store.index.keyset import KeySet
from featurestore.store.locks import committing
from featurestore.store.maintenance.derived import take_whole
from featurestore.store.maintenance.parts import part_of
from featurestore.store.store import Store
from featurestore.store.writer import WriteSession

_SHARDS_A_COMMIT = 64
"""A manifest lists all shards: one for each shard merged would make thousands of long ones."""


@dataclass
class Merged:
    """What :func:`merge` did.

    Attributes
    ----------
    n_whole, n_part, n_known : int
        Shards taken whole, in part, and not at all because every sentence was stored already.
    n_sentences, n_tokens, n_bytes : int
        Added.
    n_repeated : int
        Sentences that were stored already.
    """

    n_whole: int = 0
    n_part: int = 0
    n_known: int = 0
    n_sentences: int = 0
    n_tokens: int = 0
    n_bytes: int = 0
    n_repeated: int = 0


def merge(
    sources: Sequence[str | Path],
    into: str | Path,
    *,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Merged:
    """Add the sentences of some stores to another.

    Parameters
    ----------
    sources : sequence of str or Path
        They do not change. Of a sentence in several stores the vectors of the first are taken, and those of
        ``into`` before any other.
    into : str or Path
        Created with the settings of the first source if it does not exist. Others may read and write it
        meanwhile.
    progress : callable, optional
        Called with the bytes of each shard done.

    Raises
    ------
    RecipeMismatchError
        If the recipes differ, naming the fields; nothing is merged then.
    DriftError
        If their canaries show that their vectors differ though their recipes are equal.
    UsageError
        If a source is the store to merge into.
    DamagedStoreError
        If a source is damaged: repair it first. What was committed before stays.
    StoreWriteError
        If the disk is full or failing. What was committed stays; run it again.
    """
    into = local_path(into)
    stores = [Store.open(source, access="pread", check="always") for source in sources]
    if not stores:
        raise UsageError("there is nothing to merge: name at least one store")
    target = _opened_or_made(stores, into, filesystem)
    session, merged = target.write(), Merged()
    for store in stores:
        for first in range(0, len(store.manifest.shards), _SHARDS_A_COMMIT):
            numbers = range(first, min(first + _SHARDS_A_COMMIT, len(store.manifest.shards)))
            with committing(into):
                while not _merge_shards(store, numbers, session, merged, filesystem):
                    pass  # another writer committed: look again at what is known
            if progress is not None:
                progress(sum(store.manifest.shards[number].n_bytes for number in numbers))
    session.close()
    return merged


def _opened_or_made(stores: Sequence[Store], into: Path, filesystem: FileSystem) -> Store:
    """Return the store to merge into, after making sure that all are of one recipe."""
    target = Store.open(into, filesystem=filesystem) if Store.exists(into) else None
    first = target or stores[0]
    for store in stores:
        if into.exists() and os.path.samefile(store.location, into):
            raise UsageError(f"{store.path} is the store to merge into: leave it out of the sources")
        store.recipe.require_equal(
            first.recipe,
            where=f"store {store.path}",
            remedy=f"Only stores of one recipe can be merged; the one asked for is that of {first.path}.",
        )
        if store.vector_shape(0) != first.vector_shape(0):
            raise StoreError(
                f"{store.path} holds vectors of {store.n_layers} x {store.dim}, {first.path} of "
                f"{first.n_layers} x {first.dim}: they cannot be merged"
            )
    for store in stores:
        if store is not first:
            require_same_canaries(first, store)
    if target is not None:
        return target
    last = first.manifest
    try:
        return Store.create(
            into,
            recipe=first.recipe,
            dim=first.dim,
            n_layers=first.n_layers,
            encoder=first.encoder,
            codec=last.codec,
            shard_bytes=last.shard_bytes,
            canaries=read_canaries(first),
            filesystem=filesystem,
        )
    except UsageError:
        if not Store.exists(into):
            raise
        return _opened_or_made(stores, into, filesystem)  # another merge made it just now


def _merge_shards(
    store: Store, numbers: Sequence[int], session: WriteSession, merged: Merged, filesystem: FileSystem
) -> bool:
    """Place shards of a source and commit them; return False if another writer committed first."""
    session.catch_up()
    done, entries = Merged(), []
    added, new_keys = KeySet(session.store.location / TMP), []
    for number in numbers:
        reader = store.passing(number)
        known = session.stored(reader.keys) | added.contains(reader.keys)
        rows = np.flatnonzero(~known)
        done.n_repeated += int(known.sum())
        if not len(rows):
            done.n_known += 1
            continue
        if known.any():
            sealed = part_of(reader, rows.tolist(), store.fingerprint)
            place(session.store.location, sealed.entry, [sealed.head, sealed.values], filesystem)
            entry = sealed.entry
            done.n_part += 1
        else:
            entry = reader.entry
            take_whole(reader, session.store.location, filesystem)
            done.n_whole += 1
        entries.append(entry)
        added.add(reader.keys[rows])
        new_keys.append(reader.keys[rows])
        done.n_sentences += entry.n_sentences
        done.n_tokens += entry.n_tokens
        done.n_bytes += entry.n_bytes
    if entries:
        last = store.manifest.commit
        if not session.commit_placed(
            entries,
            np.concatenate(new_keys),
            session.manifest.codec,
            device=last.device,
            tokens_per_second=last.tokens_per_second,
        ):
            return False
    for name, n in vars(done).items():
        setattr(merged, name, getattr(merged, name) + n)
    return True
