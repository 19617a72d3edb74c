"""A one-layer bidirectional LSTM that never reads padding, in the fastest way there is here."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from featurestore.models.recurrent.compiled import Inputs, compiled_lstm


class BiLSTM(nn.Module):
    """A bidirectional LSTM over sentences.

    Compiled code runs it on a CPU, where installing found a compiler: see
    :mod:`featurestore.models.recurrent.compiled`. Elsewhere ``torch.nn.LSTM`` does; it holds the parameters
    in either case.

    Parameters
    ----------
    dim : int
        Length of a vector.
    hidden : int
        Units in each direction.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)

    def forward(self, inputs: Inputs, products: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Run over a batch.

        Parameters
        ----------
        inputs : Inputs
        products : torch.dtype
            Type of the two operands of matrix products, float32 or bfloat16.

        Returns
        -------
        outputs : (batch, longest, 2 * hidden) float32
            Padding holds anything.
        states : (batch, 2 * hidden) float32
            Forward that after each sentence's last token, backward that after its first.
        """
        weights = [weight for direction in self.lstm.all_weights for weight in direction]
        compiled = compiled_lstm()
        if compiled is not None and compiled.takes(inputs, weights, products):
            return compiled(inputs, weights, products)
        vectors, lengths = inputs.read(), inputs.lengths
        way = self._padded if vectors.device.type == "cpu" else self._packed
        with torch.autocast(vectors.device.type, torch.bfloat16, enabled=products != torch.float32):
            outputs, states = way(vectors, lengths)
        return outputs.float(), states.float()

    def _packed(self, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (states, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=vectors.shape[1])
        # Packed, the forward state is that of each sentence's last token, the backward one of its first.
        return padded, torch.cat([states[0], states[1]], dim=1)

    def _padded(self, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same without packing: each direction on its own, the second over mirrored sentences.

        On a CPU, PyTorch hands only padded input to oneDNN, which takes half to nine tenths of the time.
        """
        longest = vectors.shape[1]
        # Where the t-th token from the end stands; padding stays behind the sentence, where no token sees it.
        mirror = ((lengths.unsqueeze(1) - 1 - torch.arange(longest)) % longest).unsqueeze(2)
        zeros = vectors.new_zeros(1, len(vectors), self.lstm.hidden_size)
        inputs = (vectors, vectors.gather(1, mirror.expand_as(vectors)))
        forth, back = (
            torch.lstm(one_way, (zeros, zeros), [*weights], True, 1, 0.0, self.training, False, True)[0]
            for one_way, weights in zip(inputs, self.lstm.all_weights, strict=True)
        )
        outputs = torch.cat([forth, back.gather(1, mirror.expand_as(back))], dim=2)
        last = mirror[:, :1].expand(-1, 1, self.lstm.hidden_size)
        states = torch.cat([forth.gather(1, last), back.gather(1, last)], dim=2).squeeze(1)
        return outputs, states
