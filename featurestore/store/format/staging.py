"""Staging: how vectors wait for their shard: cast, checked to be finite, in memory that is used again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import VectorError
from featurestore.keys import Sentence
from featurestore.store.format.casting import cast
from featurestore.store.format.codec import Array, Codec

_MEASURED_TOKENS = 1024
"""Least number of tokens whose codec error is measured, evenly spread; all tokens of a smaller shard."""

Sample = tuple[NDArray[np.intp], NDArray[np.floating]]
"""Rows of a sentence, and the encoder's vectors of them."""

_NO_ROWS = np.empty(0, np.intp)

_VALUES_AT_A_TIME = 1 << 18
"""Values cast before they are copied to their rows: few enough to stay in a processor's cache."""


class StagingMemory:
    """Memory for one draft after another: reusing it is faster than writing to new memory.

    Parameters
    ----------
    n_bytes : int
        Size of a full draft. Larger ones get memory of their own, which is not kept.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._free: list[NDArray[np.uint8]] = []

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return at least ``n_bytes`` bytes, whatever is in them; may be called in any thread."""
        if n_bytes > self._n_bytes:
            return np.empty(n_bytes, np.uint8)
        try:
            return self._free.pop()
        except IndexError:
            return np.empty(self._n_bytes, np.uint8)

    def give_back(self, memory: NDArray[np.uint8]) -> None:
        """Give back what :meth:`take` returned, for the next draft."""
        if len(memory) == self._n_bytes:
            self._free.append(memory)


def stage(out: Array, vectors: NDArray[np.floating], sentence: Sentence, codec: Codec) -> None:
    """Cast a sentence's vectors to the codec's staging type, checking that all stay finite.

    Raises
    ------
    StoreError
        Naming the token, if a value is not finite or the codec cannot hold it.
    """
    cast(out, vectors)
    if _all_finite(out):
        return
    place = tuple(np.argwhere(~np.isfinite(out))[0])
    where = f"token {place[0]} ({sentence[place[0]]!r}) of {excerpt(sentence)}"
    value = float(vectors[place])
    if not np.isfinite(value):
        raise VectorError(f"the encoder returned NaN or infinity for {where}; try --precision float32")
    raise VectorError(f"codec {codec.name} cannot hold {value:.6g} in {where}: use --codec float32 or int8")


def stage_rows(out: Array, rows: NDArray[np.intp], vectors: NDArray[np.floating]) -> bool:
    """Cast tokens to the type of a draft and put each into its row, if all stay finite.

    Parameters
    ----------
    out : (n_rows, ...) float16 or float32
    rows : (n,) intp
        Of each token, all different.
    vectors : (n, ...) float

    Returns
    -------
    bool
        False if a value is not finite once it is cast. Some rows have been written then.
    """
    step = max(1, _VALUES_AT_A_TIME // max(1, out[:1].size))
    room = np.empty((min(step, len(rows)), *out.shape[1:]), out.dtype)
    for start in range(0, len(rows), step):
        part = vectors[start : start + step]
        if part.dtype != out.dtype:
            staged = room[: len(part)]
            cast(staged, part)
        else:
            staged = part
        if not _all_finite(staged):
            return False
        out[rows[start : start + step]] = staged
    return True


def sample(start: int, vectors: NDArray[np.floating], n_tokens: int) -> Sample:
    """Take the rows of a sentence on which its shard's codec error is measured.

    Parameters
    ----------
    start : int
        Tokens before it in the shard.
    vectors : (n, dim) or (n, n_layers, dim) float
    n_tokens : int
        Of the shard, as far as known. The rows taken with a larger number are a subset of those taken with a
        smaller one.
    """
    stride = sampling_stride(n_tokens)
    first = -start % stride
    if first >= len(vectors):
        return _NO_ROWS, vectors[:0]
    return np.arange(first, len(vectors), stride), vectors[first::stride].copy()


def sampling_stride(n_tokens: int) -> int:
    """Return n, a power of two: every n-th token of a shard of this size is kept to measure codec error."""
    return 1 << max(0, (n_tokens // _MEASURED_TOKENS).bit_length() - 1)


def excerpt(sentence: Sentence) -> str:
    """Return the beginning of a sentence, to name it in an error."""
    return repr(" ".join(sentence[:8])) + (f" ... ({len(sentence)} tokens)" if len(sentence) > 8 else "")


def _all_finite(values: Array) -> bool:
    """Return whether all float16 or float32 values are finite; faster than ``np.isfinite(values).all()``."""
    if values.dtype == np.float16:
        # An exponent of ones is infinity or NaN. NumPy compares halves one by one, but integers many at once.
        exponents = values.view(np.uint16) & np.uint16(0x7C00)
        return bool(exponents.max(initial=0) < 0x7C00)
    # A comparison with NaN is false.
    return bool(values.min(initial=0) > -np.inf and values.max(initial=0) < np.inf)
