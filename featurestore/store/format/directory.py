"""The directory of a store: its parts, and its manifests listed, read and published.

A commit publishes the next free number, atomically and never over another one; readers keep the manifest they
opened. The highest number is the store.
"""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path

from featurestore import limits
from featurestore.disk.filesystem import LOCAL
from featurestore.disk.storage import Storage
from featurestore.disk.temporary import temporary_name
from featurestore.errors import DamagedStoreError, NotAStoreError, StoreLimitError, UsageError
from featurestore.store.format.access import inspecting, refuse_unreadable
from featurestore.store.format.manifest import NEWEST_VERSION, Manifest, parse_manifest
from featurestore.store.listing.files import LISTS, Lists, Reference
from featurestore.store.listing.shards import Shards

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
    for name in (MANIFESTS, LISTS, SHARDS, CANARIES, INDEX, TMP, DAMAGED):
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
            if not store.is_dir():
                raise NotAStoreError(f"{store} is not a store: it is a file, expected a directory")
            raise NotAStoreError(f"{store} is not a store: it has no directory {MANIFESTS}/")
        numbers = [int(m[1]) for name in filesystem.names(directory) if (m := _FILE_NAME.fullmatch(name))]
    if not numbers:
        raise NotAStoreError(f"{store} is not a store: {directory} holds no manifest")
    return sorted(numbers)


def read_manifest(
    store: Path, number: int | None = None, filesystem: Storage = LOCAL, known: Shards | None = None
) -> Manifest:
    """Read one manifest, the latest by default, and its lists.

    Parameters
    ----------
    store : Path
    number : int, optional
    filesystem : Storage
    known : Shards, optional
        Of another snapshot: lists that both name are not read again.

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
    return require_lists(store, read_without_lists(store, number, filesystem, known))


def read_listed(
    store: Path, number: int, filesystem: Storage = LOCAL, known: Shards | None = None
) -> Manifest | None:
    """Return a manifest that :func:`list_numbers` named, None if gc removed it since.

    Errors as in :func:`read_manifest`.
    """
    try:
        return require_lists(store, read_without_lists(store, number, filesystem, known))
    except DamagedStoreError as error:
        if error.is_gone:
            return None
        raise


def require_lists(store: Path, manifest: Manifest) -> Manifest:
    """Return a manifest after reading its lists.

    Raises
    ------
    DamagedStoreError
        If one is missing or damaged, or they list a shard twice. Its ``is_gone`` says that gc removed the
        manifest, and with it lists.
    """
    path = manifest_path(store, manifest.number)
    try:
        manifest.shards.require_distinct()
    except ValueError as error:
        raise DamagedStoreError(f"manifest {path} is damaged: {error}", path=path) from error
    except DamagedStoreError as error:
        is_gone = error.is_gone and not path.exists()
        raise DamagedStoreError(
            f"manifest {path} cannot be used: {error}", path=error.path, is_gone=is_gone
        ) from error
    return manifest


def read_without_lists(
    store: Path, number: int, filesystem: Storage = LOCAL, known: Shards | None = None
) -> Manifest:
    """Read one manifest and none of its lists: they are read, and checked, when they are first needed.

    Errors as in :func:`read_manifest`.
    """
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
    return parse_manifest(raw, path, number, Lists(store, filesystem), known)


def publish(store: Path, manifest: Manifest, filesystem: Storage = LOCAL) -> Manifest | None:
    """Make a manifest the store's next snapshot.

    Hold :func:`~featurestore.store.locks.committing`: lists that it needs are placed first.

    Returns
    -------
    Manifest or None
        As it was written: entries may have moved into lists. None if another writer took the number first;
        read the latest and try again.

    Raises
    ------
    StoreLimitError
        If a reader would refuse it.
    DamagedStoreError
        See :func:`require_own_directories`.
    """
    require_own_directories(store)
    filesystem.make_directory(store / TMP, lasting=False)  # copying may have left out what is empty
    most = limits.MAX_SHARDS if manifest.version > 1 else limits.MAX_LISTED_SHARDS
    if len(manifest.shards) > most:
        raise _too_large(store, manifest, most)
    if manifest.version > 1:
        lists = Lists(store, filesystem)

        def write(reference: Reference, parts: list[bytes]) -> Lists:
            lists.write(reference, parts, store / TMP)
            return lists

        manifest = replace(
            manifest,
            shards=manifest.shards.settled(manifest.kind, write),
            left_out=manifest.left_out.settled(manifest.kind, write, most_inline=0),
        )
    raw = manifest.to_json()
    if len(raw) > limits.MAX_MANIFEST_BYTES:
        raise _too_large(store, manifest, most)
    temporary = store / TMP / temporary_name(".json")
    with filesystem.temporary_file(temporary, [raw]):
        linked = filesystem.link_new(temporary, manifest_path(store, manifest.number))
    return manifest if linked else None


def _too_large(store: Path, manifest: Manifest, most: int) -> StoreLimitError:
    larger = f"`featurestore upgrade {store}`, or " if manifest.version < NEWEST_VERSION else ""
    return StoreLimitError(
        f"the manifest of {store} would list {len(manifest.shards):,} shards, over the bounds of {most:,} "
        f"and {limits.MAX_MANIFEST_BYTES:,} bytes: {larger}make another store, of larger shards"
    )
