"""Trained models as one HDF5 file: tensors, labels, and the recipe of the vectors they were trained on.

The file holds one dataset per tensor of the head (little-endian float32, named as in its ``state_dict``),
``metadata`` (canonical JSON as bytes) and ``metadata_sha256``. No groups, attributes, links, filters or
variable-length types, and no pickle: opening a stranger's model runs no code and reads no other file. Every
tensor's SHA-256 stands in the metadata, so damage is an error and never a wrong label. The same training
gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

import featurestore
from featurestore import limits
from featurestore.errors import ModelError, UsageError
from featurestore.models.heads import Head, HeadConfig, build_head
from featurestore.recipe import Recipe, canonical_json
from featurestore.store.filesystem import write_atomic

FORMAT = "featurestore model"
FORMAT_VERSION = 1
_MAX_METADATA_BYTES = 32 * limits.MAX_RECIPE_BYTES
_FILE_TYPES = {"<f4": h5py.h5t.IEEE_F32LE, "|u1": h5py.h5t.STD_U8LE}
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "featurestore_version": str,
    "head": str,
    "config": dict,
    "label_names": list,
    "label": (str, type(None)),
    "recipe": dict,
    "fingerprint": str,
    "seed": int,
    "training": dict,
    "scores": dict,
    "tensors": dict,
}
"""What the metadata holds besides its format and version, and of which JSON type."""


@dataclass
class TrainedModel:
    """A head with everything needed to use it: its labels and the recipe of its input.

    Attributes
    ----------
    head : Head
        The network.
    label_names : tuple of str
        Name of each label id.
    recipe : Recipe
        What the vectors it was trained on were made by.
    label : str or None
        Name of the label in the training corpus (``upos``), where the corpus has several.
    seed : int
        Of the training.
    training : mapping
        The training settings, as plain JSON values.
    scores : mapping
        Scores on the development set, as plain JSON values.
    featurestore_version : str
        The version that trained it.
    """

    head: Head
    label_names: tuple[str, ...]
    recipe: Recipe
    label: str | None = None
    seed: int = 0
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    featurestore_version: str = featurestore.__version__

    def __post_init__(self) -> None:
        if len(self.label_names) != self.head.config.n_labels:
            raise ModelError(
                f"a head of {self.head.config.n_labels} labels needs as many names, "
                f"found {len(self.label_names)}"
            )

    @property
    def label_kind(self) -> str:
        """``"token"`` or ``"sentence"``."""
        return self.head.label_kind

    def require_recipe(self, recipe: Recipe, *, where: str) -> None:
        """Raise unless vectors of a recipe are what this model was trained on.

        Raises
        ------
        RecipeMismatchError
            Naming every field that differs.
        """
        recipe.require_equal(
            self.recipe,
            where=where,
            remedy="Use the store the model was trained on, extract the corpus with that encoder, or train "
            "a new model.",
        )

    def save(self, path: str | Path) -> None:
        """Write the model to a file, whole or not at all.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing.
        ModelError
            If it is larger than a model file may be.
        """
        write_atomic(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of its file."""
        arrays = {
            name: np.ascontiguousarray(tensor.detach().cpu().numpy(), "<f4")
            for name, tensor in sorted(self.head.state_dict().items())
        }
        metadata = canonical_json(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "featurestore_version": self.featurestore_version,
                "head": self.head.name,
                "config": self.head.config.to_dict(),
                "label_names": list(self.label_names),
                "label": self.label,
                "recipe": self.recipe.to_dict(),
                "fingerprint": self.recipe.fingerprint,
                "seed": self.seed,
                "training": dict(self.training),
                "scores": dict(self.scores),
                "tensors": {name: _sha256(array) for name, array in arrays.items()},
            }
        )
        n_bytes = len(metadata) + sum(array.nbytes for array in arrays.values())
        if len(metadata) > _MAX_METADATA_BYTES or n_bytes > limits.MAX_CHECKPOINT_BYTES:
            raise ModelError(
                f"a model of {n_bytes:,} bytes, {len(metadata):,} of them metadata, exceeds the bounds of "
                f"{limits.MAX_CHECKPOINT_BYTES:,} and {_MAX_METADATA_BYTES:,}: choose a smaller --hidden"
            )
        arrays["metadata"] = np.frombuffer(metadata, "u1")
        arrays["metadata_sha256"] = np.frombuffer(hashlib.sha256(metadata).digest(), "u1")
        # In memory: on a full disk libhdf5 can lose data silently; our own writer cannot.
        with h5py.File("model", "w", driver="core", backing_store=False, libver=("earliest", "v108")) as file:
            for name, array in sorted(arrays.items()):
                file.create_dataset(name, data=array, track_times=False)
            file.flush()
            image: bytes = file.id.get_file_image()
        return image

    @classmethod
    def load(cls, path: str | Path) -> TrainedModel:
        """Read a model from a file, checking everything.

        Raises
        ------
        ModelError
            If the file is no model, is damaged, holds anything a model may not, or is of a newer version.
        """
        path = Path(path)
        if not path.is_file():
            _refuse(path, "no such file; train writes one (featurestore train --help)")
        n_bytes = path.stat().st_size
        if n_bytes > limits.MAX_CHECKPOINT_BYTES:
            _refuse(path, f"it has {n_bytes:,} bytes, at most {limits.MAX_CHECKPOINT_BYTES:,} are allowed")
        try:
            with h5py.File(path, "r", locking=False) as file:
                return _read_model(path, file)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"{path} is not a model file, or is damaged: {error}. Restore it, or train again"
            ) from error


def _read_model(path: Path, file: h5py.File) -> TrainedModel:
    for name in ("metadata", "metadata_sha256"):
        if name not in file:
            _refuse(path, f"it has no {name!r} dataset")
    metadata = _read_metadata(path, file)
    head = _empty_head(path, metadata)
    expected = head.state_dict()
    found = set(file) - {"metadata", "metadata_sha256"}
    if found != set(expected) or set(metadata["tensors"]) != set(expected) or len(file.attrs):
        wrong = sorted(found ^ set(expected)) or "attributes or the list of tensors"
        _refuse(path, f"its contents are not those of a {head.name}: {wrong} missing or too many")
    tensors = {}
    for name, placeholder in expected.items():
        array = _read_array(path, file, name, "<f4", tuple(placeholder.shape))
        if _sha256(array) != metadata["tensors"][name]:
            _refuse(path, f"the bytes of {name!r} are not those that were written")
        if not np.isfinite(array).all():
            _refuse(path, f"{name!r} holds NaN or infinity")
        tensors[name] = torch.from_numpy(array.astype(np.float32, copy=False))
    head.load_state_dict(tensors, strict=True, assign=True)
    head.eval()
    try:
        recipe = Recipe(metadata["recipe"])
    except UsageError as error:
        raise ModelError(f"{path}: {error}") from error
    if recipe.fingerprint != metadata["fingerprint"]:
        _refuse(path, f"its recipe has fingerprint {recipe.fingerprint}, it states {metadata['fingerprint']}")
    return TrainedModel(
        head=head,
        label_names=tuple(metadata["label_names"]),
        recipe=recipe,
        label=metadata["label"],
        seed=metadata["seed"],
        training=metadata["training"],
        scores=metadata["scores"],
        featurestore_version=metadata["featurestore_version"],
    )


def _read_metadata(path: Path, file: h5py.File) -> dict[str, Any]:
    text = _read_array(path, file, "metadata", "|u1", None).tobytes()
    digest = _read_array(path, file, "metadata_sha256", "|u1", (32,)).tobytes()
    if hashlib.sha256(text).digest() != digest:
        _refuse(path, "the bytes of its metadata are not those that were written")
    try:
        metadata = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        _refuse(path, "its metadata is nested too deeply")
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        _refuse(path, f"its metadata does not say that it is a {FORMAT}")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        _refuse(
            path,
            f"it has format version {version!r}, this featurestore reads {FORMAT_VERSION}: upgrade it",
        )
    if set(metadata) != {"format", "format_version", *_FIELDS}:
        _refuse(path, f"its metadata has the fields {sorted(metadata)}")
    for name, kind in _FIELDS.items():
        if not isinstance(metadata[name], kind) or isinstance(metadata[name], bool):
            _refuse(path, f"the field {name!r} of its metadata is a {type(metadata[name]).__name__}")
    names = metadata["label_names"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        _refuse(path, "its label names are not distinct strings")
    return metadata


def _empty_head(path: Path, metadata: Mapping[str, Any]) -> Head:
    """Return the head the metadata describes, with shapes but no memory behind its tensors."""
    config = metadata["config"]
    if set(config) != set(HeadConfig.__dataclass_fields__):
        _refuse(path, f"its head has the sizes {sorted(config)}")
    try:
        with torch.device("meta"):
            head = build_head(metadata["head"], HeadConfig(**config))
    except UsageError as error:
        raise ModelError(f"{path} cannot be read as a model: {error}") from error
    if len(metadata["label_names"]) != head.config.n_labels:
        _refuse(path, f"it names {len(metadata['label_names'])} labels for {head.config.n_labels}")
    return head


def _read_array(
    path: Path, file: h5py.File, name: str, dtype: str, shape: tuple[int, ...] | None
) -> NDArray[np.generic]:
    """Read one dataset, checked to be plain, of the expected type and shape, and within this file."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        _refuse(path, f"{name!r} is a link to somewhere else")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        _refuse(path, f"{name!r} is not a dataset")
    plan = dataset.id.get_create_plist()
    # Filters need chunks, so that contiguous is unfiltered too.
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_external_count():
        _refuse(path, f"{name!r} is chunked, filtered, external or virtual")
    if not dataset.id.get_type().equal(_FILE_TYPES[dtype]):
        _refuse(path, f"{name!r} has another type than {dtype}")
    if shape is None:
        if len(dataset.shape) != 1 or dataset.shape[0] > _MAX_METADATA_BYTES:
            _refuse(path, f"{name!r} has shape {dataset.shape}, expected (n,), n <= {_MAX_METADATA_BYTES:,}")
    elif dataset.shape != shape:
        _refuse(path, f"{name!r} has shape {dataset.shape}, expected {shape}")
    n_bytes = dataset.size * np.dtype(dtype).itemsize
    offset = dataset.id.get_offset()
    if offset is None or offset + n_bytes > path.stat().st_size:
        _refuse(path, f"the {n_bytes:,} bytes of {name!r} do not lie in this file")
    array: NDArray[np.generic] = dataset[...]
    return array


def _sha256(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(array.data.cast("B")).hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(path: Path, what: str) -> NoReturn:
    raise ModelError(f"{path} cannot be read as a model: {what}")
