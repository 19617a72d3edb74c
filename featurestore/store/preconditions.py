"""What is checked before a store is made or added to."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from featurestore import limits
from featurestore.disk.places import nearest_existing
from featurestore.errors import DamagedStoreError, StoreLimitError, StoreWriteError, UsageError
from featurestore.store.format.access import inspecting
from featurestore.store.format.codec import get_codec
from featurestore.store.format.directory import CANARIES, DAMAGED, INDEX, MANIFESTS, SHARDS, TMP
from featurestore.store.format.manifest import Manifest
from featurestore.store.listing.files import LISTS
from featurestore.store.locks import LOCK


def require_bounds(*, dim: int, n_layers: int, codec: str, shard_bytes: int, encoder: str = "") -> None:
    """Raise unless a store can have these.

    Raises
    ------
    StoreLimitError, UsageError
    """
    for name, value, kind in (
        ("dim", dim, int), ("n_layers", n_layers, int), ("shard_bytes", shard_bytes, int),
        ("codec", codec, str), ("encoder", encoder, str),
    ):  # fmt: skip
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}, a {type(value).__name__}: expected {kind.__name__}")
    get_codec(codec)
    if not (0 < dim <= limits.MAX_DIM and 0 < n_layers <= limits.MAX_LAYERS):
        raise StoreLimitError(
            f"vectors of {n_layers} x {dim} exceed the bounds {limits.MAX_LAYERS} x {limits.MAX_DIM}"
        )
    if not 0 < shard_bytes <= limits.MAX_SHARD_BYTES:
        raise UsageError(
            f"a shard size of {shard_bytes:,} bytes is not between 1 and {limits.MAX_SHARD_BYTES:,}"
        )


def require_creatable(path: Path) -> None:
    """Raise unless a store can be made at a path.

    Raises
    ------
    UsageError
    UnreadableStoreError
        If the path cannot be inspected.
    """
    ours = (MANIFESTS, LISTS, SHARDS, CANARIES, INDEX, TMP, DAMAGED, LOCK)
    with inspecting(path):
        if path.exists() and (not path.is_dir() or any(p.name not in ours for p in path.iterdir())):
            raise UsageError(f"cannot make a store at {path}: something else is there; choose a new path")
        if not path.exists() and path.is_symlink():
            raise UsageError(f"cannot make a store at {path}: it is a link whose target does not exist")
        above = nearest_existing(path.absolute().parent)
        if not above.is_dir():
            raise UsageError(f"cannot make a store at {path}: {above} is a file")


def require_shards(store: Path, manifest: Manifest) -> None:
    """Raise unless all of a store's shards exist and have the right size, without opening them.

    Raises
    ------
    DamagedStoreError
        With how many do not, and the first of them.
    """
    directory = store / SHARDS
    sizes: dict[str, int] = {}
    with inspecting(directory), contextlib.suppress(FileNotFoundError):
        for file in os.scandir(directory):
            with contextlib.suppress(FileNotFoundError):  # gc may be removing what no snapshot needs
                sizes[file.name] = file.stat().st_size
    shards = manifest.shards
    committed = zip(shards.names(), shards.file_bytes.tolist(), strict=True)
    wrong = [name for name, n_bytes in committed if sizes.get(name) != n_bytes]
    if wrong:
        found, expected = sizes.get(wrong[0]), shards[int(shards.positions(wrong[:1])[0])].n_bytes
        state = "is missing" if found is None else f"has {found:,} bytes, expected {expected:,}"
        raise DamagedStoreError(
            f"{len(wrong):,} of {len(manifest.shards):,} shards of {store} are not what was committed; "
            f"the first, {wrong[0]}, {state}. Restore them from a copy, or run `featurestore repair "
            f"{store}` and extract again",
            path=directory / wrong[0],
            shard=wrong[0],
            is_gone=found is None,
        )


def require_addable(path: Path) -> None:
    """Raise unless permissions allow a store to be made at a path, or added to.

    Raises
    ------
    StoreWriteError
    """
    with inspecting(path):
        inside = [path / name for name in (MANIFESTS, SHARDS, TMP)]
        places = [nearest_existing(path), *filter(Path.exists, inside)]
    effective = os.access in os.supports_effective_ids
    for place in places:
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=effective):
            read_only = os.statvfs(place).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise StoreWriteError(
                f"cannot write {path}: {os.strerror(code)} ({place}). Nothing was encoded",
                path=path,
                errno=code,
            )
