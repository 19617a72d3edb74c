"""The running average of a head's weights over its last steps, which scores better than the last ones.

Polyak and Juditsky (1992): steps at a constant learning rate wander around the optimum, their mean lies
nearer to it. The average is exponential, so that it forgets the early steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from featurestore.models.heads import Head

_SHARE = 10
"""While training is young, the average reaches over this part of its steps: early ones are far off."""


class WeightAverage:
    """An exponential average of a head's parameters.

    Parameters
    ----------
    head : Head
        On the device on which it trains.
    steps : int
        Steps that the average reaches over; 1 for the current weights.

    Attributes
    ----------
    n_updates : int
        Steps that it was taken over.
    """

    def __init__(self, head: Head, steps: int) -> None:
        self._parameters: list[torch.Tensor] = list(head.parameters())
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._steps, self.n_updates = steps, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.n_updates += 1
        reach = min(self._steps, 1 + self.n_updates / _SHARE) if self._steps > 1 else 1
        torch._foreach_lerp_(self._average, self._parameters, 1 / reach)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the head its average weights for a while."""
        current = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self._average)
        try:
            yield
        finally:
            self._set(current)

    @torch.no_grad()
    def _set(self, values: list[torch.Tensor]) -> None:
        torch._foreach_copy_(self._parameters, values)

    @property
    def weights(self) -> list[torch.Tensor]:
        """The average weights."""
        return self._average

    @torch.no_grad()
    def restore(self, average: Sequence[torch.Tensor], n_updates: int) -> None:
        """Go on from a state."""
        for mine, saved in zip(self._average, average, strict=True):
            if mine.shape != saved.shape:
                raise ValueError(f"an average of shape {tuple(saved.shape)}, expected {tuple(mine.shape)}")
            mine.copy_(saved)
        self.n_updates = int(n_updates)
