"""The HDF5 structure of a shard: laid out for writing, inspected when verifying.

The only module of the store that loads the HDF5 library; reading vectors never does. h5py lays the structure
out against an in-memory stand-in, never the disk: on a full disk libhdf5 can lose data silently and crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featurestore.errors import DamagedStoreError, StoreError, UsageError
from featurestore.store.codec import Array, get_codec
from featurestore.store.layout import ALIGNMENT, FORMAT_VERSION, STRUCTURE, Extent


class _StructureSink:
    """A file-like object that keeps what h5py writes and pretends the rest of the file exists."""

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

    def flush(self) -> None:
        pass

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        for offset, piece in self.pieces.items():
            start, stop = max(offset, self.position), min(offset + len(piece), self.position + len(view))
            if start < stop:
                view[start - self.position : stop - self.position] = piece[start - offset : stop - offset]
        self.position += len(view)
        return len(view)


def lay_out(
    datasets: Mapping[str, Array], values: Array, codec: str, fingerprint: str
) -> tuple[bytes, dict[str, Extent]]:
    """Return the bytes before ``/values`` and where every dataset lies."""
    sink = _StructureSink()
    extents: dict[str, Extent] = {}
    # HDF5 aligns what is at least as large as the threshold, and the values of a tiny shard are aligned too.
    threshold = max(1, min(ALIGNMENT, values.nbytes))
    with h5py.File(
        sink, "w", libver=("earliest", "v108"), alignment_threshold=threshold, alignment_interval=ALIGNMENT
    ) as file:
        # Fixed-length strings: variable-length ones need a heap, which is no place for a stranger's bytes.
        file.attrs["format"] = np.bytes_(b"featurestore shard")
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
    head = bytearray(start)
    for offset, piece in sink.pieces.items():
        if offset + len(piece) > start:
            raise StoreError(
                f"HDF5 put structure behind the values (offset {offset}): cannot lay out the shard"
            )
        head[offset : offset + len(piece)] = piece
    if start % ALIGNMENT or sink.end != start + values.nbytes:
        raise StoreError(f"HDF5 laid the shard out unexpectedly: values at {start}, file end {sink.end}")
    return bytes(head), extents


def _create_contiguous(file: h5py.File, name: str, array: Array) -> Any:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    space = h5py.h5s.create_simple(array.shape)
    return h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(array.dtype), space, plan)


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
