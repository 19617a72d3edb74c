"""One direction of one LSTM layer, with projection and clips, over a packed batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.encoders.elmo.numerics import Numerics
from featurestore.encoders.elmo.options import ElmoOptions
from featurestore.encoders.elmo.packing import Packing

_ROWS_PER_PRODUCT = {"cpu": 512}
"""Rows of a step computed at once: a product of so many is near its full speed, and few steps have more."""

_ROWS_OF_GATES = {"cpu": 64}
"""Rows whose gates are computed at once: a megabyte for each operation on one of four gates."""

_FEWEST_TURNED, _MOST_TURNED = 4, 256
"""Rows whose float32 product on a CPU is faster the other way round: :meth:`LstmDirection._product`."""

_ROWS_TOGETHER = 16
"""The other way round, rows are brought up to a multiple of it: libraries are slow between."""

FORGET_BIAS = 1.0
"""Added to the forget gate's bias by TensorFlow's LSTMCell, and so not in the weights file."""


class LstmState(NamedTuple):
    """State of one direction of one layer.

    Attributes
    ----------
    hidden : Tensor, shape (n_rows, projection_dim)
        Projected and clipped output, before any skip connection.
    memory : Tensor, shape (n_rows, lstm_dim)
        The clipped cell.
    """

    hidden: Tensor
    memory: Tensor


class _Room(NamedTuple):
    """Memory for a step: the product, that turned, gates in the state's type, and cell outputs."""

    product: Tensor
    turned: Tensor
    gates: Tensor
    cell_outputs: Tensor


class LstmDirection:
    """A forward (``RNN_0``) or backward (``RNN_1``) LSTM of one layer.

    Each step is one product of ``[input; recurrent]`` with the whole weight: measured on two AVX-512 cores at
    4,096 cells and 256 rows it is as fast as computing the inputs' share for all steps beforehand (182
    against 178 GFLOP/s), and spares writing and reading that share. The weight is kept as (outputs, inputs):
    for bfloat16 that is 11% faster than the file's layout, for float32 the same.

    Parameters
    ----------
    options : ElmoOptions
    weights : mapping of str to ndarray
        Tensors by their names in a weights file.
    layer : int
    backward : bool
        Whether it walks from the last token to the first.
    numerics : Numerics
    device : torch.device

    Attributes
    ----------
    weight : Tensor, shape (2 * projection_dim, 4 * lstm_dim)
        Of ``[input; recurrent]``; columns are the gates i (input), j (candidate), f (forget), o (output).
    bias : Tensor, shape (4 * lstm_dim,)
        The forget gate's 1 is in it.
    projection : Tensor, shape (lstm_dim, projection_dim)
    """

    def __init__(
        self,
        options: ElmoOptions,
        weights: Mapping[str, NDArray[Any]],
        *,
        layer: int,
        backward: bool,
        numerics: Numerics,
        device: torch.device,
    ) -> None:
        self._numerics = numerics
        self._backward = backward
        self._cell_clip, self._proj_clip = options.cell_clip, options.proj_clip
        self._proj_dim, self._cell_dim = options.projection_dim, options.lstm_dim

        def operand(array: NDArray[Any]) -> Tensor:
            return numerics.round(torch.from_numpy(np.ascontiguousarray(array)).to(device))

        scope = f"RNN_{int(backward)}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        self.weight = operand(weights[f"{scope}/W_0"].T).t()
        # Added in float32, as AllenNLP does, so that even float64 agrees with it to the last digits.
        bias = weights[f"{scope}/B"].astype(np.promote_types(weights[f"{scope}/B"].dtype, np.float32))
        bias[2 * self._cell_dim : 3 * self._cell_dim] += FORGET_BIAS
        self.bias = operand(bias)
        self.projection = operand(weights[f"{scope}/W_P_0"].T).t()

    def run(self, inputs: Tensor, packing: Packing, start: LstmState) -> tuple[Tensor, LstmState]:
        """Run over a batch.

        Parameters
        ----------
        inputs : Tensor, shape (n_tokens, projection_dim)
            Packed, in the operands' type.
        packing : Packing
        start : LstmState
            State before each sentence, with ``packing.n_rows`` rows in rank order, or one row for all.

        Returns
        -------
        outputs : Tensor, shape (n_tokens, projection_dim)
            Packed, without skip connection.
        end : LstmState
            State after each sentence, in rank order.
        """
        n_rows, dim = packing.n_rows, self._proj_dim
        # The recurrent half of the operand is the hidden state itself: rows not alive keep theirs. Behind
        # them are zeros, with which a turned product fills up its rows.
        operand = inputs.new_zeros((n_rows + _ROWS_TOGETHER - 1, 2 * dim))
        hidden = operand[:, dim:]
        hidden[:n_rows] = start.hidden
        memory = start.memory.to(self._numerics.state).expand(n_rows, -1).clone()
        block_size = min(n_rows, _ROWS_PER_PRODUCT.get(inputs.device.type, n_rows))
        few = 0
        if inputs.device.type == "cpu" and inputs.dtype == torch.float32:
            few = -(-min(block_size, _MOST_TURNED) // _ROWS_TOGETHER) * _ROWS_TOGETHER
        room = _Room(
            inputs.new_empty((max(block_size, few), 4 * self._cell_dim)),
            inputs.new_empty(few * 4 * self._cell_dim),
            memory.new_empty(
                (min(n_rows, _ROWS_OF_GATES.get(inputs.device.type, n_rows)), 4 * self._cell_dim)
            ),
            inputs.new_empty((block_size, self._cell_dim)),
        )
        outputs = torch.empty_like(inputs)

        steps = range(len(packing.counts))
        for step in reversed(steps) if self._backward else steps:
            n_alive, first = packing.counts[step], packing.offsets[step]
            operand[:n_alive, :dim] = inputs[first : first + n_alive]
            for start_row in range(0, n_alive, block_size):
                rows = slice(start_row, min(start_row + block_size, n_alive))
                self._step(operand[start_row:], memory[rows], room)
            outputs[first : first + n_alive] = hidden[:n_alive]
        return outputs, LstmState(hidden[:n_rows], memory)

    def _step(self, operand: Tensor, memory: Tensor, room: _Room) -> None:
        """Advance the first rows of an operand, as many as of ``memory``, by one token, in place."""
        n_rows = len(memory)
        product = self._product(operand, n_rows, room)
        for start in range(0, n_rows, len(room.gates)):
            rows = slice(start, min(start + len(room.gates), n_rows))
            self._advance(product[rows], memory[rows], room.gates, room.cell_outputs[rows])
        projected = torch.mm(room.cell_outputs[:n_rows], self.projection)
        if self._proj_clip is not None:
            projected.clamp_(-self._proj_clip, self._proj_clip)
        operand[:n_rows, self._proj_dim :] = self._numerics.round(projected)

    def _product(self, operand: Tensor, n_rows: int, room: _Room) -> Tensor:
        """Return the gates of the first rows, bias included.

        Libraries rearrange the second operand before they multiply. Where the rows are few, that had better
        be them than the weight: in float32, on two AVX-512 cores with 4,096 cells, 45% faster with 47 rows,
        20% with 131, of which turning the result costs a part; in bfloat16 it makes no difference.
        """
        n_turned = -(-n_rows // _ROWS_TOGETHER) * _ROWS_TOGETHER
        n_gates = self.weight.shape[1]
        if n_rows < _FEWEST_TURNED or n_turned * n_gates > len(room.turned):
            return torch.addmm(self.bias, operand[:n_rows], self.weight, out=room.product[:n_rows])
        turned = room.turned[: n_turned * n_gates].view(n_gates, n_turned)
        torch.mm(self.weight.t(), operand[:n_turned].t(), out=turned)
        return room.product[:n_turned].copy_(turned.t()).add_(self.bias)[:n_rows]

    def _advance(self, product: Tensor, memory: Tensor, room: Tensor, cell_outputs: Tensor) -> None:
        # Into the same memory at every step: fresh memory costs as much as the conversion.
        gates = product if product.dtype == memory.dtype else room[: len(product)].copy_(product)
        write, candidate, forget, expose = gates.chunk(4, 1)
        memory.mul_(forget.sigmoid_()).addcmul_(write.sigmoid_(), candidate.tanh_())
        if self._cell_clip is not None:
            memory.clamp_(-self._cell_clip, self._cell_clip)
        cell_outputs.copy_(self._numerics.round(torch.tanh(memory, out=forget).mul_(expose.sigmoid_())))
