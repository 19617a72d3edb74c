"""The file of a remembered opening: a header of JSON and arrays, checked as a whole and then mapped.

After eight bytes that name the format and eight with the length of the header (little-endian) comes the
header, canonical JSON: ``identity`` (what the opening is of), ``facts`` (values) and ``arrays`` (name, type
and length of each). The arrays follow, each from a multiple of 64 bytes on; the last sixteen bytes are the
XXH3-128 of all before. The same contents make the same bytes.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore import limits
from featurestore.disk.strict_json import parse_json
from featurestore.recipe import canonical_json

Array = NDArray[Any]

_MAGIC = b"FSOPEN\x00\x01"
_PREFIX = len(_MAGIC) + 8
_ALIGNMENT = 64
_DIGEST_BYTES = 16
_TYPES = ("<i8", "<i4", "<i2", "|i1", "|u1")


class NotBelievedError(Exception):
    """A file is no remembered opening, or not what was remembered."""


def write_opening(file: IO[bytes], identity: Any, facts: Any, arrays: Mapping[str, Array]) -> None:
    """Write a remembered opening.

    Parameters
    ----------
    file : binary file
    identity, facts
        Values of JSON.
    arrays : mapping of str to (n,) int64, int32, int16, int8 or uint8
    """
    listed = [[name, _little(array).dtype.str, len(array)] for name, array in arrays.items()]
    header = canonical_json({"identity": identity, "facts": facts, "arrays": listed})
    digest, position = xxhash.xxh3_128(), 0
    parts = [memoryview(_MAGIC + len(header).to_bytes(8, "little") + header)]
    parts += [_little(array).view(np.uint8).data for array in arrays.values()]
    for part in parts:
        for piece in (bytes(-position % _ALIGNMENT), part):
            digest.update(piece)
            file.write(piece)
            position += len(piece)
    file.write(digest.digest())


def read_opening(descriptor: int, identity: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the facts of a remembered opening, and its arrays over a map of the file.

    Until they are used, the arrays take no memory but addresses.

    Parameters
    ----------
    descriptor : int
        Of the file; may be closed afterwards.
    identity
        What it must be the opening of.

    Raises
    ------
    NotBelievedError
        If it is damaged, or the opening of something else.
    OSError
        If it cannot be mapped.
    """
    size = os.fstat(descriptor).st_size
    if size < _PREFIX + _DIGEST_BYTES:
        raise NotBelievedError(f"it has {size:,} bytes")
    mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    view = memoryview(mapped)
    if view[: len(_MAGIC)] != _MAGIC:
        raise NotBelievedError("it is no remembered opening of this version")
    if xxhash.xxh3_128_digest(view[:-_DIGEST_BYTES]) != view[-_DIGEST_BYTES:]:
        raise NotBelievedError("its checksum is another")
    end = _PREFIX + int.from_bytes(view[len(_MAGIC) : _PREFIX], "little")
    if end > min(size - _DIGEST_BYTES, limits.MAX_OPENING_HEADER_BYTES):
        raise NotBelievedError("its header is too long")
    try:
        raw = bytes(view[_PREFIX:end])
        header = parse_json(raw, most_values=1024 + len(raw) // 2)
        found, facts = header["identity"], header["facts"]
        extents = [(str(name), str(dtype), int(n)) for name, dtype, n in header["arrays"]]
    except (ValueError, TypeError, KeyError) as error:
        raise NotBelievedError(f"its header makes no sense ({error})") from error
    if found != json.loads(canonical_json(identity)):
        raise NotBelievedError("it is of another opening")
    arrays = dict(_mapped(view[:-_DIGEST_BYTES], end, extents))
    # What was read to check it need not stay in this process's memory.
    mapped.madvise(mmap.MADV_DONTNEED)
    return facts, arrays


def _mapped(
    view: memoryview, position: int, extents: Sequence[tuple[str, str, int]]
) -> Iterator[tuple[str, Array]]:
    for name, dtype, n in extents:
        position += -position % _ALIGNMENT
        if dtype not in _TYPES or not 0 <= n * np.dtype(dtype).itemsize <= len(view) - position:
            raise NotBelievedError(f"the array {name} does not lie in it")
        array: Array = np.frombuffer(view, dtype, n, position)
        position += array.nbytes
        yield name, array
    if position != len(view):
        raise NotBelievedError(f"{len(view) - position} bytes are of no array")


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
