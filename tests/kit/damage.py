"""Ways to damage a store: a flipped bit, a forged shard, a forged index."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.store.index.files import run_bytes
from featurestore.store.index.lookup import Index
from featurestore.store.snapshot import shard_list
from featurestore.store.store import Store
from tests.kit.stores import shard_path


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def value_offset(store: Store, shard: int, row: int) -> int:
    """Return where the values of a sentence begin in its shard's file."""
    reader = store.reader(shard)
    extent = reader.entry.extents["values"]
    return extent.offset + reader.bounds[row] * (extent.n_bytes // extent.shape[0])


def forge_head(store: Store, dataset: str, at: int, raw: bytes) -> Store:
    """Overwrite bytes of a dataset of the first shard, and open it by a manifest whose hashes fit."""
    path, entry = shard_path(store, 0), store.manifest.shards[0]
    content = bytearray(path.read_bytes())
    start = entry.extents[dataset].offset + at
    content[start : start + len(raw)] = raw
    head = hashlib.sha256(content[: entry.extents["values"].offset]).hexdigest()
    whole = hashlib.sha256(content).hexdigest()
    path.with_name(f"{whole[:32]}.h5").write_bytes(content)
    forged = replace(entry, sha256=whole, head_sha256=head)
    return Store(store.path, replace(store.manifest, shards=(forged,)))


def index_path(store: Store) -> Path:
    """Return the file of a store's only index, made if it is not there."""
    _ = store.index
    (path,) = (store.path / "index").glob("*.idx")
    return path


def forge_index(
    store: Store, *, shard: NDArray[np.uint32] | None = None, row: NDArray[np.uint32] | None = None
) -> Path:
    """Write an index whose checksums fit and whose keys lie elsewhere; return its file."""
    index, path = store.index, index_path(store)
    forged = Index.of(
        index.high,
        index.low,
        index.shard if shard is None else shard,
        index.row if row is None else row,
        index.n_shards,
    )
    path.write_bytes(run_bytes(forged.runs[0], shard_list(store.manifest)))
    return path
