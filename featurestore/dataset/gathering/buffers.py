"""Memory of batches that is reused once no tensor over it is left.

A batch takes megabytes, and new memory costs a page fault every 4 KiB: as much time as filling it. C
libraries differ in whether they keep freed memory, so a few buffers are kept here. A buffer is handed out
again when the last tensor over it is gone, which Python's reference count tells exactly.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MOST_BUFFERS = 4
"""Kept at a time: one being filled, one or two in use, one ahead."""

_SMALLEST = 1 << 16
"""Bytes below which the C library is fast enough."""

_CPU = torch.device("cpu")

_ALIGNMENT = 64
"""Bytes of a cache line: vector instructions that straddle two take half as long again."""

Bytes = NDArray[np.uint8]

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Gives an uninitialised tensor of a shape and a type, as ``torch.empty`` does."""


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor in page-locked memory, of which copies to a GPU run beside other work.

    torch keeps such memory, and gives it out again when no tensor over it is left and the copies from it that
    were asked for are done.
    """
    return torch.empty(shape, dtype=dtype, pin_memory=True)  # needs a GPU


def aligned(n_bytes: int) -> Bytes:
    """Return uninitialised memory that begins at a cache line; NumPy aligns to 16 bytes only."""
    room = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + n_bytes]


class BufferPool:
    """A few reusable buffers; safe to use from several threads, and empty after pickling."""

    def __init__(self) -> None:
        self._buffers: list[Bytes] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
        """Return an uninitialised tensor, as ``torch.empty`` does; a GPU's memory torch keeps itself.

        Its memory is its own for as long as the tensor, a view of it, or anything autograd saved exists.
        """
        count = 1
        for size in shape:
            count *= size
        n_bytes = count * dtype.itemsize
        if n_bytes < _SMALLEST or not _COUNTS_ARE_EXACT or device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        with self._lock:
            buffer = self._idle(n_bytes)
            if buffer is None:
                return torch.empty(shape, dtype=dtype)
            return torch.frombuffer(buffer, dtype=dtype, count=count).view(shape)

    def _idle(self, n_bytes: int) -> Bytes | None:
        """Return an unused buffer that is large enough, made if the pool has room."""
        for position, buffer in enumerate(self._buffers):
            if _references(buffer) == _UNUSED:
                if buffer.nbytes >= n_bytes:
                    return buffer
                # Too small for this batch: replaced, so that a pool grows to what the batches need.
                self._buffers[position] = buffer = aligned(n_bytes + n_bytes // 4)
                return buffer
        if len(self._buffers) == _MOST_BUFFERS:
            return None
        self._buffers.append(aligned(n_bytes + n_bytes // 4))
        return self._buffers[-1]


def _references(buffer: Bytes) -> int:
    return sys.getrefcount(buffer)


def _unused() -> int:
    """Return the count of a buffer that only a list and a loop refer to, as in :meth:`BufferPool._idle`."""
    buffers = [np.empty(1, np.uint8)]
    counts = []
    for _, buffer in enumerate(buffers):
        counts.append(_references(buffer))
    return counts[0]


_UNUSED = _unused()

_COUNTS_ARE_EXACT = getattr(sys, "_is_gil_enabled", lambda: True)()
"""False in interpreters without a global lock, which count references lazily."""
