"""The checkpoint of a training: when it is written, whose it is, its tensors and the way back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore._version import __version__
from featurestore.dataset.features import FeatureDataset
from featurestore.errors import ModelError, StateError, StoreWriteError
from featurestore.models.fitting.averaging import WeightAverage
from featurestore.models.heads import Head
from featurestore.models.inputs.recipes import joined
from featurestore.models.settings import SizedConfig
from featurestore.resuming.checkpoint import Checkpoint

log = logging.getLogger(__name__)

FORMAT = "featurestore training checkpoint"

CHECKPOINT_SECONDS = 300.0

_SHORT_SECONDS = 1.0
_WRITES = 20
"""Epochs shorter than ``_SHORT_SECONDS``, or than ``_WRITES`` times what writing a checkpoint took, do not
have one each."""

_WORTH_SECONDS = 10.0
"""A training interrupted within this time and its first epoch is not kept: it is as soon begun anew."""

_KNOWN = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW knows of each parameter."""

State = Mapping[str, Tensor]


@dataclass
class InProgress:
    """An epoch in progress.

    Its number from 1, summed loss and labels so far, whether a batch was taken and whether all were, and the
    seconds before it was interrupted.
    """

    number: int = 1
    total: float = 0.0
    n_labels: int = 0
    begun: bool = False
    learned: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        counts = (self.number, self.n_labels)
        if any(type(count) is not int or count < 0 for count in counts) or not math.isfinite(self.total):
            raise ValueError(f"{counts}, {self.total!r} are no counts of an epoch")


def identity_of(
    dataset: FeatureDataset,
    dev_dataset: FeatureDataset,
    config: SizedConfig,
    head: Head,
    device: torch.device,
) -> dict[str, Any]:
    """Return what decides a training, as plain values, but for where its sentences lie in the stores."""
    return {
        "version": {"featurestore": __version__, "torch": str(torch.__version__)},
        "settings": config.to_dict(),
        "device": device.type,
        "head": head.config.to_dict(),
        "precision": str(head.learning_dtype).removeprefix("torch."),
        "recipe": joined(dataset.recipes).fingerprint,
        "labels": dataset.label_counts,
        "training data": dataset.identity_of_labels(),
        "development data": dev_dataset.identity_of_labels(),
    }


class Keeper:
    """Writes the checkpoint of a training when it is time.

    Parameters
    ----------
    path : Path
    identity : mapping
        From :func:`identity_of`.
    seconds : float
        Between checkpoints within an epoch.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], seconds: float) -> None:
        self.checkpoint = Checkpoint(
            path,
            identity,
            format_name=FORMAT,
            smaller="choose a smaller hidden size (--hidden)",
            anew="Go on with its settings and data, choose another output, or remove it to begin anew",
        )
        self._seconds = seconds
        self._began = self._written = time.monotonic()
        self._cost = 0.0

    def due(self, *, epoch_ended: bool = False) -> bool:
        """Whether it is time for a checkpoint."""
        short = max(_SHORT_SECONDS, _WRITES * self._cost)
        seconds = min(short, self._seconds) if epoch_ended else self._seconds
        return time.monotonic() - self._written >= seconds

    def worth(self) -> bool:
        """Whether a training that is interrupted in its first epoch has come far enough to be kept."""
        return time.monotonic() - self._began >= min(_WORTH_SECONDS, self._seconds)

    def write(self, tensors: State, progress: Mapping[str, Any]) -> None:
        """Write a checkpoint. Where that fails it is said, and the training goes on."""
        began = time.monotonic()
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        try:
            self.checkpoint.write(arrays, progress)
        except (StoreWriteError, ModelError) as error:
            log.warning("no checkpoint was written, and the one before is untouched: %s", error)
        self._written = time.monotonic()
        self._cost = self._written - began

    def remove(self) -> None:
        """Remove the checkpoint of a training that has ended."""
        try:
            self.checkpoint.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s could not be removed: %s", self.checkpoint.path, error)


def prefixed(prefix: str, tensors: State | Iterable[Tensor]) -> dict[str, Tensor]:
    """Return tensors under names in a part of the checkpoint; those without a name are counted."""
    named = tensors.items() if isinstance(tensors, Mapping) else enumerate(tensors)
    return {f"{prefix}.{name}": tensor for name, tensor in named}


def parts(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each part of a checkpoint."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        found.setdefault(part, {})[rest] = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    return found


def weights_of(head: Head, optimizer: torch.optim.Optimizer, average: WeightAverage) -> dict[str, Tensor]:
    """Return what learns: the weights, what the optimizer knows of each, and their average."""
    state = optimizer.state_dict()["state"]
    moments = {f"{i}.{name}": tensor for i, known in state.items() for name, tensor in known.items()}
    return {
        **prefixed("head", head.state_dict()),
        **prefixed("optimizer", moments),
        **prefixed("average", average.weights),
    }


def restore_weights(
    head: Head,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    tensors: Mapping[str, State],
    n_updates: int,
) -> None:
    """Let them go on from the parts of a checkpoint.

    Raises
    ------
    KeyError, ValueError, RuntimeError
        If those are of another head.
    """
    head.load_state_dict(tensors["head"])
    saved = tensors["average"]
    average.restore([saved[str(number)] for number in range(len(saved))], n_updates)
    shapes = [tuple(parameter.shape) for parameter in head.parameters()]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.get("optimizer", {}).items():
        number, _, name = key.partition(".")
        expected = () if name == "step" else shapes[int(number)]
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{key!r} has shape {tuple(tensor.shape)}, expected {expected}")
        state.setdefault(int(number), {})[name] = tensor
    if any(set(known) != _KNOWN for known in state.values()):
        raise ValueError("it lacks moments of the optimizer")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def require_same(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse development data that lie elsewhere.

    Raises
    ------
    StateError
        If they do.
    """
    for name in ("store", "places"):
        if saved[name] != identity[name]:
            raise StateError(
                "other development data",
                field=f"development data.{name}",
                expected=identity[name],
                found=saved[name],
            )
