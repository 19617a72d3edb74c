"""SIGTERM while computed vectors wait to be stored: the process ends as on Ctrl-C, which stores them.

By default SIGTERM ends a process at once, without ``finally`` and ``atexit``. Batch systems send it when time
is up. A handler of the user's own stays, and so does the default where nothing waits.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from types import FrameType
from typing import Protocol


class Waiting(Protocol):
    """Something that may hold vectors that are not stored yet."""

    @property
    def holds_any(self) -> bool:
        """Whether it does, in this process."""


_all: weakref.WeakSet[Waiting] = weakref.WeakSet()


def end_orderly(waiting: Waiting) -> None:
    """Let SIGTERM end this process by SystemExit as long as something waits, unless it is handled already."""
    _all.add(waiting)
    # Only the main thread may set handlers. Where it is busy elsewhere, its next call does.
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    if any(waiting.holds_any for waiting in list(_all)):
        raise SystemExit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
