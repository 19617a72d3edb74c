"""The number format of each step of the network: the rounding rules that a recipe's version stands for.

=============  ==========================================================================================
float32        everything in float32
bfloat16,      weights, token vectors, the two operands of every matrix product, and layer outputs are
float16        rounded to the format; products accumulate in float32 and (where the hardware multiplies in
               the format) come back rounded to it; gates, their nonlinearities, the cell and its clip are
               computed and kept in float32; an average of layers is taken in float32
float64        everything in float64: the reference of the tests; no recipe offers it
=============  ==========================================================================================

Few CPUs multiply float16 in hardware; without it torch is many times slower than in float32. On a CPU the
operands are therefore rounded to float16 and multiplied in float32, which follows the rules above.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.errors import UsageError

_FORMATS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class Numerics:
    """The formats of one network.

    Attributes
    ----------
    precision : str
        Name of the format.
    operands : torch.dtype
        Type of the tensors that are multiplied.
    state : torch.dtype
        Type of gates and cells.
    rounding : torch.dtype or None
        Format that operands are rounded to where it is not their type.
    """

    precision: str
    operands: torch.dtype
    state: torch.dtype
    rounding: torch.dtype | None = None

    @classmethod
    def of(cls, precision: str, device: torch.device) -> Numerics:
        """Return the formats for a precision on a device.

        Raises
        ------
        UsageError
            If the precision is unknown.
        """
        if precision not in _FORMATS:
            raise UsageError(f"unknown precision {precision!r}: expected one of {', '.join(_FORMATS)}")
        operands = _FORMATS[precision]
        state = torch.float64 if precision == "float64" else torch.float32
        if precision == "float16" and device.type == "cpu":
            return cls(precision, torch.float32, state, rounding=operands)
        return cls(precision, operands, state)

    @property
    def products_are_states(self) -> bool:
        """Whether products come in the type of gates and cells, so that nonlinearities apply directly."""
        return self.operands == self.state

    def operand(self, array: NDArray[Any], device: torch.device) -> Tensor:
        """Return an array of a weights file as an operand on a device."""
        return self.round(torch.from_numpy(np.ascontiguousarray(array)).to(device))

    def round(self, values: Tensor) -> Tensor:
        """Return values as operands: rounded to the format, of the operands' type."""
        if self.rounding is not None:
            values = values.to(self.rounding)
        return values.to(self.operands)


@contextlib.contextmanager
def full_float32_products() -> Iterator[None]:
    """Multiply float32 in full inside the context, whatever the program has set (TF32, bfloat16).

    Sums of sixteen-bit products stay in float32 too, where a GPU might sum parts of them in their own format.
    The settings are global in torch: another thread that computes meanwhile is slowed down, not harmed.
    """
    backends: Any = torch.backends  # created at run time, unknown to type checkers
    matmul = backends.cuda.matmul
    wanted = [
        *(
            (setting, "fp32_precision", "ieee")
            for setting in (matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        ),
        (matmul, "allow_fp16_reduced_precision_reduction", False),
        (matmul, "allow_bf16_reduced_precision_reduction", False),
        (matmul, "allow_fp16_accumulation", False),
    ]
    before = [getattr(setting, name) for setting, name, _ in wanted]
    try:
        for setting, name, value in wanted:
            setattr(setting, name, value)
        yield
    finally:
        for (setting, name, _), value in zip(wanted, before, strict=True):
            setattr(setting, name, value)
