"""Next-word prediction in both directions: an adaptive softmax over the vocabulary, shared by the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CUTOFFS = (2_000, 10_000, 40_000, 160_000)
"""Classes in the head and the ends of the tails: a rarer word costs a smaller product."""

_SHRINKING = 4.0


class NextWord(nn.Module):
    """Negative log-likelihood of the words that follow.

    The softmax is torch's own (Grave et al. 2017, "Efficient softmax approximation for GPUs"); the same one
    serves both directions, as in bilm-tf.

    Parameters
    ----------
    dim : int
        Of the biLM's output in one direction.
    n_classes : int
        Size of the vocabulary, most frequent first.
    precision : torch.dtype
        Type of the products while training; evaluation is in float32.
    """

    def __init__(self, dim: int, n_classes: int, *, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        # Every tail projects to a quarter of the dimensions of the one before: to one at least.
        cutoffs = [
            cutoff
            for tail, cutoff in enumerate(_CUTOFFS, 1)
            if cutoff < n_classes - 1 and dim >= _SHRINKING**tail
        ] or [n_classes - 1]
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            dim, n_classes, cutoffs, div_value=_SHRINKING, head_bias=True
        )
        self.precision = precision

    def forward(self, outputs: Tensor, classes: Tensor) -> Tensor:
        """Return the negative log-likelihoods in nats, (n_positions,) float32.

        Parameters
        ----------
        outputs : Tensor, shape (n_positions, dim)
        classes : Tensor of int64, shape (n_positions,)
        """
        lowered = self.training and self.precision != torch.float32
        with torch.autocast(outputs.device.type, dtype=self.precision, enabled=lowered):
            inputs = outputs if lowered else outputs.float()
            result: Tensor = self.softmax(inputs, classes).output
        return -result.float()
