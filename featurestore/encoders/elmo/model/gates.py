"""The pointwise half of an LSTM step for both directions: in plain PyTorch, or fused on a GPU."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from featurestore.vectors import exceeds

logger = logging.getLogger(__name__)

_MEMORY_TOLERANCE = 2e-6
"""Absolute and relative, for a cell: implementations of exp differ by a few units in the last place."""


class Gates(Protocol):
    """Computes a step of the cells from the product of weights and inputs."""

    def __call__(self, product: Tensor, bias: Tensor, memory: Tensor, cell_clip: float | None) -> Tensor:
        """Advance cells by one token, in place.

        Parameters
        ----------
        product : Tensor, shape (2, n_rows, 4 * lstm_dim)
            Contiguous, in the operands' type: input gate, candidate, forget gate, output gate. May be
            overwritten.
        bias : Tensor, shape (2, 4 * lstm_dim)
            In the state's type; the forget gate's 1 is in it.
        memory : Tensor, shape (2, n_rows, lstm_dim)
            Rows contiguous, in the state's type.
        cell_clip : float or None

        Returns
        -------
        Tensor, shape (2, n_rows, lstm_dim)
            Cell outputs in the product's type, not yet projected.
        """


def plain_gates(product: Tensor, bias: Tensor, memory: Tensor, cell_clip: float | None) -> Tensor:
    """Advance cells with PyTorch's own operations: see :class:`Gates`."""
    gates = product.to(memory.dtype) + bias[:, None]
    input_gate, candidate, forget_gate, output_gate = gates.chunk(4, -1)
    memory.mul_(forget_gate.sigmoid_()).addcmul_(input_gate.sigmoid_(), candidate.tanh_())
    if cell_clip is not None:
        memory.clamp_(-cell_clip, cell_clip)
    return torch.tanh(memory).mul_(output_gate.sigmoid_()).to(product.dtype)


def choose_gates(
    operands: torch.dtype, lstm_dim: int, cell_clip: float | None, device: torch.device
) -> Gates:
    """Return the fused kernel where it runs on this device and is right there, else :func:`plain_gates`."""
    if device.type != "cuda" or operands == torch.float64:
        return plain_gates
    try:
        from featurestore.encoders.elmo.model.fused_gates import fused_gates
    except ImportError as error:
        logger.info("no fused LSTM kernel, because Triton is not here (%s)", error)
        return plain_gates
    try:
        problem = disagreement(fused_gates, operands, lstm_dim, cell_clip, device)
    except Exception as error:  # noqa: BLE001 - compilers and drivers raise all kinds of exceptions
        problem = f"it failed: {type(error).__name__}: {error}"
    if not problem:
        return fused_gates
    logger.warning(
        "the fused LSTM kernel is not used on %s, PyTorch's own operations are: %s", device, problem
    )
    return plain_gates


def disagreement(
    gates: Gates, operands: torch.dtype, lstm_dim: int, cell_clip: float | None, device: torch.device | str
) -> str:
    """Return how gates differ from :func:`plain_gates` beyond rounding, or an empty string.

    The inputs are random, from saturated to tiny, in batches whose rows are not contiguous.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator)
        return values * 10 ** (torch.rand(*shape, generator=generator) * 6 - 4)

    for n_rows in (1, 37):
        product = random(2, n_rows, 4 * lstm_dim).to(device, operands)
        bias = random(2, 4 * lstm_dim).to(device)
        memory = random(2, n_rows + 3, lstm_dim).to(device)
        memories = memory.clone(), memory.clone()
        found = gates(product.clone(), bias, memories[0][:, :n_rows], cell_clip)
        expected = plain_gates(product.clone(), bias, memories[1][:, :n_rows], cell_clip)
        tolerance = torch.finfo(operands).eps + _MEMORY_TOLERANCE
        for name, ours, theirs, allowed in (
            ("cells", *memories, _MEMORY_TOLERANCE),
            ("outputs", found.float(), expected.float(), tolerance),
        ):
            beyond = exceeds((ours - theirs).abs(), allowed * (theirs.abs() + _MEMORY_TOLERANCE / allowed))
            if beyond.any():
                return (
                    f"{int(beyond.sum()):,} of {beyond.numel():,} {name} differ, by up to "
                    f"{float((ours - theirs).abs().max()):.2e}"
                )
    return ""
