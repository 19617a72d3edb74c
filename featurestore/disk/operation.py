"""One system call that changes the disk, as an object: what tests of faults watch, fail and replay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["mkdir", "create", "reserve", "write", "sync", "sync directory", "link", "rename", "unlink"]


@dataclass(frozen=True)
class Operation:
    """One system call that changes the disk, or waits until a change has reached it.

    Attributes
    ----------
    kind : str
    path : Path
        What is made, filled, synced, named or removed.
    descriptor : int
        Of the file written or synced, else -1.
    data : memoryview or None
        What is written.
    n_bytes : int
        Bytes written or reserved.
    source : Path or None
        The name that a link or rename begins from.
    """

    kind: Kind
    path: Path
    descriptor: int = -1
    data: memoryview | None = None
    n_bytes: int = 0
    source: Path | None = None
