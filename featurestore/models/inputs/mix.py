"""What happens to stored vectors before a head reads them: standardisation, and the mix of layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScalarMix(nn.Module):
    """A learned weighted sum of layers: ``gamma * sum_k softmax(weights)_k * layer_k``.

    This is how a task picks from the layers of a frozen biLM (Peters et al. 2018, *Deep contextualized word
    representations*, equation 1). It starts as the plain mean of the layers.

    Parameters
    ----------
    n_layers : int
        Number of layers, at least 1.
    """

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers))
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, layers: Tensor) -> Tensor:
        """Mix ``(..., n_layers, dim)`` float32 into ``(..., dim)`` float32."""
        mixed: Tensor = torch.einsum("...kd,k->...d", layers, torch.softmax(self.weights, dim=0))
        return self.gamma * mixed

    def shares(self) -> tuple[float, ...]:
        """Return the share of each layer."""
        return tuple(torch.softmax(self.weights.detach(), dim=0).tolist())


class Standardize(nn.Module):
    """A fixed shift and scale of every dimension, fitted once on training vectors.

    Contextual encoders give dimensions of very different size (ELMo's lie between about 0.01 and 3); without
    this, the learning rate that suits one encoder is wrong for the next. Until it is fitted it changes
    nothing.

    Parameters
    ----------
    *shape : int
        ``dim``, or ``n_layers, dim`` where layers are kept apart.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise ``(..., *shape)`` float32."""
        return (features - self.mean) * self.scale


class Moments:
    """Running mean and variance of vectors seen piece by piece, in float64.

    Parameters
    ----------
    *shape : int
        Shape of one vector.
    """

    def __init__(self, *shape: int) -> None:
        self._n = 0
        self._mean = torch.zeros(shape, dtype=torch.float64)
        self._squares = torch.zeros(shape, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Take in ``(n, *shape)`` vectors."""
        if not len(vectors):
            return
        # Chan, Golub and LeVeque (1979): merging means keeps precision where a sum of squares loses it.
        vectors = vectors.to(torch.float64)
        n = self._n + len(vectors)
        mean = vectors.mean(dim=0)
        delta = mean - self._mean
        self._squares += ((vectors - mean) ** 2).sum(dim=0) + delta**2 * (self._n * len(vectors) / n)
        self._mean += delta * (len(vectors) / n)
        self._n = n

    def fit(self, module: Standardize) -> None:
        """Set a :class:`Standardize` so that the vectors seen get mean 0 and variance 1.

        A dimension that never changes is only shifted: dividing by a variance of nothing but rounding would
        turn the first different value into a huge one.
        """
        deviation = (self._squares / max(self._n, 1)).sqrt()
        constant = deviation <= 1e-6 * (1.0 + self._mean.abs())
        module.mean.copy_(self._mean)
        module.scale.copy_(torch.where(constant, 1.0, 1.0 / deviation.clamp(min=1e-12)))
