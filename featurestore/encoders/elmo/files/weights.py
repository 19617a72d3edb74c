"""Weights of ELMo models: ``weights.hdf5`` of AllenNLP and bilm-tf read, checked and written; random ones."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from featurestore.disk.atomic import replacing
from featurestore.disk.hashes import sha256_of
from featurestore.disk.opening import opened
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import EncoderError, StoreWriteError, WeightsError
from featurestore.limits import MAX_CHECKPOINT_BYTES

Weights = dict[str, NDArray[Any]]
"""Tensors by the names and in the shapes of a weights file."""

FLOATS = ("f2", "f4", "f8")
"""Types that weights may have, as NumPy's kind and bytes."""

_FILE_CHARACTERS = 261
"""Rows of ``char_embed`` in a file: no row for the mask, whatever ``n_characters`` says."""

_HASH_BLOCK = 1 << 22

_WHAT = "ELMo weights"


def expected_shapes(options: ElmoOptions) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that a weights file for these options holds."""
    n_filters, dim, cell = options.n_filters, options.projection_dim, options.lstm_dim
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (_FILE_CHARACTERS, options.character_dim)}
    for i, (width, n) in enumerate(options.filters):
        shapes[f"CNN/W_cnn_{i}"] = (1, width, options.character_dim, n)
        shapes[f"CNN/b_cnn_{i}"] = (n,)
    for i in range(options.n_highway):
        for part in ("carry", "transform"):
            shapes[f"CNN_high_{i}/W_{part}"] = (n_filters, n_filters)
            shapes[f"CNN_high_{i}/b_{part}"] = (n_filters,)
    shapes["CNN_proj/W_proj"] = (n_filters, dim)
    shapes["CNN_proj/b_proj"] = (dim,)
    for direction in (0, 1):
        for layer in range(options.n_layers):
            scope = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes[f"{scope}/W_0"] = (2 * dim, 4 * cell)
            shapes[f"{scope}/B"] = (4 * cell,)
            shapes[f"{scope}/W_P_0"] = (cell, dim)
    return shapes


def read_weights(path: str | Path, options: ElmoOptions) -> Weights:
    """Read a weights file, checking every tensor that the options call for.

    Parameters
    ----------
    path : str or Path
        ``weights.hdf5`` of AllenNLP or bilm-tf, in float16, float32 or float64.
    options : ElmoOptions
        The options that belong to it. Tensors they do not call for (a softmax, say) are left unread.

    Returns
    -------
    dict of str to ndarray
        In the file's own float type.

    Raises
    ------
    EncoderError
        If the file cannot be opened.
    WeightsError
        If it is no HDF5 file, lacks a tensor, or holds one of another shape or type, behind a link to
        somewhere else, or stored outside the file.
    """
    path = Path(path)
    with opened(path, _WHAT) as file:
        return _read(file, path, options)


def read_weights_and_hash(path: str | Path, options: ElmoOptions) -> tuple[Weights, str]:
    """Return the weights of a file and the SHA-256 of the very bytes they were read from, reading it once.

    Raises
    ------
    EncoderError, WeightsError
        See :func:`read_weights`.
    """
    path = Path(path)
    with opened(path, _WHAT) as file:
        content = file.read(_bounded_size(file, path))
    return _read(io.BytesIO(content), path, options), hashlib.sha256(content).hexdigest()


def hash_weights(path: str | Path) -> str:
    """Return the SHA-256 of a weights file, whatever it holds.

    Raises
    ------
    EncoderError
        If it cannot be read.
    WeightsError
        If it is too large to be weights.
    """
    path = Path(path)
    with opened(path, _WHAT) as file:
        return sha256_of(file, _bounded_size(file, path))


def _bounded_size(file: BinaryIO, path: Path) -> int:
    """Return the bytes of a file now; no more are read, though it may be growing."""
    n_bytes = os.fstat(file.fileno()).st_size
    if n_bytes > MAX_CHECKPOINT_BYTES:
        raise WeightsError(f"{path} has {n_bytes:,} bytes, over the bound of {MAX_CHECKPOINT_BYTES:,}")
    return n_bytes


def _read(source: Any, path: Path, options: ElmoOptions) -> Weights:
    shapes = _bounded_shapes(options, str(path))
    return read_tensors(
        source,
        path,
        shapes,
        expected="an ELMo weights.hdf5",
        doubt="Do these weights belong to these options?",
    )


def _bounded_shapes(options: ElmoOptions, source: str) -> dict[str, tuple[int, ...]]:
    """Return the expected shapes, after checking that tensors of these shapes may be allocated at all."""
    shapes = expected_shapes(options)
    n_bytes = 4 * sum(math.prod(shape) for shape in shapes.values())
    if n_bytes > MAX_CHECKPOINT_BYTES:
        raise WeightsError(
            f"{source}: the options call for {n_bytes:,} bytes of weights, over the bound of "
            f"{MAX_CHECKPOINT_BYTES:,}: are they the options of an ELMo model?"
        )
    return shapes


def read_tensors(
    source: Any,
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    expected: str,
    doubt: str,
    types: Sequence[str] = FLOATS,
) -> Weights:
    """Read tensors of known shapes from an HDF5 file that may be damaged or hostile.

    Parameters
    ----------
    source : path or binary file object
        What is read.
    path : Path
        What messages call it.
    shapes : mapping of str to tuple of int
        Name and shape of each tensor; what else the file holds is left unread.
    expected, doubt : str
        For messages: what file this should be, and the question to ask where a tensor does not fit.
    types : sequence of str
        Accepted types as NumPy's kind and bytes, such as ``f4``.

    Returns
    -------
    dict of str to ndarray
        In the file's own type, in this machine's byte order.

    Raises
    ------
    WeightsError
        See :func:`read_weights`.
    """
    try:
        file = h5py.File(source, "r")
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path} is not an HDF5 file ({error}): expected {expected}") from error
    with file:
        return {name: _tensor(file, name, shape, path, types, doubt) for name, shape in shapes.items()}


def _tensor(
    file: h5py.File, name: str, shape: tuple[int, ...], path: Path, types: Sequence[str], doubt: str
) -> NDArray[Any]:
    kinds = "floats" if types == FLOATS else " or ".join(np.dtype(kind).name for kind in types)

    def refuse(found: str) -> WeightsError:
        return WeightsError(
            f"{path}: tensor {name} should be an array of {kinds} of shape {shape}, found {found}. {doubt}"
        )

    try:
        # Every step of the way must be a hard link: nothing may lead elsewhere, in this file or out of it.
        here = ""
        for part in name.split("/"):
            parent = file[here] if here else file
            if not isinstance(parent, h5py.Group):
                raise refuse(f"{here} to be no group")
            here = f"{here}/{part}" if here else part
            links, step = parent.id.links, part.encode()
            if not links.exists(step):
                raise refuse("nothing of that name")
            if links.get_info(step).type != h5py.h5l.TYPE_HARD:
                raise refuse(f"a link to somewhere else at {here}, which is refused: copy the data here")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise refuse("a group")
        if dataset.is_virtual or dataset.external:
            raise refuse("data stored outside the dataset, which is refused: copy it into the file")
        if f"{dataset.dtype.kind}{dataset.dtype.itemsize}" not in types:
            raise refuse(f"type {dataset.dtype}")
        if dataset.shape != shape:
            raise refuse(f"shape {dataset.shape}")
        values: NDArray[Any] = dataset[()]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: tensor {name} cannot be read, the file is damaged ({error})") from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def write_weights(
    path: str | Path, weights: Mapping[str, NDArray[Any]], *, dtype: Literal["float16", "float32"] = "float32"
) -> None:
    """Write weights as AllenNLP reads them; the file appears complete or not at all.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    weights : mapping of str to ndarray
    dtype : {"float32", "float16"}
        Type on disk. float16 halves the file and rounds; AllenNLP reads it too, with the same vectors.

    Raises
    ------
    EncoderError
        If the file cannot be written.
    """
    converted = {name: np.asarray(array, dtype=dtype) for name, array in weights.items()}
    if dtype == "float16":
        for name, bias in converted.items():
            if name.endswith("/B"):
                converted[name] = _exact_with_forget_bias(bias)
    write_tensors(Path(path), converted, what="ELMo weights")


def _exact_with_forget_bias(bias: NDArray[Any]) -> NDArray[Any]:
    """Return the float16 bias of an LSTM, rounded so that its forget gates plus 1 are exact in float16.

    Readers add that 1 in the file's own type (AllenNLP) or after widening (we): so they agree.
    """
    rounded: NDArray[Any] = bias.copy()
    forget = slice(bias.size // 2, 3 * bias.size // 4)
    one = np.float16(1)
    rounded[forget] = (bias[forget] + one) - one
    return rounded


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], *, what: str) -> None:
    """Write tensors as contiguous datasets of an HDF5 file, which appears complete or not at all.

    Raises
    ------
    EncoderError
        If the file cannot be written; the message calls it ``what``.
    """
    # Made in memory and written by ourselves: h5py reports a full disk too late, if at all.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in sorted(tensors):
            file.create_dataset(name, data=tensors[name], track_times=False)
    try:
        with replacing(path) as output:
            output.write(buffer.getbuffer())
    except StoreWriteError as error:
        raise EncoderError(f"cannot write {what} {path}: {error.reason}") from error


def tensors_sha256(weights: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of the tensors themselves: name, shape and little-endian bytes, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"{name}:{array.dtype.name}:{array.shape}\n".encode())
        rows = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(-1)
        as_bytes = memoryview(rows.view(np.uint8).data)
        for start in range(0, len(as_bytes), _HASH_BLOCK):
            digest.update(as_bytes[start : start + _HASH_BLOCK])
    return digest.hexdigest()


def seeded_weights(options: ElmoOptions, seed: int) -> Weights:
    """Return random float32 weights: cheap to make, the same in every process, of sensible scale.

    Uniform numbers of PCG64, scaled so that gates neither saturate nor vanish and activations keep their
    size from layer to layer. They are for measuring speed and for tests: no language was learnt.

    Parameters
    ----------
    options : ElmoOptions
    seed : int
        Each seed is another model.

    Raises
    ------
    WeightsError
        If the options call for more than :data:`featurestore.limits.MAX_CHECKPOINT_BYTES`.
    """
    generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(shape: tuple[int, ...], standard_deviation: float) -> NDArray[Any]:
        values = generator.random(shape, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(standard_deviation * math.sqrt(12))
        return values

    weights: Weights = {}
    for name, shape in _bounded_shapes(options, "untrained weights").items():
        leaf = name.rsplit("/", 1)[-1]
        if leaf == "char_embed":
            weights[name] = uniform(shape, 1.0)
        elif leaf == "B" or leaf.startswith("b_"):
            weights[name] = uniform(shape, 0.1)
        else:
            # Fan-in: all but the last axis. The cell's output is small (a product of gate and tanh), so its
            # projection is scaled up for the state to matter to the next step.
            gain = {"W_P_0": 3.0, "W_0": 1.0, "W_proj": 1.5}.get(leaf, 1.0)
            weights[name] = uniform(shape, gain / math.sqrt(math.prod(shape[:-1])))
    return weights
