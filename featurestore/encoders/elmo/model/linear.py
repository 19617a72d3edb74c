"""Products with a matrix that stays: arranged once for this processor, not anew at every product."""

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
"""Rows that the arrangement is chosen for; it serves others as well, which one for a single row would not."""

_FEW_ROWS = 32
"""Up to so many, rows are brought up to a multiple of 8, beyond it to one of 16."""


_BLOCK = 256
"""Rows of the identity multiplied at once."""


def padded_rows(n_rows: int) -> int:
    """Return with how many rows so many are multiplied.

    oneDNN makes code for every number of rows anew, a millisecond each; results of ever other sizes leave
    gaps in memory, 100 MB with 256 sizes; and a single row it would add up in another order than several.
    """
    multiple = 8 if n_rows <= _FEW_ROWS else 16
    return -(-n_rows // multiple) * multiple


class FixedProduct:
    """``activation(rows @ weight.T + bias)`` for one weight.

    Libraries rearrange a matrix before they multiply, and for a weight of 64 MB and a few hundred rows that
    takes as long as a third of the arithmetic. On a CPU oneDNN, which torch brings along, keeps the weight
    arranged: measured on two cores of an AMD EPYC with 4,096 cells, in float32, it does 205 GFLOP/s with 64
    rows and 222 with 400 where ``torch.addmm`` does 96 and 161 (in bfloat16 395 and 440, 324 and 402). There
    every row's result is the same to the bit whatever rows come with it.

    The operators are those that torch's own compiler puts in place of a linear layer. They are not
    documented, so they are used only where they are there and right: :func:`arranging_works`. Elsewhere,
    and on a GPU, it is ``addmm``.

    Parameters
    ----------
    weight : Tensor, shape (n_outputs, n_inputs)
        Not kept where it is arranged.
    bias : Tensor, shape (n_outputs,), optional
        Of the weight's type.
    activation : str, optional
        ``none`` (by default), ``sigmoid``, ``tanh`` or ``relu``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> None:
        self._bias, self._activation = bias, activation
        self._n_inputs = weight.shape[1]
        self._arranged = weight.device.type == "cpu" and arranging_works(weight.dtype)
        self._weight = _arranged(weight) if self._arranged else weight

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the product.

        Parameters
        ----------
        rows : Tensor, shape (n_rows, n_inputs)
            Of the weight's type; copied if they are not as many as :func:`padded_rows`.

        Returns
        -------
        Tensor, shape (n_rows, n_outputs)
            In memory of its own.
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
        if self._arranged:
            n_missing = padded_rows(len(rows)) - len(rows)
            padded = functional.pad(rows, (0, 0, 0, n_missing)) if n_missing else rows
            return _multiplied(padded, self._weight, bias, activation)[: len(rows)]
        product = functional.linear(rows, self._weight, bias)
        return product if activation == "none" else _IN_PLACE[activation](product)


@functools.cache
def arranging_works(dtype: torch.dtype) -> bool:
    """Return whether this torch and this processor can arrange weights of a type, and multiply rightly."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        problem = _disagreement(dtype)
    except Exception as error:  # noqa: BLE001 - what is not documented may fail in any way
        problem = f"{type(error).__name__}: {error}"
    if problem:
        logger.info("products with arranged weights are not used for %s: %s", dtype, problem)
    return not problem


def _disagreement(dtype: torch.dtype) -> str:
    """Return how products with arranged weights differ from plain ones by more than rounding, if they do."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, rows = (
        torch.randn(*shape, generator=generator).mul_(size).to(dtype)
        for shape, size in (((96, 80), 0.1), ((96,), 1), ((37, 80), 1))
    )
    arranged = _arranged(weight)
    exact = functional.linear(rows.double(), weight.double(), bias.double())
    # Sums are float32's, each of terms as large as these; results are rounded once.
    sums = 8 * torch.finfo(torch.float32).eps * functional.linear(rows.double().abs(), weight.double().abs())
    for n_rows in (1, 37):
        for activation, apply in {"none": torch.clone, **_IN_PLACE}.items():
            with full_float32_products():
                found = _multiplied(rows[:n_rows], arranged, bias, activation)
            expected = apply(exact[:n_rows].clone())
            allowed = sums[:n_rows] + torch.finfo(dtype).eps * expected.abs()
            if found.dtype != dtype or exceeds((found.double() - expected).abs(), allowed).any():
                return f"{n_rows} rows, activation {activation}, are wrong"
    return ""


def _arranged(weight: Tensor) -> Tensor:
    operators: Any = torch.ops.mkldnn
    arranged: Tensor = operators._reorder_linear_weight(weight.contiguous(), _ROWS_EXPECTED)
    return arranged


def _multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    operators: Any = torch.ops.mkldnn
    product: Tensor = operators._linear_pointwise(rows, weight, bias, activation, [], "")
    return product
