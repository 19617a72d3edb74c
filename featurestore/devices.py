"""Devices of torch: which one a name means, which numbers it multiplies fast, its memory running out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.errors import EncoderOutOfMemory, UsageError


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, else the CPU.

    Raises
    ------
    UsageError
        If there is no such kind of device, or none here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported: expected auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index if device.index is not None else 0
    if index >= n_devices:
        raise UsageError(
            f"device {name!r} is not here: torch {torch.__version__} sees {n_devices} CUDA devices. "
            "Use --device cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda", index)


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device, without waiting for what the device is doing."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    # From ordinary memory a copy would wait until the work queued before it is done.
    return tensor.pin_memory().to(device, non_blocking=True)


def training_precision(name: str, device: torch.device) -> str:
    """Return the precision a name means on a device: ``float32`` or ``bfloat16``.

    ``auto`` is bfloat16 only where the hardware multiplies it: emulated, it is slower than float32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # A PyTorch that cannot say what the processor has gets the precision that is never wrong.
        capabilities: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
        found = capabilities()
        fast = any(found.get(feature, False) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if fast else "float32"


@contextlib.contextmanager
def out_of_memory_as_ours(subject: str, remedy: str) -> Iterator[None]:
    """Raise EncoderOutOfMemory, saying what did not fit and what to do, where torch raises its own."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EncoderOutOfMemory(f"{subject} does not fit into memory ({error}). {remedy}") from error
    except RuntimeError as error:
        # The CPU allocator of torch raises a plain RuntimeError.
        if "can't allocate memory" not in str(error):
            raise
        raise EncoderOutOfMemory(f"{subject} does not fit into memory ({error}). {remedy}") from error
