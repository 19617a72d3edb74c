"""The compiled lookup: keys found in mapped runs in one call, where installing found a C compiler.

It is optional: without it NumPy gives the same answers and finds the same damage, in more steps for each run.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.native import load_library, switched_off
from featurestore.store.index.filerows import DamagedIndexError
from featurestore.store.index.run import (
    BUCKET_DAMAGED,
    OTHER_SHARD,
    OUTSIDE_SHARD,
    TABLE_DAMAGED,
    IndexRun,
)

_VERSION = 1
"""Version of the functions in lookup.c."""

_PROBLEMS = {1: TABLE_DAMAGED, 2: BUCKET_DAMAGED, 3: OTHER_SHARD, 4: OUTSIDE_SHARD}

_MOST_IN_BUCKET = 256
"""Keys of a bucket up to which it is read once for each key: with keys that are hashes none has thirty."""

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class CompiledLookup:
    """Runs open for the compiled lookup; :func:`compiled_lookup` makes one.

    Parameters
    ----------
    library : CDLL
    runs : sequence of IndexRun
        With arrays in memory, or mapped.
    """

    def __init__(self, library: ctypes.CDLL, runs: Sequence[IndexRun]) -> None:
        self._function = library.featurestore_index_locate
        self._runs = runs
        self._sizes = runs[0].sizes
        self._held = [tuple(map(np.ascontiguousarray, run.arrays or ())) for run in runs]
        # A row is a Run of lookup.c.
        self._table = np.array(
            [
                (table.ctypes.data, records.ctypes.data, len(run), run.bits, run.largest, run.first, run.stop)
                for run, (table, records) in zip(runs, self._held, strict=True)
            ],
            np.uint64,
        )
        self._address: int = self._table.ctypes.data
        self._sizes_address: int | None = None if self._sizes is None else self._sizes.ctypes.data

    def locate(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return shard and row of (n, 16) uint8 keys, -1 where they are missing; (2, n) int64.

        Raises
        ------
        DamagedIndexError
        """
        for run in self._runs:
            run.require_whole()
        n = len(keys)
        found = np.empty((2, n), np.int64)
        address = found.ctypes.data
        wrong = self._function(
            self._address, len(self._runs), self._sizes_address, keys.tobytes(), n, address, address + 8 * n
        )
        if wrong:
            raise DamagedIndexError(_PROBLEMS[wrong])
        return found


def compiled_lookup(runs: Sequence[IndexRun]) -> CompiledLookup | None:
    """Return the compiled lookup in some runs, None where there is none or it does not suit them."""
    suits = runs and all(run.arrays is not None and run.largest <= _MOST_IN_BUCKET for run in runs)
    library = _library() if suits and not switched_off() else None
    return None if library is None else CompiledLookup(library, runs)


@functools.cache
def _library() -> ctypes.CDLL | None:
    takes = (_POINTER, _NUMBER, _POINTER, ctypes.c_char_p, _NUMBER, _POINTER, _POINTER)
    return load_library(
        Path(__file__).parent, "_lookup", prefix="featurestore_index", version=_VERSION,
        instead="NumPy finds keys in indexes",
        functions={"featurestore_index_locate": (ctypes.c_int, *takes)},
    )  # fmt: skip
