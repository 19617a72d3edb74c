"""Whether a store still continues the commit that a process last saw, or was rolled back under it.

A volume restored from a snapshot, or a directory from a backup, brings an earlier state back; others may have
committed on top of it since. Snapshot numbers and inodes may be equal then: only the content of the manifest
shows the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

from featurestore.errors import FeaturestoreError, StoreError
from featurestore.store.format.directory import manifest_path
from featurestore.store.format.manifest import Manifest, parse_manifest

Signature = tuple[int, int, int]


def signature(directory: str) -> Signature | None:
    """Return what a directory of manifests looks like from outside, None if there is none.

    As long as that stays the same, no manifest came or went: nobody committed, and nothing was rolled back.
    """
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def is_there(store: Path, manifest: Manifest) -> bool:
    """Return whether a manifest lies in a store with the content that it had."""
    path = manifest_path(store, manifest.number)
    try:
        raw = path.read_bytes()
    except OSError:
        return False
    if raw == manifest.to_json():
        return True
    try:
        return parse_manifest(raw, path, manifest.number) == manifest  # written by another version
    except FeaturestoreError:
        return False


def is_shorter(store: Path, last: Manifest, latest: Manifest) -> bool:
    """Return whether shards left a store, by repair, removal or compaction, since a process last saw it.

    Parameters
    ----------
    store : Path
    last : Manifest
        What the process last published or read.
    latest : Manifest
        Of the highest number now.

    Raises
    ------
    StoreError
        If the store was rolled back: the latest commit does not continue the last one.
    """
    gone = last.shards.besides(latest.shards)
    # gc may have removed the last manifest since; then the shards are compared.
    if latest == last or (latest.number > last.number and (not len(gone) or is_there(store, last))):
        return bool(len(gone))
    n = int(last.shards.sizes[gone].sum())
    raise StoreError(
        f"{store} is not the store that this process last saw: snapshot {last.number} is gone, and "
        f"{n:,} of its sentences with it. It was restored from an earlier state. Nothing was written to it: "
        "run the same again, which stores what is missing"
    )
