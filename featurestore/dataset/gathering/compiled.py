"""The compiled gather: a batch out of mapped memory in one call, where installing found a C compiler.

It is optional: without it, or on a processor that ``gather.c`` has no code for, torch gives the same values,
bit for bit, in more steps.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.native import load_library, switched_off

_VERSION = 3
"""Version of the functions in gather.c."""

_TYPES = {np.dtype("<f4"): 0, np.dtype("<f2"): 1, np.dtype("i1"): 2}
_OUT_TYPES = {torch.float32: 0, torch.float16: 1}

Integers = Sequence[int] | NDArray[np.integer]

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class CompiledGather:
    """Shards open for the compiled gather; :func:`compiled_gather` makes one.

    Parameters
    ----------
    library : CDLL
    n_shards : int
    vector_shape : tuple of int
        Of a token: ``(dim,)`` or ``(n_layers, dim)``.

    Attributes
    ----------
    n_numbers : int
        In the vectors of a token.
    """

    def __init__(self, library: ctypes.CDLL, n_shards: int, vector_shape: tuple[int, ...]) -> None:
        self.function = library.featurestore_gather
        self.shape = (1, *vector_shape)[-2:]
        self.n_numbers = self.shape[0] * self.shape[1]
        # A row is a Shard of gather.c: six addresses, the number of sentences, and a type.
        self.table = np.zeros((n_shards, 8), np.int64)
        self.address: int = self.table.ctypes.data
        self._held: list[Any] = [None] * n_shards

    def open(
        self,
        shard: int,
        values: NDArray[Any],
        offsets: NDArray[np.uint64],
        *,
        verified: bytearray | None = None,
        checksums: NDArray[np.uint64] | None = None,
        scales: NDArray[Any] | None = None,
        norms: NDArray[Any] | None = None,
    ) -> None:
        """Register the arrays of a shard, which must not be resized.

        Parameters
        ----------
        shard : int
            Its number.
        values : (n_tokens, dim) or (n_tokens, n_layers, dim) float32, float16 or int8
        offsets : (n_sentences + 1,) uint64
            Where each sentence begins, then where the last one ends.
        verified : bytearray, optional
            For each sentence, whether its checksum need not be compared; written to when one was. By default
            none need be.
        checksums : (n_sentences,) uint64, optional
            The XXH3-64 of each sentence's values, then its scales; with ``verified``.
        scales, norms : float32, optional
            Of int8 values.
        """
        flags = None if verified is None else np.frombuffer(verified, np.uint8)
        arrays = values, offsets, flags, checksums, scales, norms
        self._held[shard] = arrays
        addresses = [0 if array is None else array.ctypes.data for array in arrays]
        self.table[shard] = [*addresses, len(offsets) - 1, _TYPES[values.dtype]]


class Source(NamedTuple):
    """What fills a part of every row of a batch.

    ``shards``, ``rows`` (batch,): of each sentence; a shard of -1 gives zeros. ``offset``: where the
    part begins in a row of the batch, in numbers.
    """

    compiled: CompiledGather
    shards: Integers
    rows: Integers
    offset: int = 0


def takes(out: Tensor, n_numbers: int) -> bool:
    """Return whether rows of ``n_numbers`` numbers can be gathered into a tensor."""
    return out.device.type == "cpu" and out.dtype in _OUT_TYPES and _row_stride(out, n_numbers) is not None


def gather_together(
    sources: Sequence[Source],
    out: Tensor,
    lengths: Integers,
    *,
    longest: int = -1,
    into: NDArray[np.int64] | None = None,
    verify: bool = False,
) -> bool:
    """Decode sentences into a tensor, each source into its part of every row, in one call.

    Parameters
    ----------
    sources : sequence of Source
    out : (n_tokens, ...) or (batch, longest, ...) float
        Whose rows end with the last part. Contiguous, or a slice of what is: the rest of its rows is left
        alone.
    lengths : (batch,) int64
        Of each sentence.
    longest : int
        Rows of a padded sentence; -1 lays the sentences end to end.
    into : (n_tokens,) int64, optional
        The row of each token, where sentences that are not padded do not lie end to end; all different.
    verify : bool
        Compare the checksum of each sentence that is not verified, before it is decoded. The files of their
        shards must be as long as when they were mapped.

    Returns
    -------
    bool
        False if a sentence cannot be read as it is: its shard is not open, it is not verified, it has another
        length or checksum, or there is no such sentence. What was written then is of no use.
    """
    n_numbers = sources[-1].offset + sources[-1].compiled.n_numbers
    stride = _row_stride(out, n_numbers)
    n_rows = len(lengths) * longest if longest >= 0 else out.numel() // n_numbers
    if stride is None or n_rows * n_numbers != out.numel() or (into is not None and len(into) != n_rows):
        return False
    # Lengths, then shards and rows of each source, in one array: asking for an address takes a microsecond.
    numbers = np.empty((1 + 2 * len(sources), len(lengths)), np.int64)
    numbers[0] = lengths
    address, n_bytes = torch.from_numpy(numbers).data_ptr(), 8 * len(lengths)
    # A row is a Source of gather.c.
    table: list[int] = []
    for number, (compiled, shards, rows, offset) in enumerate(sources):
        at = 1 + 2 * number
        numbers[at], numbers[at + 1] = shards, rows
        addresses = address + at * n_bytes, address + (at + 1) * n_bytes
        table += [compiled.address, len(compiled.table), *addresses, *compiled.shape, offset]
    failed: int = sources[0].compiled.function(
        (_NUMBER * len(table))(*table),
        len(sources),
        address,
        len(lengths),
        longest,
        None if into is None else into.ctypes.data,
        n_rows,
        _OUT_TYPES[out.dtype],
        out.data_ptr(),
        stride,
        verify,
    )
    return failed < 0


def _row_stride(out: Tensor, n_numbers: int) -> int | None:
    """Return by how many numbers the rows of a tensor lie apart, None if a row is in pieces."""
    if out.is_contiguous():
        return n_numbers
    try:
        stride, inner = out.view(-1, n_numbers).stride()
    except RuntimeError:  # no such view
        return None
    return stride if stride >= n_numbers and inner == 1 else None


def compiled_gather(n_shards: int, vector_shape: tuple[int, ...]) -> CompiledGather | None:
    """Return a compiled gather with no shard open, or None where there is none or it is switched off."""
    library = None if switched_off() else _library()
    return None if library is None else CompiledGather(library, n_shards, vector_shape)


@functools.cache
def _library() -> ctypes.CDLL | None:
    # gather.c names what it takes.
    takes = [
        _POINTER, _NUMBER, _POINTER, _NUMBER, _NUMBER, _POINTER, _NUMBER, ctypes.c_int, _POINTER, _NUMBER,
        ctypes.c_int,
    ]  # fmt: skip
    return load_library(
        Path(__file__).parent, "_gather", prefix="featurestore", version=_VERSION,
        instead="torch gathers batches", functions={"featurestore_gather": (_NUMBER, *takes)},
    )  # fmt: skip
