"""Writers of this process that hold sentences back: asked to commit before their store is opened again.

Whoever opens a store must see what this same process has computed for it, even where the writer still waits
for more to commit together.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Protocol


class HoldsBack(Protocol):
    """A writer with sentences that it has not committed yet."""

    def commit_pending(self) -> None:
        """Commit them if possible; never raises."""


_writers: dict[Path, weakref.WeakSet[HoldsBack]] = {}
_lock = threading.Lock()


def announce(path: Path, writer: HoldsBack) -> None:
    """Have a writer asked whenever the store at a path is opened, for as long as the writer lives.

    Parameters
    ----------
    path : Path
        Absolute.
    writer : HoldsBack
    """
    with _lock:
        _writers.setdefault(path, weakref.WeakSet()).add(writer)


def commit_pending(path: Path) -> None:
    """Ask the writers of the store at an absolute path to commit what they hold back."""
    if not _writers:
        return
    with _lock:
        writers = list(_writers.get(path, ()))
    for writer in writers:
        writer.commit_pending()
