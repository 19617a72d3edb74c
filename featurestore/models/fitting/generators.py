"""Every generator a training may draw from: seeded, put back afterwards, kept in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Drawn(NamedTuple):
    """How far each generator is: PyTorch's on the CPU and on the device, NumPy's legacy one, Python's."""

    host: Tensor
    device: Tensor | None
    legacy: Any
    python: Any


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every generator a training may draw from, and put each back afterwards."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def drawn(device: torch.device) -> Drawn:
    """Return how far the generators are."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return Drawn(torch.get_rng_state(), on_device, np.random.get_state(), random.getstate())


def put_back(states: Drawn, device: torch.device) -> None:
    """Let the generators go on from there."""
    torch.set_rng_state(states.host)
    if states.device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states.device, device)
    np.random.set_state(states.legacy)
    random.setstate(states.python)


def as_tensors(states: Drawn) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return states as tensors of uint8 and int64, and as plain values."""
    _, key, at, has_gauss, gauss = states.legacy
    version, words, normal = states.python
    tensors = {
        "host": states.host,
        "legacy": torch.from_numpy(key.astype(np.int64)),
        "python": torch.tensor(words, dtype=torch.int64),
    }
    if states.device is not None:
        tensors["device"] = states.device
    return tensors, {"legacy": [int(at), int(has_gauss), float(gauss)], "python": [version, normal]}


def from_tensors(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Drawn:
    """Return the states of which :func:`as_tensors` made tensors and values.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it did not.
    """
    at, has_gauss, gauss = values["legacy"]
    version, normal = values["python"]
    return Drawn(
        tensors["host"],
        tensors.get("device"),
        ("MT19937", tensors["legacy"].numpy().astype(np.uint32), at, has_gauss, gauss),
        (version, tuple(tensors["python"].tolist()), normal),
    )
