"""The directory of a store: its parts, and its manifests listed, read and published.

A commit publishes the next free number, atomically and never over another one; readers keep the manifest they
opened. The highest number is the store.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from featurestore import limits
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.storage import Storage
from featurestore.disk.temporary import temporary_name
from featurestore.errors import DamagedStoreError, NotAStoreError, StoreLimitError, UsageError
from featurestore.store.format.access import inspecting, refuse_unreadable
from featurestore.store.format.manifest import Manifest, parse_manifest

MANIFESTS, SHARDS, CANARIES, INDEX, TMP = "manifests", "shards", "canaries", "index", "tmp"
DAMAGED = "damaged"
"""Directory of a store to which repair moves what is damaged; nothing reads or removes it."""

_FILE_NAME = re.compile(r"([0-9]{8}|[1-9][0-9]{8,15})\.json")


def manifest_path(store: Path, number: int) -> Path:
    """Return where a manifest lies."""
    return store / MANIFESTS / f"{number:08d}.json"


def require_own_directories(store: Path) -> None:
    """Raise if one of a store's directories is a symbolic link: gc would remove files outside the store.

    Raises
    ------
    DamagedStoreError
    """
    for name in (MANIFESTS, SHARDS, CANARIES, INDEX, TMP, DAMAGED):
        if (store / name).is_symlink():
            raise DamagedStoreError(
                f"{store / name} is a symbolic link, expected a directory of the store's own: a store never "
                "leads outside itself. If the link is yours, link to the whole store instead",
                path=store / name,
            )


def list_numbers(store: Path, filesystem: Storage = LOCAL) -> list[int]:
    """Return the numbers of a store's manifests, ascending.

    Raises
    ------
    NotAStoreError
        If the path does not exist, or is not a store.
    UnreadableStoreError
        If it cannot be inspected.
    DamagedStoreError
        See :func:`require_own_directories`.
    """
    directory = store / MANIFESTS
    with inspecting(store):
        require_own_directories(store)
        if not directory.is_dir():
            if not store.exists():
                raise NotAStoreError(
                    f"there is no store at {store}: `featurestore extract ... --store {store}` makes one"
                )
            raise NotAStoreError(f"{store} is not a store: it has no directory {MANIFESTS}/")
        numbers = [int(m[1]) for name in filesystem.names(directory) if (m := _FILE_NAME.fullmatch(name))]
    if not numbers:
        raise NotAStoreError(f"{store} is not a store: {directory} holds no manifest")
    return sorted(numbers)


def read_manifest(store: Path, number: int | None = None, filesystem: Storage = LOCAL) -> Manifest:
    """Read one manifest, the latest by default.

    Raises
    ------
    NotAStoreError
        If there is none.
    FormatVersionError
        If a newer featurestore wrote it.
    DamagedStoreError
        If it is not what was committed.
    """
    numbers = list_numbers(store, filesystem)
    if number is None:
        number = numbers[-1]
    elif number not in numbers:
        raise UsageError(f"store {store} has no snapshot {number}; it has {numbers[0]} to {numbers[-1]}")
    return _read(store, number, filesystem)


def read_listed(store: Path, number: int, filesystem: Storage = LOCAL) -> Manifest | None:
    """Return a manifest that :func:`list_numbers` named, None if gc removed it since.

    Errors as in :func:`read_manifest`.
    """
    try:
        return _read(store, number, filesystem)
    except DamagedStoreError as error:
        if error.is_gone:
            return None
        raise


def _read(store: Path, number: int, filesystem: Storage) -> Manifest:
    path = manifest_path(store, number)
    try:
        file = filesystem.open(path)
        n_bytes = file.n_bytes
        if n_bytes > limits.MAX_MANIFEST_BYTES:
            raise DamagedStoreError(
                f"manifest {path} has {n_bytes:,} bytes, over the bound of {limits.MAX_MANIFEST_BYTES:,}",
                path=path,
            )
        raw = file.read(0, n_bytes)
    except OSError as error:
        # Over a network, a file that another computer removed may be stale instead.
        is_gone = error.errno in (errno.ENOENT, errno.ESTALE)
        if not is_gone:
            refuse_unreadable(path, error)
        raise DamagedStoreError(
            f"manifest {path} cannot be read: {error.strerror or error}", path=path, is_gone=is_gone
        ) from error
    return parse_manifest(raw, path, number)


def publish(store: Path, manifest: Manifest, filesystem: Storage = LOCAL) -> bool:
    """Make a manifest the store's next snapshot.

    Returns
    -------
    bool
        False if another writer took the number first; read the latest and try again.

    Raises
    ------
    StoreLimitError
        If a reader would refuse it.
    DamagedStoreError
        See :func:`require_own_directories`.
    """
    require_own_directories(store)
    raw = manifest.to_json()
    if len(manifest.shards) > limits.MAX_SHARDS or len(raw) > limits.MAX_MANIFEST_BYTES:
        raise StoreLimitError(
            f"the manifest of {store} would list {len(manifest.shards):,} shards in {len(raw):,} bytes, over "
            f"the bounds of {limits.MAX_SHARDS:,} and {limits.MAX_MANIFEST_BYTES:,}: make another store, of "
            "larger shards"
        )
    filesystem.make_directory(store / TMP, lasting=False)  # copying may have left out what is empty
    temporary = store / TMP / temporary_name(".json")
    with filesystem.temporary_file(temporary, [raw]):
        return filesystem.link_new(temporary, manifest_path(store, manifest.number))
