"""Files of named tensors that are safe to open: HDF5, every byte checked, no code inside.

Trained models and training checkpoints are such files. A file holds a contiguous little-endian dataset per
tensor (float32, int64 or uint8), ``metadata`` (canonical JSON as bytes) and ``metadata_sha256``. No groups,
attributes, links, filters or variable-length types, and no pickle: opening a stranger's file runs no code,
reads no other file and takes no more memory than the file's size. The metadata has the SHA-256 of every
tensor, so damage is an error and never a different number. The same contents make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.errors import ModelError
from featurestore.recipe import canonical_json

Array = NDArray[Any]
Shape = tuple[int, ...]

MAX_METADATA_BYTES = 32 * limits.MAX_RECIPE_BYTES
TENSOR_TYPES = ("<f4", "<i8", "|u1")
"""NumPy types that tensors may have: float32, int64, uint8."""

_FILE_TYPES = {"<f4": h5py.h5t.IEEE_F32LE, "<i8": h5py.h5t.STD_I64LE, "|u1": h5py.h5t.STD_U8LE}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,254}")
_RESERVED = frozenset({"metadata", "metadata_sha256"})
_DERIVED = frozenset({"tensors", "shapes"})
"""Fields of the metadata that this module adds."""


@dataclass(frozen=True)
class TensorFile:
    """What a file held.

    Attributes
    ----------
    metadata : dict
        As given to :func:`tensor_file_image`.
    tensors : dict
        Array of each name.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Array]


def tensor_file_image(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Array],
    *,
    max_bytes: int = limits.MAX_CHECKPOINT_BYTES,
    with_shapes: bool = True,
    noun: str = "file of tensors",
    remedy: str = "store less in it",
) -> bytes:
    """Return metadata and tensors as the bytes of one file.

    Parameters
    ----------
    metadata : mapping
        Plain JSON values, ``format`` and ``format_version`` among them. ``tensors`` (the SHA-256 of each) and
        ``shapes`` are added.
    tensors : mapping of str to ndarray
        float32, int64 or uint8. Names are of letters, digits, ``_`` and ``.``, and begin with no ``.``.
    max_bytes : int
        Bound on the file's size.
    with_shapes : bool
        False leaves ``shapes`` out of the metadata; then a reader must know them.
    noun, remedy : str
        For the error of a file that is too large: what it is (``model``), and what the user can do.

    Raises
    ------
    ModelError
        If it is too large, or a tensor has a name or type that is not allowed.
    """
    if _DERIVED & set(metadata):
        raise ModelError(f"the metadata must not have the fields {sorted(_DERIVED)}, which are added here")
    arrays = {name: _storable(name, array) for name, array in sorted(tensors.items())}
    fields = {**metadata, "tensors": {name: _sha256(array) for name, array in arrays.items()}}
    if with_shapes:
        fields["shapes"] = {name: list(array.shape) for name, array in arrays.items()}
    text = canonical_json(fields)
    n_bytes = len(text) + sum(array.nbytes for array in arrays.values())
    image = b""
    if len(text) <= MAX_METADATA_BYTES and n_bytes <= max_bytes:
        arrays["metadata"] = np.frombuffer(text, "u1")
        arrays["metadata_sha256"] = np.frombuffer(hashlib.sha256(text).digest(), "u1")
        image = _image(arrays)
        n_bytes = len(image)
    if not image or n_bytes > max_bytes:
        raise ModelError(
            f"a {noun} of {n_bytes:,} bytes, {len(text):,} of them metadata, exceeds the bounds of "
            f"{max_bytes:,} and {MAX_METADATA_BYTES:,}: {remedy}"
        )
    return image


def read_tensor_file(
    path: Path,
    *,
    format_name: str,
    format_version: int,
    noun: str,
    max_bytes: int = limits.MAX_CHECKPOINT_BYTES,
) -> TensorFile:
    """Read a whole file whose metadata has the shapes, checking everything.

    Parameters
    ----------
    path : Path
    format_name, format_version
        Expected ``format`` and ``format_version`` in its metadata.
    noun : str
        For the errors: what users call such a file (``training checkpoint``).
    max_bytes : int
        Bound on the file's size.

    Raises
    ------
    ModelError
        If it is not such a file, is damaged, holds anything that is not allowed, or has a newer version. The
        caller checks what the other fields of the metadata mean.
    """
    with open_tensor_file(
        path, format_name=format_name, format_version=format_version, noun=noun, max_bytes=max_bytes
    ) as file:
        tensors = file.read(file.stated_shapes())
        metadata = {name: value for name, value in file.metadata.items() if name not in _DERIVED}
    return TensorFile(metadata, tensors)


@contextmanager
def open_tensor_file(
    path: Path,
    *,
    format_name: str,
    format_version: int,
    noun: str,
    max_bytes: int = limits.MAX_CHECKPOINT_BYTES,
) -> Iterator[TensorReader]:
    """Open a file with its metadata checked and its tensors yet unread (see :func:`read_tensor_file`).

    For callers that derive the expected tensors and shapes from the metadata. An OSError, RuntimeError,
    KeyError, ValueError or TypeError inside the context is taken for damage of the file and raised as
    ModelError.

    Raises
    ------
    ModelError
        If it is not such a file, is damaged, or has a newer version.
    """
    if not path.is_file():
        _refuse(path, noun, "no such file")
    n_bytes = path.stat().st_size
    if n_bytes > max_bytes:
        _refuse(path, noun, f"it has {n_bytes:,} bytes, at most {max_bytes:,} are allowed")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield TensorReader(path, file, n_bytes, format_name, format_version, noun)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path} is not a {noun} file, or is damaged: {error}. Restore it, or train again"
        ) from error


class TensorReader:
    """An open file: :func:`open_tensor_file` makes it.

    Attributes
    ----------
    path : Path
    metadata : dict
        All of it, ``tensors`` and ``shapes`` included.
    """

    def __init__(
        self, path: Path, file: h5py.File, n_bytes: int, format_name: str, format_version: int, noun: str
    ) -> None:
        self.path = path
        self._file = file
        self._n_bytes = n_bytes
        self._noun = noun
        for name in sorted(_RESERVED):
            if name not in file:
                self.refuse(f"it has no {name!r} dataset")
        self.metadata = self._read_metadata(format_name, format_version)

    def refuse(self, what: str) -> NoReturn:
        """Raise a ModelError that says what is wrong with this file."""
        _refuse(self.path, self._noun, what)

    def stated_shapes(self) -> dict[str, Shape]:
        """Return the shapes stated in the metadata."""
        shapes = self.metadata.get("shapes")
        if not isinstance(shapes, dict):
            self.refuse("its metadata has no shapes of its tensors")
        for name, shape in shapes.items():
            if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
                self.refuse(f"its metadata gives {name!r} the shape {shape!r}")
        return {name: tuple(shape) for name, shape in shapes.items()}

    def read(
        self,
        shapes: Mapping[str, Shape],
        *,
        types: tuple[str, ...] = TENSOR_TYPES,
        owner: str = "its metadata",
    ) -> dict[str, Array]:
        """Read every tensor.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            All tensors that the file must hold.
        types : tuple of str
            Those of :data:`TENSOR_TYPES` that are allowed here.
        owner : str
            For the errors: where the shapes come from (``a linear-tagger``).

        Raises
        ------
        ModelError
            If anything is missing, too many, of another shape or type, not a plain dataset within this file,
            or not what was written.
        """
        digests, expected, found = self.metadata["tensors"], set(shapes), set(self._file) - _RESERVED
        if found != expected or set(digests) != expected or len(self._file.attrs):
            wrong = sorted(found ^ expected) or "attributes or the list of tensors"
            self.refuse(f"its contents are not those of {owner}: {wrong} missing or too many")
        tensors: dict[str, Array] = {}
        n_read = 0
        for name, shape in shapes.items():
            if not _NAME.fullmatch(name):
                self.refuse(f"{name!r} is no name of a tensor")
            dataset = self._dataset(name, types, shape)
            # Each dataset may lie within the file while all together, by sharing bytes, need more memory than
            # it has.
            n_read += dataset.id.get_type().get_size() * math.prod(shape)
            if n_read > self._n_bytes:
                self.refuse(f"its tensors overlap: up to {name!r} they have more bytes than the file")
            tensors[name] = dataset[...]
            if _sha256(tensors[name]) != digests[name]:
                self.refuse(f"the bytes of {name!r} are not those that were written")
        return tensors

    def _read_metadata(self, format_name: str, format_version: int) -> dict[str, Any]:
        text = self._dataset("metadata", ("|u1",), None)[...].tobytes()
        digest = self._dataset("metadata_sha256", ("|u1",), (32,))[...].tobytes()
        if hashlib.sha256(text).digest() != digest:
            self.refuse("the bytes of its metadata are not those that were written")
        try:
            metadata = json.loads(text, parse_constant=_no_constant)
        except RecursionError:
            self.refuse("its metadata is nested too deeply")
        if not isinstance(metadata, dict) or metadata.get("format") != format_name:
            self.refuse(f"its metadata does not say that it is a {format_name}")
        version = metadata.get("format_version")
        if type(version) is not int or version != format_version:
            self.refuse(
                f"it has format version {version!r}, this featurestore reads {format_version}: upgrade it"
            )
        if "tensors" not in metadata:
            self.refuse(f"its metadata has the fields {sorted(metadata)}")
        if not isinstance(metadata["tensors"], dict):
            self.refuse(f"the field 'tensors' of its metadata is a {type(metadata['tensors']).__name__}")
        return metadata

    def _dataset(self, name: str, types: tuple[str, ...], shape: Shape | None) -> h5py.Dataset:
        """Return a dataset, checked to be plain, in this file, and of the expected type and shape."""
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            self.refuse(f"{name!r} is a link to somewhere else")
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset):
            self.refuse(f"{name!r} is not a dataset")
        plan = dataset.id.get_create_plist()
        # Filters need chunks, so that contiguous is unfiltered too.
        if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_external_count():
            self.refuse(f"{name!r} is chunked, filtered, external or virtual")
        if not any(dataset.id.get_type().equal(_FILE_TYPES[kind]) for kind in types):
            self.refuse(f"{name!r} has another type than {' or '.join(types)}")
        found: Shape | None = dataset.shape  # None: a dataset of nothing
        if shape is None:
            if found is None or len(found) != 1 or found[0] > MAX_METADATA_BYTES:
                self.refuse(f"{name!r} has shape {found}, expected (n,), n <= {MAX_METADATA_BYTES:,}")
        elif found != shape:
            self.refuse(f"{name!r} has shape {found}, expected {shape}")
        if len(dataset.attrs):
            self.refuse(f"{name!r} has attributes")
        n_bytes = dataset.id.get_type().get_size() * math.prod(found)
        offset = dataset.id.get_offset()
        if n_bytes and (offset is None or offset + n_bytes > self._n_bytes):
            self.refuse(f"the {n_bytes:,} bytes of {name!r} do not lie in this file")
        return dataset


def _storable(name: str, array: Array) -> Array:
    """Return a tensor as it lies in the file."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ModelError(
            f"a tensor cannot be named {name!r}: letters, digits, '_' and '.' only, no '.' first, at most "
            f"255, and none of {sorted(_RESERVED)}"
        )
    kind = array.dtype.newbyteorder("<")
    if kind.str not in TENSOR_TYPES:
        raise ModelError(f"the tensor {name!r} is {array.dtype}, expected float32, int64 or uint8")
    return np.asarray(array, kind, order="C")


def _image(arrays: Mapping[str, Array]) -> bytes:
    # In memory: on a full disk libhdf5 can lose data silently; our own writer cannot.
    with h5py.File("model", "w", driver="core", backing_store=False, libver=("earliest", "v108")) as file:
        for name, array in sorted(arrays.items()):
            file.create_dataset(name, data=array, track_times=False)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _sha256(array: Array) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(path: Path, noun: str, what: str) -> NoReturn:
    raise ModelError(f"{path} cannot be read as a {noun}: {what}")
