"""The heads of many shards compared with what their lists say, without making an entry of each."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.store.listing.rows import DATASETS, contradictory
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
    doubtful: list[int] = []
    first, folder = 0, f"{directory}{os.sep}"
    # Hashing and reading leave the other threads running.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for part in shards.parts:
            steps = range(0, len(part), _AT_ONCE)
            sound = np.concatenate(
                list(pool.map(lambda start, part=part: _sound(folder, part, start), steps))
            )
            doubtful += (first + np.flatnonzero(~sound)).tolist()
            first += len(part)
    return [*doubtful, *range(first, len(shards))]


def _sound(folder: str, part: Part, start: int) -> NDArray[np.bool_]:
    """Return which of some successive shards of a part need no closer look."""
    rows = part.rows[start : start + _AT_ONCE]
    at = {name: rows["offsets"][:, column].astype(np.int64) for column, name in enumerate(DATASETS)}
    # The last offsets of sentences and of tokens say what these add up to.
    last_sentence = at["offsets"] + 8 * rows["n_sentences"].astype(np.int64)
    wrong = contradictory(rows, part.kind.token_shape)
    last_token = at["token_offsets"] + np.where(wrong, 0, 8 * rows["n_tokens"].astype(np.int64))
    files = zip(
        part.file_names(start, start + _AT_ONCE),
        rows["n_bytes"].tolist(),
        at["values"].tolist(),
        np.ascontiguousarray(rows["head_sha256"]).view("V32").ravel().tolist(),
        zip(last_sentence.tolist(), rows["n_tokens"].tolist(), strict=True),
        zip(last_token.tolist(), rows["token_bytes"].tolist(), strict=True),
        strict=True,
    )
    good = (not bad and _begins(folder, *each) for bad, each in zip(wrong.tolist(), files, strict=True))
    sound: NDArray[np.bool_] = np.fromiter(good, bool, len(rows))
    return sound


def _begins(
    folder: str, name: str, n_bytes: int, n_head: int, digest: bytes, *words: tuple[int, int]
) -> bool:
    """Return whether a file has this size, and its first bytes have this hash and hold these words.

    Parameters
    ----------
    folder, name : str
    n_bytes : int
        Of the file.
    n_head : int
        Of its beginning.
    digest : bytes
        Of the beginning.
    words : (int, int)
        An offset in the beginning, and the number that stands there.
    """
    try:
        descriptor = os.open(folder + name, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != n_bytes:
                return False
            head = os.pread(descriptor, n_head, 0)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return hashlib.sha256(head).digest() == digest and all(
        int.from_bytes(head[place : place + 8], "little") == word for place, word in words
    )
