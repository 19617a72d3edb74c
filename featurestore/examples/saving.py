"""A PyTorch module's weights in a file without code in it, unlike what ``torch.save`` pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featurestore.disk.atomic import write_atomic
from featurestore.disk.destination import regular_file
from featurestore.tensorfile import read_tensor_file, tensor_file_image

FORMAT, FORMAT_VERSION = "featurestore-example", 1


def save_module(path: Path, module: nn.Module, about: Mapping[str, Any]) -> None:
    """Write the float32 weights of a module to a file, whole or not at all.

    Parameters
    ----------
    path : Path
    module : torch.nn.Module
    about : mapping
        Plain values that are needed to make the module again, such as sizes and label names.

    Raises
    ------
    ModelError
        If they cannot be kept in such a file.
    UsageError
        If something is there that is no regular file.
    StoreWriteError
        If the disk is full, read-only, or failing.
    """
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "about": dict(about)}
    tensors = {
        name: np.ascontiguousarray(tensor.detach().cpu().numpy(), "<f4")
        for name, tensor in module.state_dict().items()
    }
    write_atomic(regular_file(path), tensor_file_image(metadata, tensors, noun="model"))


def load_module(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what :func:`save_module` was told about a module, and its ``state_dict``.

    Raises
    ------
    ModelError
        If the file is not there, is not one of these, or is damaged.
    """
    file = read_tensor_file(
        path, format_name=FORMAT, format_version=FORMAT_VERSION, noun="model of an example"
    )
    weights = {name: torch.from_numpy(array.astype(np.float32)) for name, array in file.tensors.items()}
    return file.metadata["about"], weights
