"""SHA-256 of files, a block at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 4 << 20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb", buffering=0) as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO, n_bytes: int | None = None) -> str:
    """Return the SHA-256 of what an open file still holds, 64 hexadecimal digits.

    Parameters
    ----------
    file : binary file
    n_bytes : int, optional
        Bytes to read at most: of a file that may be growing.
    """
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES if n_bytes is None else min(_BLOCK_BYTES, n_bytes)):
        digest.update(block)
        if n_bytes is not None:
            n_bytes -= len(block)
    return digest.hexdigest()
