"""Upgrading a store's format: one commit, after which older versions of featurestore refuse the store."""

from __future__ import annotations

from dataclasses import replace

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.store.format.directory import publish
from featurestore.store.format.manifest import NEWEST_VERSION, commit_note
from featurestore.store.locks import committing
from featurestore.store.snapshot import AnySnapshot


def upgrade(store: AnySnapshot, *, filesystem: FileSystem = LOCAL) -> AnySnapshot:
    """Publish a snapshot of the same shards in the newest version of the format.

    No shard is written or read. Others may read and write the store meanwhile: what they have open stays
    readable, and writers of older versions are refused at their next commit.

    Parameters
    ----------
    store : Snapshot

    Returns
    -------
    Snapshot
        The latest one, of the newest version.

    Raises
    ------
    StoreError
        If the entry of a shard contradicts itself.
    StoreWriteError
        If the disk is full or failing. Nothing is changed then.
    """
    with committing(store.location):
        latest = store.refreshed()
        while latest.manifest.version < NEWEST_VERSION:
            last = latest.manifest
            following = replace(
                last, number=last.number + 1, version=NEWEST_VERSION, commit=commit_note(last.commit)
            )
            publish(store.location, following, filesystem)
            latest = latest.refreshed()
    return latest
