"""Stores made of other stores: empty ones with the same settings, and whole shards taken over."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import FileSystem
from featurestore.disk.places import local_path
from featurestore.errors import DamagedStoreError, UsageError
from featurestore.recipe import Recipe
from featurestore.store.canaries import Canaries, read_canaries
from featurestore.store.format.access import open_shard, sha256_of_shard
from featurestore.store.format.directory import SHARDS
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.shard import place
from featurestore.store.store import Store


def make_like(
    store: Store,
    path: str | Path,
    *,
    codec: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    n_layers: int | None = None,
    canaries: Canaries | None = None,
    filesystem: FileSystem,
) -> Store:
    """Make an empty store with another one's settings, but for those given.

    A store at the path is taken if it is empty and has these settings: what was killed before it committed
    leaves one.

    Parameters
    ----------
    store : Store
    path : str or Path
    codec, recipe, n_layers, canaries : optional
        Where they differ. Without ``recipe`` the canaries are those of the store.
    filesystem : FileSystem

    Raises
    ------
    UsageError
        If something else is at the path.
    StoreWriteError
        If the disk is full or failing.
    """
    return make_new(
        path,
        recipe=Recipe.of(store.recipe if recipe is None else recipe),
        dim=store.dim,
        n_layers=n_layers or store.n_layers,
        encoder=store.encoder,
        codec=codec or store.manifest.codec,
        shard_bytes=store.manifest.shard_bytes,
        canaries=canaries if recipe is not None else read_canaries(store),
        filesystem=filesystem,
    )


def make_new(
    path: str | Path,
    *,
    recipe: Recipe,
    dim: int,
    n_layers: int,
    codec: str,
    shard_bytes: int,
    encoder: str = "",
    canaries: Canaries | None = None,
    filesystem: FileSystem,
) -> Store:
    """Make an empty store, or take the one at the path if it is empty and has these settings.

    Raises
    ------
    UsageError
        If something else is at the path.
    StoreWriteError
        If the disk is full or failing.
    """
    path = local_path(path)
    require_outside_stores(path)
    if Store.exists(path):
        found = Store.open(path, filesystem=filesystem)
        settings = found.recipe, found.dim, found.n_layers, found.manifest.codec, found.manifest.shard_bytes
        if len(found) or settings != (recipe, dim, n_layers, codec, shard_bytes):
            raise UsageError(f"there is already a store at {path}: choose another directory for the new one")
        return found
    return Store.create(
        path,
        recipe=recipe,
        dim=dim,
        n_layers=n_layers,
        encoder=encoder,
        codec=codec,
        shard_bytes=shard_bytes,
        canaries=canaries,
        filesystem=filesystem,
    )


def require_outside_stores(path: Path) -> None:
    """Refuse a place within the directory of a store: gc, copies and people would take it for a part of it.

    Raises
    ------
    UsageError
    """
    for folder in path.absolute().parents:
        if Store.exists(folder):
            raise UsageError(f"{path} lies within the store {folder}: choose a place outside of it")


def take_whole(reader: ShardReader, store: Path, filesystem: FileSystem) -> None:
    """Give a shard its place in another store: by a second name if the disk allows, else as a copy.

    Hold :func:`~featurestore.store.locks.committing` of that store.

    Raises
    ------
    DamagedStoreError
        If the shard is not what was committed.
    StoreWriteError
        If the disk is full or failing.
    """
    entry = reader.entry
    found = sha256_of_shard(reader.path)
    if found != entry.sha256:
        raise DamagedStoreError(
            f"shard {reader.path} is damaged: it has hash {found[:16]}..., expected {entry.sha256[:16]}.... "
            f"Run `featurestore repair {reader.path.parent.parent}`, then run this again",
            path=reader.path,
            shard=entry.name,
        )
    if not filesystem.second_name(reader.path, store / SHARDS / entry.name):
        descriptor = open_shard(reader.path)
        try:
            whole = mmap.mmap(descriptor, entry.n_bytes, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        place(store, entry, [memoryview(whole)], filesystem)


def commit_all(
    store: Store,
    entries: Sequence[ShardEntry],
    keys: Sequence[NDArray[np.uint8]],
    source: Store | None = None,
) -> None:
    """Commit the shards placed in a new store, all at once.

    Where and how fast they were encoded is noted as the store that they come from notes it.

    Raises
    ------
    UsageError
        If another process has filled the store meanwhile.
    """
    session = store.write()
    note: dict[str, Any] = {}
    if source is not None:
        last = source.manifest.commit
        note = {"device": last.device, "tokens_per_second": last.tokens_per_second}
    if entries and not session.commit_placed(entries, np.concatenate(keys), store.manifest.codec, **note):
        raise UsageError(f"another process wrote to {store.path} meanwhile: nothing was committed")
    session.close()
