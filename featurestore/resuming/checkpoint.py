"""The state of an unfinished training as one file, and the check that it belongs to the one at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import NDArray

from featurestore import limits
from featurestore.disk.atomic import write_atomic
from featurestore.errors import ModelError, StateError, UsageError
from featurestore.tensorfile import read_tensor_file, tensor_file_image

FORMAT_VERSION = 1

_MAX_BYTES = 8 * limits.MAX_CHECKPOINT_BYTES
"""A checkpoint of a head has its weights five times: as they are, two moments, the average, and the best."""

_MOST_LINES = 20


Difference = tuple[str, Any, Any]
"""Dotted name of a setting, its value in the checkpoint, and the one asked for."""


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
    format_name : str
        What the file says that it is.
    smaller, anew : str
        For the errors: what to do where it grows too large, and where it belongs to another training.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], *, format_name: str, smaller: str, anew: str
    ) -> None:
        self.path = path
        self._identity = dict(identity)
        self._format_name, self._smaller, self._anew = format_name, smaller, anew

    def write(self, tensors: Mapping[str, NDArray[Any]], progress: Mapping[str, Any]) -> None:
        """Replace the checkpoint.

        Raises
        ------
        StoreWriteError
            Disk full, read-only, or failing; the one before is untouched.
        ModelError
            If it is too large; the one before is untouched.
        """
        metadata = {
            "format": self._format_name,
            "format_version": FORMAT_VERSION,
            "identity": self._identity,
            "progress": dict(progress),
        }
        image = tensor_file_image(
            metadata, tensors, max_bytes=_MAX_BYTES, noun="training checkpoint", remedy=self._smaller
        )
        write_atomic(self.path, image)

    def read(self) -> SavedTraining | None:
        """Return the checkpoint, or None where there is none.

        Raises
        ------
        ModelError
            If it is damaged.
        StateError
            If it belongs to another training: naming every setting that differs; its attributes are those of
            the first.
        """
        if not self.path.exists():
            return None
        file = read_tensor_file(
            self.path,
            format_name=self._format_name,
            format_version=FORMAT_VERSION,
            noun="training checkpoint",
            max_bytes=_MAX_BYTES,
        )
        identity, progress = file.metadata.get("identity"), file.metadata.get("progress")
        if not isinstance(identity, dict) or not isinstance(progress, dict):
            raise ModelError(f"{self.path} cannot be read as a training checkpoint: it lacks its description")
        differences = list(_differences(identity, self._identity))
        if differences:
            self.refuse(differences)
        return SavedTraining(file.tensors, progress)

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Raise what goes wrong inside, where a checkpoint is put to use, as ours.

        Raises
        ------
        StateError
            For one: with the path and what to do.
        ModelError
            For an error of Python's or PyTorch's: the checkpoint does not hold what was written.
        """
        try:
            yield
        except StateError as error:
            self.refuse([(error.field, error.found, error.expected)])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.path} is no checkpoint of this training ({type(error).__name__}: {error}): restore "
                "it, or remove it to begin anew"
            ) from error

    def refuse(self, differences: Sequence[Difference]) -> NoReturn:
        """Raise the StateError for a checkpoint of another training."""
        lines = [f"{name}: {it!r:.300} there, {here!r:.300} asked for" for name, it, here in differences]
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
        name, theirs, ours = differences[0]
        raise StateError(
            f"{self.path} belongs to another training:\n  " + "\n  ".join(lines) + f"\n{self._anew}",
            field=name,
            expected=ours,
            found=theirs,
        )


def refuse_unfinished(path: Path) -> None:
    """Refuse to begin a training whose checkpoint would take the place of another's.

    Raises
    ------
    UsageError
        If there is a file.
    """
    if path.exists():
        raise UsageError(
            f"{path} holds an unfinished training, which would be overwritten: go on with it (--resume, "
            "resume=True), or remove it to begin anew"
        )


def _differences(theirs: Any, ours: Any, name: str = "") -> list[Difference]:
    """Return the values that differ, by their dotted names."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            found
            for key in sorted(theirs.keys() | ours.keys())
            for found in _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours) and name == "corpora":
        return [
            found
            for number, (left, right) in enumerate(zip(theirs, ours, strict=True))
            for found in _differences(left, right, f"{name}[{number}]")
        ]
    return [] if theirs == ours else [(name, theirs, ours)]
