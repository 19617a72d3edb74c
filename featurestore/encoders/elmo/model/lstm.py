"""One direction of one LSTM layer, with projection and clips, over a packed batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from featurestore.encoders.elmo.model.linear import PrepackedLinear, padded_rows
from featurestore.encoders.elmo.model.numerics import Numerics
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.encoders.elmo.model.packing import Packing

_ROWS_PER_PRODUCT = {"cpu": 256}
"""Rows of a step multiplied at once: enough for near full speed, so few that gates stay in the cache."""

_ROWS_OF_GATES = {"cpu": 64}
"""Rows whose gates are computed at once: one gate of them takes a megabyte."""

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


@dataclass(frozen=True)
class LstmWeights:
    """Weights of one direction of one layer, in the operands' type.

    Attributes
    ----------
    gates : Tensor, shape (4 * lstm_dim, 2 * projection_dim)
        Of ``[input; recurrent]``; rows are the gates i (input), j (candidate), f (forget), o (output).
    bias : Tensor, shape (4 * lstm_dim,)
        The forget gate's 1 is in it.
    projection : Tensor, shape (projection_dim, lstm_dim)
    """

    gates: Tensor
    bias: Tensor
    projection: Tensor

    @classmethod
    def of(
        cls,
        weights: Mapping[str, NDArray[Any]],
        *,
        layer: int,
        backward: bool,
        numerics: Numerics,
        device: torch.device,
    ) -> LstmWeights:
        """Take the weights of a direction from the tensors of a weights file."""
        scope = f"RNN_{int(backward)}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        # Added in float32, as AllenNLP does, so that even float64 agrees with it to the last digits.
        bias = weights[f"{scope}/B"].astype(np.promote_types(weights[f"{scope}/B"].dtype, np.float32))
        cells = len(bias) // 4
        bias[2 * cells : 3 * cells] += FORGET_BIAS
        arrays = weights[f"{scope}/W_0"].T, bias, weights[f"{scope}/W_P_0"].T
        return cls(*(numerics.operand(array, device) for array in arrays))


class LstmDirection:
    """A forward (``RNN_0``) or backward (``RNN_1``) LSTM of one layer.

    Each step multiplies ``[input; recurrent]`` with the whole weight. Computing the inputs' share of all
    steps beforehand would be no faster, and that share would have to be written and read.

    Parameters
    ----------
    options : ElmoOptions
    weights : LstmWeights
    backward : bool
        Whether it walks from the last token to the first.
    numerics : Numerics
    """

    def __init__(
        self, options: ElmoOptions, weights: LstmWeights, *, backward: bool, numerics: Numerics
    ) -> None:
        self._numerics = numerics
        self.is_backward = backward
        self.cell_clip, self.proj_clip = options.cell_clip, options.proj_clip
        self._proj_dim, self._cell_dim = options.projection_dim, options.lstm_dim
        # Where products come in the state's type, oneDNN applies the nonlinearity before it writes them:
        # sigmoid for the gates, tanh for the candidate, so they are two products.
        order = [0, 2, 3, 1]  # i, f, o, j
        weight, bias = (
            torch.cat([part.chunk(4)[gate] for gate in order]) for part in (weights.gates, weights.bias)
        )
        n_sigmoid = 3 * self._cell_dim
        if numerics.products_are_states:
            self._products = [
                PrepackedLinear(weight[:n_sigmoid], bias[:n_sigmoid], "sigmoid"),
                PrepackedLinear(weight[n_sigmoid:], bias[n_sigmoid:], "tanh"),
            ]
        else:
            self._products = [PrepackedLinear(weight, bias)]
        self._projection = PrepackedLinear(weights.projection)

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
        # The recurrent half of the operand is the hidden state itself; sentences that have ended keep theirs.
        # The operand ends in rows of zeros, so that products need not copy it to pad it.
        operand = inputs.new_zeros((padded_rows(n_rows), 2 * dim))
        hidden = operand[:n_rows, dim:]
        hidden[:] = start.hidden
        memory = start.memory.to(self._numerics.state).expand(n_rows, -1).clone()
        block_size = _ROWS_PER_PRODUCT.get(inputs.device.type, n_rows)
        outputs = torch.empty_like(inputs)

        steps = range(len(packing.counts))
        for step in reversed(steps) if self.is_backward else steps:
            n_alive, first = packing.counts[step], packing.offsets[step]
            operand[:n_alive, :dim] = inputs[first : first + n_alive]
            for start_row in range(0, n_alive, block_size):
                rows = slice(start_row, min(start_row + block_size, n_alive))
                self._step(operand[start_row:], memory[rows])
            outputs[first : first + n_alive] = hidden[:n_alive]
        return outputs, LstmState(hidden, memory)

    def input_shares(self, inputs: Tensor) -> Tensor:
        """Return what inputs and bias add to the input, forget and output gate and the candidate.

        The recurrent half of the operand is zeros here: half of the product is wasted, but no second copy of
        the weights is needed.

        Returns
        -------
        Tensor, shape (n_tokens, 4 * lstm_dim)
        """
        operand = functional.pad(inputs, (0, self._proj_dim))
        return torch.cat([product.linear(operand) for product in self._products], 1)

    def recurrent_weights(self) -> tuple[Tensor, Tensor]:
        """Return copies of the weights of a step, computed back from the products that hold them.

        Returns
        -------
        recurrent : Tensor, shape (4 * lstm_dim, projection_dim)
            Rows as in :meth:`input_shares`.
        projection : Tensor, shape (projection_dim, lstm_dim)
        """
        # A product with the identity adds only zeros to a weight, so it gives it back exactly.
        recurrent = torch.cat([product.weight()[:, self._proj_dim :] for product in self._products])
        return recurrent, self._projection.weight()

    def _step(self, operand: Tensor, memory: Tensor) -> None:
        """Advance the first ``len(memory)`` rows of an operand by one token, in place."""
        n_rows = len(memory)
        padded = operand[: padded_rows(n_rows)]
        products = [product(padded) for product in self._products]
        cell_outputs = operand.new_zeros((len(padded), self._cell_dim))
        block_size = _ROWS_OF_GATES.get(operand.device.type, n_rows)
        for start in range(0, n_rows, block_size):
            rows = slice(start, min(start + block_size, n_rows))
            self._advance([product[rows] for product in products], memory[rows], cell_outputs[rows])
        projected = self._projection(cell_outputs)[:n_rows]
        if self.proj_clip is not None:
            projected.clamp_(-self.proj_clip, self.proj_clip)
        operand[:n_rows, self._proj_dim :] = self._numerics.round(projected)

    def _advance(self, products: list[Tensor], memory: Tensor, cell_outputs: Tensor) -> None:
        if self._numerics.products_are_states:
            gates, candidate = products
        else:
            gates, candidate = products[0].to(memory.dtype).tensor_split([3 * self._cell_dim], 1)
            gates.sigmoid_()
            candidate.tanh_()
        input_gate, forget_gate, output_gate = gates.chunk(3, 1)
        memory.mul_(forget_gate).addcmul_(input_gate, candidate)
        if self.cell_clip is not None:
            memory.clamp_(-self.cell_clip, self.cell_clip)
        cell_outputs.copy_(self._numerics.round(torch.tanh(memory, out=forget_gate).mul_(output_gate)))
