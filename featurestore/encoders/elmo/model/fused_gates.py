"""The pointwise half of an LSTM step as one Triton kernel; importing it needs Triton.

In plain PyTorch a step reads and writes its gates a dozen times; here each is read once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_CELLS_AT_ONCE = 1024


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    # Near 0 by the series, because the difference below would cancel.
    square = x * x
    series = x * (1 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * (62 / 2835)))))
    decay = tl.exp(-2 * tl.abs(x))
    quotient = (1 - decay) / (1 + decay)
    return tl.where(square < 0.0625, series, tl.where(x < 0, -quotient, quotient))


@triton.jit
def _kernel(
    product, bias, memory, output, n_rows, memory_stride, cell_clip,
    LSTM_DIM: tl.constexpr, HAS_CLIP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # int64: thousands of rows of 16,384 gates exceed 2^31 elements.
    row = tl.program_id(0).to(tl.int64)
    direction = row // n_rows
    cells = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cells < LSTM_DIM
    gates = product + row * (4 * LSTM_DIM) + cells
    biases = bias + direction * (4 * LSTM_DIM) + cells
    input_gate = tl.load(gates, inside).to(tl.float32) + tl.load(biases, inside)
    candidate = tl.load(gates + LSTM_DIM, inside).to(tl.float32) + tl.load(biases + LSTM_DIM, inside)
    forget_gate = tl.load(gates + 2 * LSTM_DIM, inside).to(tl.float32) + tl.load(
        biases + 2 * LSTM_DIM, inside
    )
    output_gate = tl.load(gates + 3 * LSTM_DIM, inside).to(tl.float32) + tl.load(
        biases + 3 * LSTM_DIM, inside
    )
    cell = memory + direction * memory_stride + (row - direction * n_rows) * LSTM_DIM + cells
    value = tl.load(cell, inside) * _sigmoid(forget_gate) + _sigmoid(input_gate) * _tanh(candidate)
    if HAS_CLIP:
        value = tl.minimum(tl.maximum(value, -cell_clip), cell_clip)
    tl.store(cell, value, inside)
    cell_output = _tanh(value) * _sigmoid(output_gate)
    tl.store(output + row * LSTM_DIM + cells, cell_output.to(output.dtype.element_ty), inside)


def fused_gates(product: Tensor, bias: Tensor, memory: Tensor, cell_clip: float | None) -> Tensor:
    """Advance cells in one kernel: see :class:`featurestore.encoders.elmo.model.gates.Gates`."""
    _, n_rows, lstm_dim = memory.shape
    if memory.stride()[1:] != (lstm_dim, 1) or not (product.is_contiguous() and bias.is_contiguous()):
        raise ValueError("the fused kernel needs contiguous rows")
    output = torch.empty(memory.shape, dtype=product.dtype, device=product.device)
    block = min(_CELLS_AT_ONCE, triton.next_power_of_2(lstm_dim))
    _kernel[(2 * n_rows, triton.cdiv(lstm_dim, block))](
        product, bias, memory, output, n_rows, memory.stride(0), cell_clip or 0.0,
        LSTM_DIM=lstm_dim, HAS_CLIP=cell_clip is not None, BLOCK=block,
    )  # fmt: skip
    return output
