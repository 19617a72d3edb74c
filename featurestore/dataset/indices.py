"""Indices of examples: an integer or a sequence of integers; nothing is rounded or guessed."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.errors import UsageError

Part = slice | NDArray[np.int64]
"""Some of the examples: their positions, or a slice."""

EVERYTHING = slice(None)


def position_of(index: Any, size: int) -> int:
    """Return an index counted from the start.

    Parameters
    ----------
    index : int
        Or an integer of NumPy or torch; from the end if it is negative.
    size : int
        Of what it points into.

    Raises
    ------
    IndexError
        If it lies outside.
    UsageError
        If it is no integer.
    """
    try:
        number = None if _is_truth(index) else operator.index(index)
    except TypeError:
        number = None
    if number is None:
        raise UsageError(
            f"an example is found by one integer, not by {_shown(index)}: gather(positions) reads several as "
            "a batch, torch.utils.data.Subset(dataset, positions) is a part of the dataset"
        )
    if not -size <= number < size:
        raise IndexError(f"example {number} of {size}")
    return number % size


def positions_of(indices: Any, size: int) -> NDArray[np.int64]:
    """Return indices counted from the start, as a new (n,) int64 array.

    Parameters
    ----------
    indices : sequence of int, or (n,) integers of NumPy or torch
    size : int
        Of what they point into.

    Raises
    ------
    IndexError
        If one lies outside.
    UsageError
        If they are no integers, or in no row.
    """
    try:
        given = np.array(indices.detach().cpu().numpy() if isinstance(indices, Tensor) else indices)
    except (ValueError, TypeError):
        given = np.array(None)
    if given.ndim == 1 and not given.size:
        return np.empty(0, np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        remedy = "; a mask becomes positions by numpy.flatnonzero(mask)" if given.dtype.kind == "b" else ""
        raise UsageError(
            f"a batch is found by the positions of its examples, integers in a row, not by {_shown(indices)}"
            f"{remedy}"
        )
    at = given.astype(np.int64, copy=False)
    if (at.view(np.uint64) < size).all():  # as unsigned numbers, negative ones are huge
        return at
    beyond = (at < -size) | (at >= size)
    if beyond.any():
        raise IndexError(f"example {int(at[beyond][0])} of {size}")
    at[at < 0] += size
    return at


def _is_truth(index: Any) -> bool:
    return isinstance(index, bool) or getattr(index, "dtype", None) == torch.bool


def _shown(given: Any) -> str:
    return f"{' '.join(repr(given).split()):.60} ({type(given).__name__})"
