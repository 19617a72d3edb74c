"""Decoding stored values by torch, where no compiled gather does it, and memory that it uses again."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurestore.dataset.gathering.buffers import Bytes, aligned
from featurestore.store.format.codec import Array

CHUNK_BYTES = 512 << 10
"""Decoded bytes per chunk where decoding takes several steps: few enough to stay in a core's cache."""


def sentences_at_once(out: Tensor, *, int8: bool) -> int:
    """Return how many sentences of a padded batch are decoded per chunk; 0 if one alone is too large."""
    # int8 is decoded to float32 whatever it becomes.
    return CHUNK_BYTES // (out[0].numel() * (4 if int8 else out.dtype.itemsize))


def decode_int8(
    out: Tensor, values: Tensor, scales: Tensor, norms: Tensor, room: Tensor | None = None
) -> None:
    """Decode int8 values into a float tensor of their shape.

    Parameters
    ----------
    out, values : (..., n_tokens, dim) or (..., n_tokens, n_layers, dim)
    scales : (..., n_tokens) or (..., n_tokens, n_layers) float32
    norms : float32 of a shape that broadcasts to theirs
    room : float32 of their shape or of more sentences, optional
        Memory to use where ``out`` is not float32.
    """
    # Computed in float32: half precision cannot hold every product of a norm and a scale.
    if out.dtype == torch.float32:
        exact = out
    elif room is None:
        exact = torch.empty_like(out, dtype=torch.float32)
    else:
        exact = room[: len(out)]
    exact.copy_(values).mul_(scales.unsqueeze(-1)).mul_(norms)
    if exact is not out:
        out.copy_(exact)


def copy(out: Tensor, parts: Sequence[Array]) -> None:
    """Write float rows into a tensor end to end, cast to its type; their total is the tensor's row count."""
    if out.dtype in (torch.float32, torch.float16) and {part.dtype for part in parts} == {out.numpy().dtype}:
        np.concatenate(parts, out=out.numpy())
    else:
        # Straight from the mapped file: an intermediate copy costs as much as the cast.
        targets = out.split_with_sizes(list(map(len, parts)))
        torch._foreach_copy_(list(targets), list(map(torch.from_numpy, parts)))


class Scratch(threading.local):
    """Memory that a thread reuses for every chunk."""

    def __init__(self) -> None:
        self._rooms: dict[np.dtype[Any], Bytes] = {}
        self._zeros = aligned(0)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an uninitialised array, in the memory of the last one of this type."""
        n_bytes = math.prod(shape) * dtype.itemsize
        room = self._rooms.get(dtype)
        if room is None or len(room) < n_bytes:
            room = self._rooms[dtype] = aligned(n_bytes)
        return room[:n_bytes].view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array of zeros, not to be written to."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if len(self._zeros) < n_bytes:
            self._zeros = aligned(n_bytes)
            self._zeros[:] = 0
        return self._zeros[:n_bytes].view(dtype).reshape(shape)


# Nothing here writes to tensors over mapped files, so the warning is not needed. torch gives it once per
# process, for the first read-only array: this one.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.from_numpy(np.frombuffer(b"\0", np.uint8))
