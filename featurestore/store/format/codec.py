"""Codecs: how a vector is stored, and what that costs in accuracy.

``float32`` keeps the encoder's output, ``float16`` halves its bytes, ``int8`` quarters them. A codec is never
part of the recipe: it changes how exactly a vector is stored, not which vector it is. The loss is measured on
every shard and written into the manifest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UsageError

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

_BLOCK_VALUES = 1 << 16
"""Values worked on at a time: few enough to stay in a processor's cache."""


class Codec(ABC):
    """How the vectors of a shard are stored and read back.

    Attributes
    ----------
    name : str
        As the manifest and the shard write it.
    value_dtype : numpy.dtype
        Little-endian type of ``/values``.
    staging_dtype : numpy.dtype
        Type in which vectors wait until their shard is complete.
    max_relative_l2 : float
        What casting to the staging type may lose of a token's vector: norm of the difference over its norm.
    tiny : float
        Smallest positive normal number of the staging type: of smaller values the cast loses more.
    smallest : float
        Vectors whose values are all smaller are stored as zeros, whatever the staging type holds.
    """

    name: str
    value_dtype: np.dtype[np.generic]
    staging_dtype: np.dtype[np.generic]
    max_relative_l2: float
    tiny: float
    smallest: float = 0.0

    @abstractmethod
    def seal(self, staged: Array) -> dict[str, Array]:
        """Turn a shard's staged vectors into its datasets.

        Parameters
        ----------
        staged : (n_tokens, dim) or (n_tokens, n_layers, dim) staging_dtype

        Returns
        -------
        dict
            ``values`` and, where the codec needs them, ``scales`` and ``norms``.
        """

    @abstractmethod
    def decode_into(self, out: Floats, values: Array, scales: Array | None, norms: Array | None) -> None:
        """Write stored rows into a float array of the same shape."""

    def bytes_per_token(self, n_layers: int, dim: int) -> int:
        """Return the payload bytes of one token."""
        return n_layers * dim * self.value_dtype.itemsize


class FloatCodec(Codec):
    """IEEE floats as they are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.value_dtype = self.staging_dtype = np.dtype(name).newbyteorder("<")
        # Rounding to nearest: half the distance from one float to the next, of each value that is not
        # subnormal.
        limits = np.finfo(np.float16 if name == "float16" else np.float32)
        self.max_relative_l2, self.tiny = float(limits.eps) / 2, float(limits.tiny)

    def seal(self, staged: Array) -> dict[str, Array]:
        """Return the staged vectors themselves."""
        return {"values": staged}

    def decode_into(self, out: Floats, values: Array, scales: Array | None, norms: Array | None) -> None:
        """Cast rows into ``out``."""
        out[...] = values


class Int8Codec(Codec):
    """One byte a value: divided by its dimension's norm, then scaled so that the token's largest is 127.

    ELMo's dimensions differ in size by orders of magnitude, so that a scale per token alone would lose the
    small ones; dividing by the root mean square of each dimension over the shard (``norms``) evens them out.
    ``value = q * scales[token] * norms[dimension]``.
    """

    name = "int8"
    value_dtype = np.dtype("i1")
    staging_dtype = np.dtype("<f4")
    max_relative_l2, tiny = float(np.finfo(np.float32).eps) / 2, float(np.finfo(np.float32).tiny)
    smallest = 2.0**-100

    def seal(self, staged: Array) -> dict[str, Array]:
        """Quantise a shard; float32 ``scales`` are (n_tokens[, n_layers]), ``norms`` ([n_layers,] dim)."""
        vectors = staged.astype(np.float32, copy=False)
        values = np.empty(vectors.shape, np.int8)
        scales = np.empty(vectors.shape[:-1], "<f4")
        step = max(1, _BLOCK_VALUES // max(1, vectors[:1].size))
        blocks = [slice(start, start + step) for start in range(0, len(vectors), step)]
        squares = np.zeros(vectors.shape[1:])
        for block in blocks:
            squares += np.square(vectors[block], dtype=np.float64).sum(axis=0)
        norms = np.sqrt(squares / max(1, len(vectors))).astype("<f4")
        norms[norms == 0] = 1
        for block in blocks:
            even = vectors[block] / norms
            scale = np.maximum(even.max(axis=-1), -even.min(axis=-1)) / np.float32(127)
            # A subnormal scale is too coarse for the quotients to fit a byte: such tokens become 0.
            scale[scale < np.finfo(np.float32).tiny] = 1
            scales[block] = scale
            even /= scale[..., None]
            values[block] = np.rint(even, out=even)
        return {"values": values, "scales": scales, "norms": norms}

    def decode_into(self, out: Floats, values: Array, scales: Array | None, norms: Array | None) -> None:
        """Multiply rows by their scales and norms into ``out``."""
        if scales is None or norms is None:
            raise UsageError("int8 vectors need their scales and norms")
        np.multiply(values, scales[..., None], out=out, casting="unsafe")
        np.multiply(out, norms, out=out)

    def bytes_per_token(self, n_layers: int, dim: int) -> int:
        """Return the payload bytes of one token, its scales included."""
        return n_layers * (dim + 4)


CODECS: dict[str, Codec] = {
    "float32": FloatCodec("float32"),
    "float16": FloatCodec("float16"),
    "int8": Int8Codec(),
}
DEFAULT_CODEC = "float16"


def get_codec(name: str) -> Codec:
    """Return a codec by name.

    Raises
    ------
    UsageError
        If there is no such codec.
    """
    if name not in CODECS:
        raise UsageError(f"unknown codec {name!r}: expected one of {', '.join(CODECS)}")
    return CODECS[name]


@dataclass(frozen=True)
class CodecError:
    """What a codec lost, measured on a sample of a shard's tokens against the encoder's own output.

    Attributes
    ----------
    n_tokens : int
        Tokens measured.
    squared_error, squared_norm : float
        Sums over them; kept apart so that shards can be added up.
    max_abs : float
        Largest absolute difference of any value.
    cosine_distance : float
        Mean of ``1 - cosine`` over the tokens (and layers).
    """

    n_tokens: int = 0
    squared_error: float = 0.0
    squared_norm: float = 0.0
    max_abs: float = 0.0
    cosine_distance: float = 0.0

    @property
    def relative_l2(self) -> float:
        """Norm of the difference over norm of the original."""
        return float(np.sqrt(self.squared_error / self.squared_norm)) if self.squared_norm else 0.0

    def __add__(self, other: CodecError) -> CodecError:
        n_tokens = self.n_tokens + other.n_tokens
        weighted = self.cosine_distance * self.n_tokens + other.cosine_distance * other.n_tokens
        return CodecError(
            n_tokens,
            self.squared_error + other.squared_error,
            self.squared_norm + other.squared_norm,
            max(self.max_abs, other.max_abs),
            weighted / n_tokens if n_tokens else 0.0,
        )


def measure_error(original: Floats, decoded: Floats) -> CodecError:
    """Compare decoded vectors with the original ones, both (n_tokens, ..., dim) float32."""
    step = max(1, _BLOCK_VALUES // max(1, original[:1].size))
    blocks = range(0, len(original), step)
    return sum(
        (_measured(original[start : start + step], decoded[start : start + step]) for start in blocks),
        CodecError(),
    )


def _measured(original: Floats, decoded: Floats) -> CodecError:
    a, b = original.astype(np.float64), decoded.astype(np.float64)
    squares = np.sum(a * a, axis=-1), np.sum(b * b, axis=-1)
    lengths = np.sqrt(squares[0] * squares[1])
    cosine = np.divide(np.sum(a * b, axis=-1), lengths, out=np.ones_like(lengths), where=lengths > 0)
    difference = a - b
    return CodecError(
        len(original),
        float(np.sum(difference * difference)),
        float(np.sum(squares[0])),
        float(np.max(np.abs(difference))),
        float(np.mean(1 - cosine).clip(min=0)),
    )
