"""Trained models as one HDF5 file: tensors, labels, and the recipe of the vectors they were trained on.

The file is a :mod:`~featurestore.tensorfile`: the float32 tensors of the head, named as in its
``state_dict``, and the rest as metadata. Opening a stranger's model runs no code and reads no other file,
damage is an error and never a wrong label, and the same training gives the same bytes.

A model of several stores has ``inputs`` among the sizes of its head, which versions that know one store only
refuse, and a recipe that lists theirs with their fingerprints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featurestore._version import __version__
from featurestore.disk.atomic import write_atomic
from featurestore.disk.destination import regular_file
from featurestore.errors import ModelError, UsageError
from featurestore.models.heads import Head, build_head
from featurestore.models.inputs.recipes import matched, parted
from featurestore.models.sizes import HeadConfig
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from featurestore.tensorfile import TensorReader, open_tensor_file, tensor_file_image

FORMAT = "featurestore model"
FORMAT_VERSION = 1
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
        What the vectors it was trained on were made by. Of several stores, it lists theirs.
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
    featurestore_version: str = __version__

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

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recipe of each store that it reads, by name, in their order; of one store, under ``""``."""
        if not self.head.config.inputs:
            return {"": self.recipe}
        return parted(self.recipe, [name for name, _, _ in self.head.config.inputs])

    def matched_stores(self, given: Mapping[str, Recipe], *, where: Mapping[str, str]) -> dict[str, str]:
        """Return for each store that the model reads, by name in their order, the name of the given one.

        Parameters
        ----------
        given : mapping of str to Recipe
            By the names of stores, in any order.
        where : mapping of str to str
            What messages call each of them.

        Raises
        ------
        RecipeMismatchError
            If the model was trained on others, naming which and every field that differs.
        """
        found = matched(self.recipes, given, where=where)
        return found if self.head.config.inputs else {name: name for name in found.values()}

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
        """Write the model to a file, whole or not at all; of a link, its target is replaced.

        Raises
        ------
        UsageError
            If something is there that is no regular file.
        StoreWriteError
            Disk full, read-only, or failing.
        ModelError
            If it is larger than a model file may be.
        """
        write_atomic(regular_file(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of its file."""
        return tensor_file_image(
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
            },
            {
                name: np.ascontiguousarray(tensor.detach().cpu().numpy(), "<f4")
                for name, tensor in self.head.state_dict().items()
            },
            with_shapes=False,  # the head has them
            noun="model",
            remedy="choose a smaller --hidden",
        )

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
            found = "no such file"
            if path.exists():
                found = "it is a store" if Store.exists(path) else "it is no regular file"
            raise ModelError(
                f"{path} cannot be read as a model: {found}; train writes one (featurestore train --help)"
            )
        with open_tensor_file(path, format_name=FORMAT, format_version=FORMAT_VERSION, noun="model") as file:
            return _read_model(file)


def _read_model(file: TensorReader) -> TrainedModel:
    metadata = file.metadata
    _check_metadata(file)
    head = _empty_head(file)
    shapes = {name: tuple(placeholder.shape) for name, placeholder in head.state_dict().items()}
    arrays = file.read(shapes, types=("<f4",), owner=f"a {head.name}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            file.refuse(f"{name!r} holds NaN or infinity")
    tensors = {name: torch.from_numpy(array.astype(np.float32, copy=False)) for name, array in arrays.items()}
    head.load_state_dict(tensors, strict=True, assign=True)
    head.eval()
    try:
        recipe = Recipe(metadata["recipe"])
    except UsageError as error:
        raise ModelError(f"{file.path}: {error}") from error
    if recipe.fingerprint != metadata["fingerprint"]:
        file.refuse(f"its recipe has fingerprint {recipe.fingerprint}, it states {metadata['fingerprint']}")
    if head.config.inputs:
        try:
            parted(recipe, [name for name, _, _ in head.config.inputs])
        except UsageError as error:
            file.refuse(str(error))
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


def _check_metadata(file: TensorReader) -> None:
    metadata = file.metadata
    if set(metadata) != {"format", "format_version", *_FIELDS}:
        file.refuse(f"its metadata has the fields {sorted(metadata)}")
    for name, kind in _FIELDS.items():
        if not isinstance(metadata[name], kind) or isinstance(metadata[name], bool):
            file.refuse(f"the field {name!r} of its metadata is a {type(metadata[name]).__name__}")
    names = metadata["label_names"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        file.refuse("its label names are not distinct strings")


def _empty_head(file: TensorReader) -> Head:
    """Return the head the metadata describes, with shapes but no memory behind its tensors."""
    try:
        config = HeadConfig.from_dict(file.metadata["config"])
        with torch.device("meta"):
            head = build_head(file.metadata["head"], config)
    except UsageError as error:
        raise ModelError(f"{file.path} cannot be read as a model: {error}") from error
    n_names = len(file.metadata["label_names"])
    if n_names != head.config.n_labels:
        file.refuse(f"it names {n_names} labels for {head.config.n_labels}")
    return head
