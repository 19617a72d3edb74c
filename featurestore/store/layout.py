"""The layout of a shard: where each dataset lies in the file, as manifests state it and HDF5 confirms it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featurestore.errors import DamagedStoreError, UsageError
from featurestore.keys import KEY_BYTES
from featurestore.store.codec import CodecError, get_codec

FORMAT_VERSION = 1
ALIGNMENT = 4096
NAME_DIGITS = 32

STRUCTURE = ("offsets", "keys", "checksums", "token_offsets", "tokens")
"""Datasets every shard has beside ``values``; int8 adds ``scales`` and ``norms``."""


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
        n = np.dtype(self.dtype).itemsize
        for size in self.shape:
            n *= size
        return n


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest lists it.

    Attributes
    ----------
    sha256 : str
        Of the whole file; its first 32 digits name it.
    head_sha256 : str
        Of everything before ``/values``: what a reader checks when it first touches the shard.
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
        """File name in ``shards/``: hexadecimal digits of our own, so never a path."""
        return f"{self.sha256[:NAME_DIGITS]}.h5"


def inspect(path: Path) -> tuple[str, str, dict[str, Extent]]:
    """Parse a shard's HDF5 structure by an allow-list, without touching any payload.

    Returns
    -------
    fingerprint, codec : str
    extents : dict of str to Extent

    Raises
    ------
    DamagedStoreError
        If the file is not HDF5 or holds anything a shard may not: links, groups, filters, chunks, external
        or virtual storage, foreign types, extents outside the file.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = _inspect_open(path, file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, UsageError) as error:
        raise DamagedStoreError(f"{path} is not a readable HDF5 shard: {error}") from error
    return found


def _inspect_open(path: Path, file: h5py.File) -> tuple[str, str, dict[str, Extent]]:
    def refuse(what: str) -> DamagedStoreError:
        return DamagedStoreError(f"{path} is not a shard of this format: {what}")

    attributes: dict[str, Any] = {}
    for name in ("format", "format_version", "fingerprint", "codec"):
        if name not in file.attrs:
            raise refuse(f"attribute {name!r} is missing")
        attributes[name] = file.attrs[name]
    if attributes["format"] != b"featurestore shard" or int(attributes["format_version"]) != FORMAT_VERSION:
        raise refuse(f"format {attributes['format']!r}, version {attributes['format_version']!r}")
    codec = get_codec(attributes["codec"].decode())
    expected = {*STRUCTURE, "values"} | ({"scales", "norms"} if codec.name == "int8" else set())
    if set(file.keys()) != expected:
        raise refuse(f"datasets {sorted(file.keys())}, expected {sorted(expected)}")
    n_bytes = path.stat().st_size
    extents = {}
    for name in sorted(expected):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise refuse(f"/{name} is a link to somewhere else")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise refuse(f"/{name} is not a dataset")
        plan = dataset.id.get_create_plist()
        if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_nfilters() or plan.get_external_count():
            raise refuse(f"/{name} is chunked, filtered, external or virtual")
        if dataset.dtype.kind not in "iuf" or dataset.dtype.str[0] == ">":
            raise refuse(f"/{name} has type {dataset.dtype}")
        offset = dataset.id.get_offset()
        if offset is None:
            raise refuse(f"/{name} has no bytes in this file")
        extents[name] = Extent(int(offset), dataset.dtype.str, dataset.shape)
        if extents[name].offset + extents[name].n_bytes > n_bytes:
            raise refuse(f"/{name} ends behind the end of the file ({n_bytes:,} bytes)")
    return attributes["fingerprint"].decode(), codec.name, extents


def check_extents(
    extents: Mapping[str, Extent], n_sentences: int, n_tokens: int, n_bytes: int, codec: str
) -> str:
    """Return what is wrong with a shard's extents as a manifest states them, or an empty string."""
    values = extents.get("values")
    if values is None or len(values.shape) not in (2, 3):
        return "no values of two or three dimensions"
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "offsets": ("<u8", (n_sentences + 1,)),
        "keys": ("|u1", (n_sentences, KEY_BYTES)),
        "checksums": ("<u8", (n_sentences,)),
        "token_offsets": ("<u8", (n_tokens + 1,)),
        "tokens": ("|u1", extents["tokens"].shape if "tokens" in extents else (0,)),
        "values": (get_codec(codec).value_dtype.str, (n_tokens, *values.shape[1:])),
    }
    if codec == "int8":
        expected["scales"] = ("<f4", (n_tokens, *values.shape[1:-1]))
        expected["norms"] = ("<f4", values.shape[1:])
    if set(extents) != set(expected):
        return f"datasets {sorted(extents)}, expected {sorted(expected)}"
    for name, (dtype, shape) in expected.items():
        extent = extents[name]
        if (extent.dtype, extent.shape) != (dtype, shape):
            return f"/{name} is {extent.dtype} {extent.shape}, expected {dtype} {shape}"
        if min(extent.shape, default=0) < 0 or extent.offset < 0 or extent.offset + extent.n_bytes > n_bytes:
            return f"/{name} lies outside the file"
        if name != "values" and extent.offset + extent.n_bytes > values.offset:
            return f"/{name} lies behind the values"
    if len(extents["tokens"].shape) != 1 or values.offset + values.n_bytes != n_bytes:
        return "the values do not end the file"
    return ""
