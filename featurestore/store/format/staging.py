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

_COLUMNS_FIRST = 4
"""Values of a vector that are compared with a bound before all of them are."""

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
    """Cast a sentence's vectors to the codec's staging type, and check that the codec can hold them.

    Raises
    ------
    VectorError
        Naming the token, if a value is not finite, or the codec cannot hold it: too large for it, or so small
        that more of the token's vector is lost than the codec's rounding (``max_relative_l2``).
    """
    cast(out, vectors)
    if arrived(out, vectors, codec):
        return
    finite = np.isfinite(out)
    if finite.all():
        _refuse_lost(out, vectors, sentence, codec)
    place = tuple(np.argwhere(~finite)[0])
    where = f"token {place[0]} ({sentence[place[0]]!r}) of {excerpt(sentence)}"
    value = float(vectors[place])
    if not np.isfinite(value):
        raise VectorError(f"the encoder returned NaN or infinity for {where}; try --precision float32")
    raise VectorError(f"codec {codec.name} cannot hold {value:.6g} in {where}: use --codec float32 or int8")


def _refuse_lost(out: Array, vectors: NDArray[np.floating], sentence: Sentence, codec: Codec) -> None:
    """Raise VectorError for the token of which the codec loses most."""
    losses = relative_losses(out, vectors, codec)
    worst = np.unravel_index(int(losses.argmax()), losses.shape)
    norm = float(np.linalg.norm(vectors[worst].astype(np.float64)))
    layer = f", layer {worst[1]}," if len(worst) > 1 else ""
    better = "float32" if codec.name == "int8" else "float32 or int8"
    raise VectorError(
        f"codec {codec.name} cannot hold vectors as small as that of token {worst[0]} "
        f"({sentence[worst[0]]!r}){layer} of {excerpt(sentence)}: of its norm {norm:.3g}, "
        f"{float(losses[worst]):.2%} would be lost, {codec.max_relative_l2:.2%} at most is allowed. Use "
        f"--codec {better}"
    )


def relative_losses(staged: Array, vectors: NDArray[np.floating], codec: Codec) -> NDArray[np.float64]:
    """Return what casting loses of each token and layer: norm of the difference over norm of the vector.

    Parameters
    ----------
    staged : (n, dim) or (n, n_layers, dim)
        The vectors after the cast.
    vectors : of the same shape
    codec : Codec

    Returns
    -------
    (n,) or (n, n_layers) float64
        0 for a vector of zeros.
    """
    # Divided by the largest value first: the squares of very small values would underflow to 0.
    exact = vectors.astype(np.float64)
    largest = np.abs(exact).max(axis=-1, keepdims=True, initial=0)
    unit = np.where(largest > 0, largest, 1)
    kept = np.where(largest < codec.smallest, 0, staged.astype(np.float64))
    lost, whole = np.square((kept - exact) / unit).sum(axis=-1), np.square(exact / unit).sum(axis=-1)
    losses: NDArray[np.float64] = np.sqrt(lost / np.where(whole > 0, whole, 1))
    return losses


def stage_rows(out: Array, rows: NDArray[np.intp], vectors: NDArray[np.floating], codec: Codec) -> bool:
    """Cast tokens to the type of a draft and put each into its row, if the codec can hold them all.

    Parameters
    ----------
    out : (n_rows, ...) float16 or float32
    rows : (n,) intp
        Of each token, all different.
    vectors : (n, ...) float
    codec : Codec
        Of the draft.

    Returns
    -------
    bool
        False if :func:`stage` would refuse one of them. Some rows have been written then.
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
        if not arrived(staged, part, codec):
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


def arrived(staged: Array, vectors: NDArray[np.floating], codec: Codec) -> bool:
    """Return whether all values are finite after the cast, and none so small that too much of it is lost."""
    if not _all_finite(staged):
        return False
    # Of a value that is not subnormal, rounding loses at most a fixed share; of a subnormal one, at most a
    # fixed amount. So only a vector of small norm can lose more than the codec allows, and a vector with one
    # large value has no small norm.
    is_narrower = vectors.dtype.itemsize > staged.dtype.itemsize
    tiny = codec.tiny * staged.shape[-1] ** 0.5 if is_narrower else 0.0
    least = max(tiny, codec.smallest)
    if not least:
        return True
    small = _smaller_rows(staged, least)
    if not len(small):
        return True
    dim = staged.shape[-1]
    losses = relative_losses(staged.reshape(-1, dim)[small], vectors.reshape(-1, dim)[small], codec)
    return bool(losses.max() <= codec.max_relative_l2)


def _smaller_rows(values: Array, least: float) -> NDArray[np.intp]:
    """Return the numbers of the vectors (one per token and layer) whose absolute values are below a bound."""
    dim = values.shape[-1]
    # Floats without their sign are ordered like their bits read as integers, which NumPy compares faster.
    unsigned, sign = (np.uint16, 0x7FFF) if values.dtype == np.float16 else (np.uint32, 0x7FFFFFFF)
    bits = np.ascontiguousarray(values).view(unsigned).reshape(-1, dim)
    mask, bound = unsigned(sign), np.array(least, values.dtype).view(unsigned)[()]
    # One value shows of nearly every vector that it is not small; a few more show it of the rest.
    rows = np.flatnonzero((bits[:, 0] & mask) < bound)
    for column in range(0, dim, max(1, dim // _COLUMNS_FIRST)):
        if not len(rows):
            return rows
        rows = rows[(bits[rows, column] & mask) < bound]
    small: NDArray[np.intp] = rows[(bits[rows] & mask).max(axis=-1, initial=0) < bound]
    return small


def _all_finite(values: Array) -> bool:
    """Return whether all float16 or float32 values are finite; faster than ``np.isfinite(values).all()``."""
    if values.dtype == np.float16:
        # An exponent of ones is infinity or NaN. NumPy compares halves one by one, but integers many at once.
        exponents = values.view(np.uint16) & np.uint16(0x7C00)
        return bool(exponents.max(initial=0) < 0x7C00)
    # A comparison with NaN is false.
    return bool(values.min(initial=0) > -np.inf and values.max(initial=0) < np.inf)
