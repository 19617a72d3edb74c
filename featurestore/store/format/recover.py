"""What can still be read of a shard whose vectors are damaged, or that no manifest lists."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from featurestore.errors import DamagedStoreError
from featurestore.store.format.access import open_shard, sha256_of_shard
from featurestore.store.format.codec import CodecError
from featurestore.store.format.layout import NAME_DIGITS, ShardEntry
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.structure import inspect


class HeadReader(ShardReader):
    """A damaged shard whose head is sound: its keys, tokens and conditions, whatever became of its vectors.

    Raises
    ------
    DamagedStoreError
        If the head is not sound either.
    """

    def __init__(self, path: Path, entry: ShardEntry) -> None:
        super().__init__(path, entry, access="pread", check="never")

    def _require_size(self, n_bytes: int) -> None:
        # A file that is too short or too long may still have its whole head.
        pass


def entry_of_file(path: Path) -> ShardEntry:
    """Return the entry for a manifest of a shard file that none lists.

    Its name says what its hash must be. The error of its codec is stated as not measured: only its writer
    could measure it.

    Raises
    ------
    DamagedStoreError
        If it is not a sound shard.
    UnreadableStoreError
        If this process may not open it.
    """
    descriptor = open_shard(path)
    try:
        n_bytes = os.fstat(descriptor).st_size
        found = sha256_of_shard(path)
        if f"{found[:NAME_DIGITS]}.h5" != path.name:
            raise DamagedStoreError(
                f"it has hash {found[:16]}..., its name says {path.name[:16]}...", path=path, shard=path.name
            )
        _, codec, extents = inspect(path)
        head = os.pread(descriptor, extents["values"].offset, 0)
    except OSError as error:
        raise DamagedStoreError(str(error), path=path, shard=path.name) from error
    finally:
        os.close(descriptor)
    return ShardEntry(
        sha256=found,
        head_sha256=hashlib.sha256(head).hexdigest(),
        n_bytes=n_bytes,
        n_sentences=extents["offsets"].shape[0] - 1,
        n_tokens=extents["values"].shape[0],
        codec=codec,
        error=CodecError(),
        extents=extents,
    )
