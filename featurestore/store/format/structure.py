"""The HDF5 structure of a shard: laid out for writing, inspected when verifying.

The only module of the store that uses the HDF5 library, and loads it with the first shard that is written or
inspected; reading vectors never does. h5py lays the structure out against an in-memory stand-in, never the
disk: on a full disk libhdf5 can lose data silently and crash.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import DamagedStoreError, StoreError
from featurestore.store.format import hdf5
from featurestore.store.format.access import open_shard
from featurestore.store.format.codec import CODECS, Array
from featurestore.store.format.layout import ALIGNMENT, FORMAT_VERSION, Extent, check_extents

if TYPE_CHECKING:
    import h5py

_FORMAT = b"featurestore shard"
_ATTRIBUTE_TYPES = {"format": "string", "format_version": "<u4", "fingerprint": "string", "codec": "string"}


class _StructureSink(io.RawIOBase):
    """A file that keeps what h5py writes; what it lays out is never read back."""

    def __init__(self) -> None:
        self.position = self.end = 0
        self.pieces: dict[int, bytes] = {}

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = (0, self.position, self.end)[whence] + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces[self.position] = piece
        self.position += len(piece)
        self.end = max(self.end, self.position)
        return len(piece)

    def truncate(self, size: int | None = None) -> int:
        self.end = self.position if size is None else size
        return self.end


def lay_out(
    datasets: Mapping[str, Array], values: Array, codec: str, fingerprint: str
) -> tuple[bytes, dict[str, Extent]]:
    """Return the bytes before ``/values`` and where every dataset lies.

    Raises
    ------
    StoreError
        If HDF5 does not put all structure before the values, or puts them where readers would not look.
    """
    import h5py

    sink = _StructureSink()
    extents: dict[str, Extent] = {}
    # HDF5 aligns what is at least as large as the threshold, and the values of a tiny shard are aligned too.
    threshold = max(1, min(ALIGNMENT, values.nbytes))
    with h5py.File(
        sink, "w", libver=("earliest", "v108"), alignment_threshold=threshold, alignment_interval=ALIGNMENT
    ) as file:
        # Fixed-length strings: variable-length ones need a heap, which the parser does not know.
        file.attrs["format"] = np.bytes_(_FORMAT)
        file.attrs["format_version"] = np.uint32(FORMAT_VERSION)
        file.attrs["fingerprint"] = np.bytes_(fingerprint.encode())
        file.attrs["codec"] = np.bytes_(codec.encode())
        for name, array in sorted(datasets.items()):
            identifier = _create_contiguous(file, name, array)
            identifier.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(array))
            extents[name] = Extent(int(identifier.get_offset()), array.dtype.str, array.shape)
        identifier = _create_contiguous(file, "values", values)
        extents["values"] = Extent(int(identifier.get_offset()), values.dtype.str, values.shape)
    start = extents["values"].offset
    last = max(offset + len(piece) for offset, piece in sink.pieces.items())
    if start % ALIGNMENT or last > start or sink.end != start + values.nbytes:
        raise StoreError(
            f"HDF5 laid the shard out unexpectedly: structure up to byte {last:,}, values of "
            f"{values.nbytes:,} bytes at {start:,}, the file's end at {sink.end:,}"
        )
    head = bytearray(start)
    for offset, piece in sink.pieces.items():
        head[offset : offset + len(piece)] = piece
    return bytes(head), extents


def _create_contiguous(file: h5py.File, name: str, array: Array) -> Any:
    import h5py

    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    space = h5py.h5s.create_simple(array.shape)
    return h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(array.dtype), space, plan)


def inspect(path: Path) -> tuple[str, str, dict[str, Extent]]:
    """Parse a shard's HDF5 structure by an allow-list, without touching any payload.

    First by our own parser, which knows only what a shard may hold (:mod:`~featurestore.store.format.hdf5`);
    what passes it is shown to the HDF5 library, which must see the same. The caller compares the hash of the
    head with the manifest's first: this check is for hostile files, not for failing disks.

    Returns
    -------
    fingerprint, codec : str
    extents : dict of str to Extent

    Raises
    ------
    DamagedStoreError
        If the file is not HDF5 or holds anything a shard may not: links, groups, filters, chunks, external
        or virtual storage, foreign types or attributes, extents that overlap or lie outside the file.
    """
    descriptor = open_shard(path)
    with open(descriptor, "rb", buffering=0) as file:
        n_bytes = os.fstat(descriptor).st_size
        try:
            found = hdf5.parse(lambda offset, size: os.pread(descriptor, size, offset), n_bytes)
            fingerprint, codec = _require_shard(found, n_bytes)
            _require_agreement(file, found)
        except (hdf5.RefusedError, OSError) as error:
            raise DamagedStoreError(
                f"{path} is not a shard of this format: {error}", path=path, shard=path.name
            ) from error
    return fingerprint, codec, found.extents


def _require_shard(found: hdf5.Structure, n_bytes: int) -> tuple[str, str]:
    """Return fingerprint and codec, after checking that this is a whole shard and nothing else."""
    if found.attribute_types != _ATTRIBUTE_TYPES:
        raise hdf5.RefusedError(f"attributes {found.attribute_types}, expected {_ATTRIBUTE_TYPES}")
    version = int.from_bytes(found.attributes["format_version"], "little")
    if found.attributes["format"] != _FORMAT or version != FORMAT_VERSION:
        raise hdf5.RefusedError(f"format {found.attributes['format']!r}, version {version}")
    codec = found.attributes["codec"].decode("ascii", "backslashreplace")
    fingerprint = found.attributes["fingerprint"].decode("ascii", "backslashreplace")
    if codec not in CODECS:
        raise hdf5.RefusedError(f"unknown codec {codec!r}")
    offsets, values = found.extents.get("offsets"), found.extents.get("values")
    if offsets is None or values is None:
        raise hdf5.RefusedError(f"datasets {sorted(found.extents)}")
    problem = check_extents(found.extents, offsets.shape[0] - 1, values.shape[0], n_bytes, codec)
    if problem:
        raise hdf5.RefusedError(problem)
    return fingerprint, codec


def _require_agreement(content: Any, found: hdf5.Structure) -> None:
    """Raise unless the HDF5 library finds the same datasets at the same places."""
    import h5py

    try:
        with h5py.File(content, "r") as file:
            seen = {
                name: Extent(int(dataset.id.get_offset()), dataset.dtype.str, dataset.shape)
                for name, dataset in file.items()
            }
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise hdf5.RefusedError(f"the HDF5 library does not read it: {error}") from error
    if seen != found.extents:
        raise hdf5.RefusedError(f"the HDF5 library finds {seen}, expected {found.extents}")
