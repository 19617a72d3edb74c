"""The warm initial state of a model: one LSTM state in which every sentence starts, in a small HDF5 file.

ELMo was trained with its state carried from sentence to sentence, and never met a state of zeros but at the
very start. A warm state is one typical of running text, made once (:mod:`featurestore.encoders.elmo.warm`)
and then fixed, so that a vector remains a function of its sentence and the recipe. It belongs to weights,
whose hash the file holds. The file has three contiguous datasets: ``hidden`` (n_layers, 2, projection_dim)
and ``memory`` (n_layers, 2, lstm_dim), float32, axis 1 being forward and backward; ``weights_sha256`` (32),
uint8. Reading and writing need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.opening import opened
from featurestore.encoders.elmo.files.weights import read_tensors, tensors_sha256, write_tensors
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import EncoderError, WeightsError


@dataclass(frozen=True, eq=False)
class WarmState:
    """A fixed initial state and the weights it was made with.

    Attributes
    ----------
    hidden : ndarray of float32, shape (n_layers, 2, projection_dim)
        Axis 1 is the direction: forward, backward.
    memory : ndarray of float32, shape (n_layers, 2, lstm_dim)
    weights_sha256 : str
        Of the weights file, in hexadecimal.
    """

    hidden: NDArray[np.float32]
    memory: NDArray[np.float32]
    weights_sha256: str

    @property
    def sha256(self) -> str:
        """The hash that recipes hold: of the two tensors, whatever file they lie in."""
        return tensors_sha256({"hidden": self.hidden, "memory": self.memory})


def read_state(path: Path, options: ElmoOptions, *, weights_sha256: str) -> WarmState:
    """Read a state file, checking that it belongs to a model.

    Parameters
    ----------
    path : Path
    options : ElmoOptions
        Of the model: they call for the shapes.
    weights_sha256 : str
        Of the model's weights file.

    Raises
    ------
    EncoderError
        If the file cannot be opened.
    WeightsError
        If it is no HDF5 file, is damaged, holds arrays of another shape or type, numbers that are not finite,
        or a state that was made with other weights.
    """
    state = _read(path, options)
    if state.weights_sha256 != weights_sha256:
        raise WeightsError(
            f"{path} was made with weights of SHA-256 {state.weights_sha256}, the weights here have "
            f"{weights_sha256}: a state belongs to its weights. {_REMEDY}"
        )
    return state


def same_state(path: Path, options: ElmoOptions, state: WarmState) -> bool:
    """Return whether a file holds this very state; False too for a file that holds none."""
    try:
        found = _read(path, options)
    except EncoderError:
        return False
    return (found.sha256, found.weights_sha256) == (state.sha256, state.weights_sha256)


def write_state(path: Path, state: WarmState) -> None:
    """Write a state file; it appears complete or not at all, in place of one that was there.

    Raises
    ------
    EncoderError
        If it cannot be written.
    """
    tensors: dict[str, NDArray[Any]] = {
        "hidden": state.hidden.astype(np.float32, copy=False),
        "memory": state.memory.astype(np.float32, copy=False),
        "weights_sha256": np.frombuffer(bytes.fromhex(state.weights_sha256), np.uint8),
    }
    write_tensors(path, tensors, what="the warm state")


_REMEDY = "Make it again: featurestore warm-up MODEL CORPUS... --force"


def _read(path: Path, options: ElmoOptions) -> WarmState:
    shapes = {
        "hidden": (options.n_layers, 2, options.projection_dim),
        "memory": (options.n_layers, 2, options.lstm_dim),
    }
    expected = "a warm state as `featurestore warm-up` makes it"
    doubt = f"Is it the state of this model? {_REMEDY}"
    with opened(path, "the warm state") as file:
        state = read_tensors(file, path, shapes, expected=expected, doubt=doubt, types=("f4",))
        origin = read_tensors(
            file, path, {"weights_sha256": (32,)}, expected=expected, doubt=doubt, types=("u1",)
        )
    for name, values in state.items():
        if not np.isfinite(values).all():
            raise WeightsError(f"{path}: {name} holds numbers that are not finite. {_REMEDY}")
    return WarmState(state["hidden"], state["memory"], origin["weights_sha256"].tobytes().hex())
