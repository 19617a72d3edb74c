"""An LSTM layer that runs both directions at once: few large operations, as a GPU wants them.

The backward direction reads each sentence from its last token, so step ``t`` holds token ``t`` of every
sentence as that direction counts them, and both have the same rows at every step. A step is one batched
product of ``[input; recurrent]`` with the weights of both directions, the gates, and one batched projection.
The inputs' share is not computed beforehand for the whole layer: with hundreds of rows a step's product is
large enough, and the share would have to be written and read, 64 KB a token with 4,096 cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featurestore.encoders.elmo.model.gates import Gates
from featurestore.encoders.elmo.model.lstm import LstmState, LstmWeights
from featurestore.encoders.elmo.model.numerics import Numerics
from featurestore.encoders.elmo.model.packing import Packing


class BidirectionalLayer:
    """Forward and backward LSTM of one layer.

    Parameters
    ----------
    weights : (LstmWeights, LstmWeights)
        Forward, backward.
    numerics : Numerics
    cell_clip, proj_clip : float or None
    """

    def __init__(
        self,
        weights: Sequence[LstmWeights],
        numerics: Numerics,
        *,
        cell_clip: float | None,
        proj_clip: float | None,
    ) -> None:
        self._numerics, self._cell_clip, self._proj_clip = numerics, cell_clip, proj_clip
        self._weight = torch.stack([direction.gates for direction in weights]).mT
        self._projection = torch.stack([direction.projection for direction in weights]).mT
        self._bias = torch.stack([direction.bias for direction in weights]).to(numerics.state)

    def run(self, inputs: Tensor, packing: Packing, start: Sequence[LstmState], gates: Gates) -> Tensor:
        """Run over a batch.

        Parameters
        ----------
        inputs : Tensor, shape (2, n_tokens, projection_dim)
            Packed, the second half from each sentence's last token to its first, in the operands' type.
        packing : Packing
        start : (LstmState, LstmState)
            State of each direction before every sentence, one row.
        gates : Gates

        Returns
        -------
        Tensor, shape (2, n_tokens, projection_dim)
            Packed as the inputs are, without skip connection.
        """
        n_rows, dim = packing.n_rows, inputs.shape[2]
        operand = inputs.new_empty((2, n_rows, 2 * dim))
        operand[:, :, dim:] = torch.stack([state.hidden for state in start])
        memory = torch.stack([state.memory for state in start]).to(self._numerics.state)
        memory = memory.expand(2, n_rows, -1).contiguous()
        outputs = torch.empty_like(inputs)
        for n_alive, first in zip(packing.counts, packing.offsets, strict=True):
            here = slice(first, first + n_alive)
            operand[:, :n_alive, :dim] = inputs[:, here]
            product = torch.bmm(operand[:, :n_alive], self._weight)
            cell_output = self._numerics.round(
                gates(product, self._bias, memory[:, :n_alive], self._cell_clip)
            )
            projected = torch.bmm(cell_output, self._projection)
            if self._proj_clip is not None:
                projected.clamp_(-self._proj_clip, self._proj_clip)
            outputs[:, here] = self._numerics.round(projected)
            operand[:, :n_alive, dim:] = outputs[:, here]
        return outputs
