"""The state of an unfinished training as one file, and the check that it belongs to the one at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featurestore.disk.atomic import write_atomic
from featurestore.errors import ModelError, UsageError
from featurestore.tensorfile import read_tensor_file, tensor_file_image

FORMAT = "featurestore pretraining checkpoint"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SavedTraining:
    """What a checkpoint holds: tensors by name, and how far the training was."""

    tensors: dict[str, NDArray[Any]]
    progress: dict[str, Any]


class Checkpoint:
    """One file, replaced whole at every write.

    Parameters
    ----------
    path : Path
    identity : mapping
        What decides the training (shape, settings, texts) as plain JSON values: a checkpoint of a training
        that differs in it is refused.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity = dict(identity)

    def write(self, tensors: Mapping[str, NDArray[Any]], progress: Mapping[str, Any]) -> None:
        """Replace the checkpoint.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing; the one before is untouched.
        """
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "identity": self._identity,
            "progress": dict(progress),
        }
        image = tensor_file_image(
            metadata, tensors, noun="training checkpoint", remedy="choose a smaller shape or vocabulary"
        )
        write_atomic(self.path, image)

    def read(self) -> SavedTraining | None:
        """Return the checkpoint, or None where there is none.

        Raises
        ------
        ModelError
            If it is damaged.
        UsageError
            If it belongs to another training: naming every setting that differs.
        """
        if not self.path.exists():
            return None
        file = read_tensor_file(
            self.path, format_name=FORMAT, format_version=FORMAT_VERSION, noun="training checkpoint"
        )
        identity, progress = file.metadata.get("identity"), file.metadata.get("progress")
        if not isinstance(identity, dict) or not isinstance(progress, dict):
            raise ModelError(f"{self.path} cannot be read as a training checkpoint: it lacks its description")
        differences = list(_differences(identity, self._identity))
        if differences:
            raise UsageError(
                f"{self.path} belongs to another training:\n  "
                + "\n  ".join(differences)
                + "\nGo on with its settings, choose another --out, or empty that folder to begin anew"
            )
        return SavedTraining(file.tensors, progress)


def _differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """Return one line per value that differs, by its dotted name."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            line
            for key in sorted(theirs.keys() | ours.keys())
            for line in _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours) and name == "corpora":
        return [
            line
            for number, (left, right) in enumerate(zip(theirs, ours, strict=True))
            for line in _differences(left, right, f"{name}[{number}]")
        ]
    return [] if theirs == ours else [f"{name}: {theirs!r} there, {ours!r} asked for"]
