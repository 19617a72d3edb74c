"""The heads of many shards compared with what their lists say, without making an entry of each."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.store.listing.rows import contradictory
from featurestore.store.listing.shards import Part, Shards

_MOST_THREADS = 4
_AT_ONCE = 512

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
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return list(range(len(shards)))
    doubtful: list[NDArray[np.int64]] = []
    first = 0
    try:
        # Hashing and reading leave the other threads running.
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            for part in shards.parts:
                steps = range(0, len(part), _AT_ONCE)
                begin = pool.map(lambda start, part=part: _sound(folder, part, start), steps)
                sound = np.concatenate(list(begin))
                doubtful.append(first + np.flatnonzero(~sound))
                first += len(part)
    finally:
        os.close(folder)
    return [*(number for some in doubtful for number in some.tolist()), *range(first, len(shards))]


def _sound(folder: int, part: Part, start: int) -> NDArray[np.bool_]:
    """Return which of some successive shards of a part need no closer look."""
    rows = part.rows[start : start + _AT_ONCE]
    heads = rows["offsets"][:, -1].tolist()
    digests = np.ascontiguousarray(rows["head_sha256"]).view("V32").ravel().tolist()
    wrong = contradictory(rows, part.kind.token_shape)
    names, sizes = part.file_names(start, start + _AT_ONCE), rows["n_bytes"].tolist()
    files = zip(names, sizes, heads, digests, strict=True)
    sound: NDArray[np.bool_] = np.fromiter((_begins(folder, *each) for each in files), bool, len(rows))
    return sound & ~wrong


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
