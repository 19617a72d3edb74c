"""The layout of a shard: where each dataset is in the file, as manifests state it and HDF5 confirms it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore import limits
from featurestore.keys import KEY_BYTES
from featurestore.recipe import canonical_json
from featurestore.store.format.codec import Array, CodecError, get_codec

FORMAT_VERSION = 1
ALIGNMENT = 4096
NAME_DIGITS = 32

STRUCTURE = ("offsets", "keys", "checksums", "token_offsets", "tokens")
"""Datasets every shard has beside ``values``; int8 adds ``scales`` and ``norms``."""

CONDITIONS = ("condition_offsets", "conditions")
"""Datasets of a shard with a conditioned sentence: a shard has both, or neither."""


@dataclass(frozen=True)
class Extent:
    """Where a dataset's bytes lie in a shard: contiguous, little-endian, unfiltered.

    Attributes
    ----------
    offset : int
        Byte offset in the file.
    dtype : str
        NumPy type string, such as ``<f2``.
    shape : tuple of int
    """

    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes the dataset occupies."""
        return math.prod(self.shape, start=np.dtype(self.dtype).itemsize)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of one token's vectors, where the dataset is ``values``."""
        return math.prod(self.shape[1:], start=np.dtype(self.dtype).itemsize)

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return the byte offset of some rows in the file, and their bytes."""
        return self.offset + start * self.row_bytes, (stop - start) * self.row_bytes


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest lists it.

    Attributes
    ----------
    sha256 : str
        Of the whole file; its first 32 digits name it.
    head_sha256 : str
        Of everything before ``/values``: what a reader checks when it opens the shard.
    n_bytes, n_sentences, n_tokens : int
    codec : str
    error : CodecError
        Measured when the shard was written.
    extents : mapping of str to Extent
        Where each dataset lies.
    """

    sha256: str
    head_sha256: str
    n_bytes: int
    n_sentences: int
    n_tokens: int
    codec: str
    error: CodecError
    extents: Mapping[str, Extent]

    @property
    def name(self) -> str:
        """File name in ``shards/``: hexadecimal digits, so never a path."""
        return f"{self.sha256[:NAME_DIGITS]}.h5"

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of a token's vectors: ``(dim,)``, or ``(n_layers, dim)``."""
        return self.extents["values"].shape[1:]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as a manifest states it."""
        return {
            "sha256": self.sha256,
            "head_sha256": self.head_sha256,
            "n_bytes": self.n_bytes,
            "n_sentences": self.n_sentences,
            "n_tokens": self.n_tokens,
            "codec": self.codec,
            "error": asdict(self.error),
            "extents": {name: [e.offset, e.dtype, *e.shape] for name, e in sorted(self.extents.items())},
        }

    @cached_property
    def texts(self) -> tuple[bytes, bytes]:
        """The entry as canonical JSON and as a manifest shows it; made once, as every commit writes all."""
        body = self.to_dict()
        return canonical_json(body), "\n  ".join(json.dumps(body, indent=1).split("\n")).encode()


@dataclass(frozen=True)
class CanaryEntry:
    """A store's canaries as the manifest names them: see :mod:`featurestore.store.canaries`.

    Attributes
    ----------
    shard : ShardEntry
        Their file in ``canaries/``, a shard of codec float32.
    tolerance : float
        Relative L2 by which a sentence may differ when it is encoded again.
    made_with : str
        Software and device that encoded them; for people.
    """

    shard: ShardEntry
    tolerance: float
    made_with: str = ""

    @property
    def name(self) -> str:
        """File name in ``canaries/``."""
        return self.shard.name


def datasets_of(
    n_sentences: int,
    n_tokens: int,
    codec: str,
    token_shape: tuple[int, ...],
    token_bytes: int,
    condition_bytes: int | None,
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and shape of each dataset of a shard, by name; None bytes if it has no conditions."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "offsets": ("<u8", (n_sentences + 1,)),
        "keys": ("|u1", (n_sentences, KEY_BYTES)),
        "checksums": ("<u8", (n_sentences,)),
        "token_offsets": ("<u8", (n_tokens + 1,)),
        "tokens": ("|u1", (token_bytes,)),
        "values": (get_codec(codec).value_dtype.str, (n_tokens, *token_shape)),
    }
    if codec == "int8":
        found["scales"] = ("<f4", (n_tokens, *token_shape[:-1]))
        found["norms"] = ("<f4", token_shape)
    if condition_bytes is not None:
        found["condition_offsets"] = ("<u8", (n_sentences + 1,))
        found["conditions"] = ("|u1", (condition_bytes,))
    return found


def check_extents(
    extents: Mapping[str, Extent], n_sentences: int, n_tokens: int, n_bytes: int, codec: str
) -> str:
    """Return what is wrong with a shard's extents as a manifest states them, or an empty string."""
    values = extents.get("values")
    if values is None or len(values.shape) not in (2, 3):
        return "no values of two or three dimensions"
    if n_sentences < 1 or not 1 <= values.shape[-1] <= limits.MAX_DIM:
        return f"{n_sentences:,} sentences of vectors of {values.shape[-1]:,} values"
    if len(values.shape) == 3 and not 1 <= values.shape[1] <= limits.MAX_LAYERS:
        return f"{values.shape[1]:,} layers"
    # As many bytes as the manifest says, in one dimension; the reader compares the offsets with that.
    texts = [extents[name].n_bytes if name in extents else 0 for name in ("tokens", "conditions")]
    has_conditions = any(name in extents for name in CONDITIONS)
    expected = datasets_of(
        n_sentences, n_tokens, codec, values.shape[1:], texts[0], texts[1] if has_conditions else None
    )
    if set(extents) != set(expected):
        return f"datasets {sorted(extents)}, expected {sorted(expected)}"
    for name, (dtype, shape) in expected.items():
        extent = extents[name]
        if (extent.dtype, extent.shape) != (dtype, shape):
            return f"/{name} is {extent.dtype} {extent.shape}, expected {dtype} {shape}"
        if min(extent.shape, default=0) < 0 or extent.offset < 0 or extent.offset + extent.n_bytes > n_bytes:
            return f"/{name} lies outside the file"
        if name != "values" and extent.offset + extent.n_bytes > values.offset:
            return f"/{name} lies after the values"
    ordered = sorted(
        (extent.offset, extent.offset + extent.n_bytes, name) for name, extent in extents.items()
    )
    for (_, end, name), (start, _, other) in itertools.pairwise(ordered):
        if start < end:
            return f"/{name} and /{other} overlap"
    if values.offset > limits.MAX_HEAD_BYTES:
        return f"a head of {values.offset:,} bytes, over the bound of {limits.MAX_HEAD_BYTES:,}"
    if values.offset % ALIGNMENT:
        return f"the values begin at byte {values.offset:,}, not at a multiple of {ALIGNMENT}"
    if "conditions" in extents and not extents["conditions"].n_bytes:
        return "/conditions is empty: a shard without conditions has no such dataset"
    if values.offset + values.n_bytes != n_bytes:
        return "the values do not end the file"
    return ""


def checksums(offsets: NDArray[np.uint64], values: Array, scales: Array | None) -> NDArray[np.uint64]:
    """Return the XXH3-64 of each sentence's stored bytes, rows of values then scales; (n,) uint64."""
    result = np.empty(len(offsets) - 1, "<u8")
    bounds = offsets.tolist()
    for i in range(len(bounds) - 1):
        result[i] = checksum(
            values[bounds[i] : bounds[i + 1]], None if scales is None else scales[bounds[i] : bounds[i + 1]]
        )
    return result


def checksum(values: Array, scales: Array | None) -> int:
    """Return the XXH3-64 of one sentence's stored bytes."""
    if scales is None:
        return xxhash.xxh3_64_intdigest(values.data)
    digest = xxhash.xxh3_64(values.data)
    digest.update(np.ascontiguousarray(scales).data)
    return digest.intdigest()
