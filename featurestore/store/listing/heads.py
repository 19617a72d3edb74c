"""The heads of many shards compared with what their lists say, without making an entry of each."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import numpy as np

from featurestore.store.listing.rows import contradictory
from featurestore.store.listing.shards import Shards

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def doubtful_heads(directory: Path, shards: Shards) -> list[int]:
    """Return the numbers of the shards that a closer look has to clear, ascending.

    Of the others the file is there, has its size, and begins as it was committed.

    Parameters
    ----------
    directory : Path
        Where the files lie.
    shards : Shards
        Those that no list holds are all among the doubtful ones.
    """
    doubtful: list[int] = []
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return list(range(len(shards)))
    first = 0
    try:
        for part in shards.parts:
            rows = part.rows
            heads = rows["offsets"][:, -1].tolist()
            digests = np.ascontiguousarray(rows["head_sha256"]).view("V32").ravel().tolist()
            names = part.file_names()
            wrong = contradictory(rows, part.kind.token_shape).tolist()
            for number, (name, n_bytes, head, digest, bad) in enumerate(
                zip(names, rows["n_bytes"].tolist(), heads, digests, wrong, strict=True), start=first
            ):
                if bad or not _begins(folder, name, n_bytes, head, digest):
                    doubtful.append(number)
            first += len(part)
    finally:
        os.close(folder)
    return [*doubtful, *range(first, len(shards))]


def _begins(folder: int, name: str, n_bytes: int, head: int, digest: bytes) -> bool:
    """Return whether a file has a size, and at its beginning bytes of a hash."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=folder)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != n_bytes:
            return False
        return hashlib.sha256(os.pread(descriptor, head, 0)).digest() == digest
    except OSError:
        return False
    finally:
        os.close(descriptor)
