"""Linear layers whose weight is prepacked: laid out once in the order this processor multiplies in."""

from __future__ import annotations

import functools
import logging
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from featurestore.encoders.elmo.model.numerics import full_float32_products
from featurestore.vectors import exceeds

logger = logging.getLogger(__name__)

Activation = Literal["none", "sigmoid", "tanh", "relu"]

_IN_PLACE = {"sigmoid": torch.sigmoid_, "tanh": torch.tanh_, "relu": torch.relu_}

_ROWS_EXPECTED = 128
"""Row count that the weight is laid out for. It serves others too; one made for a single row would not."""

_FEW_ROWS = 32
"""Row counts up to this are padded to a multiple of 8, larger ones to a multiple of 16."""


_BLOCK = 256
"""Rows of the identity multiplied at once."""


def padded_rows(n_rows: int) -> int:
    """Return the row count that ``n_rows`` rows are padded to before a product.

    oneDNN compiles one kernel per row count (about 1 ms each), outputs of many sizes fragment memory (100 MB
    over 256 sizes), and a single row is summed in another order than a block.
    """
    multiple = 8 if n_rows <= _FEW_ROWS else 16
    return -(-n_rows // multiple) * multiple


class PrepackedLinear:
    """``activation(rows @ weight.T + bias)`` for one weight.

    A matrix library reorders its operands before it multiplies. For a weight of 64 MB and a few hundred rows
    that takes a third as long as the arithmetic. On a CPU the weight is reordered once, by oneDNN, which is
    part of torch: on two cores of an AMD EPYC with 4,096 cells, in float32, a product then runs at 205
    GFLOP/s with 64 rows and 222 with 400, where ``torch.addmm`` reaches 96 and 161 (in bfloat16 395 and 440,
    against 324 and 402). A row's result is then the same to the bit whatever rows are multiplied with it.

    The operators are the ones that torch's compiler substitutes for a linear layer. They are undocumented,
    so they are used only where they exist and are right: :func:`prepacking_works`. Elsewhere, and on a GPU,
    the product is ``addmm``.

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, n_inputs)
        Not kept in this form where it is prepacked.
    bias : Tensor, shape (n_outputs,), optional
        Of the weight's type.
    activation : str, optional
        ``none`` (by default), ``sigmoid``, ``tanh`` or ``relu``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> None:
        self._bias, self._activation = bias, activation
        self._n_inputs = weight.shape[1]
        self._prepacked = weight.device.type == "cpu" and prepacking_works(weight.dtype)
        self._weight = _prepacked(weight) if self._prepacked else weight

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the product.

        Parameters
        ----------
        rows : Tensor, shape (n_rows, n_inputs)
            Of the weight's type; copied if their count is not one of :func:`padded_rows`.

        Returns
        -------
        Tensor, shape (n_rows, n_outputs)
            A new tensor.
        """
        return self._product(rows, self._bias, self._activation)

    def linear(self, rows: Tensor) -> Tensor:
        """Return the product with the bias and without the activation."""
        return self._product(rows, self._bias, "none")

    def weight(self) -> Tensor:
        """Return a copy of the weight, (n_outputs, n_inputs): its products with the rows of the identity."""
        identity = torch.eye(self._n_inputs, dtype=self._weight.dtype, device=self._weight.device)
        rows = (identity[first : first + _BLOCK] for first in range(0, self._n_inputs, _BLOCK))
        return torch.cat([self._product(block, None, "none") for block in rows]).T.contiguous()

    def _product(self, rows: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        if self._prepacked:
            n_missing = padded_rows(len(rows)) - len(rows)
            padded = functional.pad(rows, (0, 0, 0, n_missing)) if n_missing else rows
            return _multiplied(padded, self._weight, bias, activation)[: len(rows)]
        product = functional.linear(rows, self._weight, bias)
        return product if activation == "none" else _IN_PLACE[activation](product)


@functools.cache
def prepacking_works(dtype: torch.dtype) -> bool:
    """Return whether torch can prepack weights of a type here, and multiplies rightly with them."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        problem = _disagreement(dtype)
    except Exception as error:  # noqa: BLE001 - undocumented operators may fail in any way
        problem = f"{type(error).__name__}: {error}"
    if problem:
        logger.info("products with prepacked weights are not used for %s: %s", dtype, problem)
    return not problem


def _disagreement(dtype: torch.dtype) -> str:
    """Return how products with prepacked weights differ beyond rounding, or an empty string."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, rows = (
        torch.randn(*shape, generator=generator).mul_(size).to(dtype)
        for shape, size in (((96, 80), 0.1), ((96,), 1), ((37, 80), 1))
    )
    prepacked = _prepacked(weight)
    exact = functional.linear(rows.double(), weight.double(), bias.double())
    # Products are summed in float32 and rounded once: the bound follows from the size of the terms.
    sums = 8 * torch.finfo(torch.float32).eps * functional.linear(rows.double().abs(), weight.double().abs())
    for n_rows in (1, 37):
        for activation, apply in {"none": torch.clone, **_IN_PLACE}.items():
            with full_float32_products():
                found = _multiplied(rows[:n_rows], prepacked, bias, activation)
            expected = apply(exact[:n_rows].clone())
            allowed = sums[:n_rows] + torch.finfo(dtype).eps * expected.abs()
            if found.dtype != dtype or exceeds((found.double() - expected).abs(), allowed).any():
                return f"{n_rows} rows, activation {activation}, are wrong"
    return ""


def _prepacked(weight: Tensor) -> Tensor:
    operators: Any = torch.ops.mkldnn
    prepacked: Tensor = operators._reorder_linear_weight(weight.contiguous(), _ROWS_EXPECTED)
    return prepacked


def _multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    operators: Any = torch.ops.mkldnn
    product: Tensor = operators._linear_pointwise(rows, weight, bias, activation, [], "")
    return product
