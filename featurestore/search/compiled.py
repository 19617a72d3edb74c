"""The compiled scan: a query times rows as they are stored, where installing found a C compiler."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.native import load_library, switched_off

_VERSION = 1
"""Version of the functions in scan.c."""

_TYPES = {np.dtype("<f4"): 0, np.dtype("<f2"): 1, np.dtype("i1"): 2}
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64

_BLOCK_BYTES = 1 << 22
"""Bytes that NumPy turns into float32 at a time."""


def scan(
    values: NDArray[np.generic],
    norms: NDArray[np.float32] | None,
    query: NDArray[np.float32],
    dots: NDArray[np.float32],
    squares: NDArray[np.float32],
) -> None:
    """Multiply every row with a query, and with itself.

    Parameters
    ----------
    values : (n, dim) float32, float16 or int8
        As stored; the numbers of a row lie together.
    norms : (dim,) float32, optional
        A factor for each dimension, as the codec int8 keeps them; rows are multiplied with it first.
    query : (dim,) float32
    dots, squares : (n,) float32
        Filled with each row's product with the query, and with itself.
    """
    library = None if switched_off() else _library()
    if library is None:
        _scan(values, norms, query, dots, squares)
        return
    weights = None if norms is None else np.ascontiguousarray(norms, np.float32)
    query = np.ascontiguousarray(query, np.float32)
    library.featurestore_scan(
        values.ctypes.data, _TYPES[values.dtype], len(values), values.strides[0], values.shape[1],
        None if weights is None else weights.ctypes.data, query.ctypes.data, dots.ctypes.data,
        squares.ctypes.data,
    )  # fmt: skip


def _scan(
    values: NDArray[np.generic],
    norms: NDArray[np.float32] | None,
    query: NDArray[np.float32],
    dots: NDArray[np.float32],
    squares: NDArray[np.float32],
) -> None:
    step = max(1, _BLOCK_BYTES // (4 * len(query)))
    for start in range(0, len(values), step):
        block = slice(start, start + step)
        rows = values[block].astype(np.float32)
        if norms is not None:
            rows *= norms
        np.matmul(rows, query, out=dots[block])
        np.einsum("nd,nd->n", rows, rows, out=squares[block])


@functools.cache
def _library() -> ctypes.CDLL | None:
    takes = (_POINTER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _POINTER, _POINTER, _POINTER, _POINTER)
    return load_library(
        Path(__file__).parent, "_scan", prefix="featurestore_scan", version=_VERSION,
        instead="NumPy searches stores", functions={"featurestore_scan": (ctypes.c_int, *takes)},
    )  # fmt: skip
