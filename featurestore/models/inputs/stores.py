"""The vectors of several stores as one: each standardised, its layers mixed, with a learned weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from featurestore.errors import ModelError
from featurestore.models.inputs.mix import ScalarMix, Standardize
from featurestore.vectors import token_shape

Features = Tensor | Mapping[str, Tensor]
"""What a head reads of a batch: its features, padded."""


class StoreInput(NamedTuple):
    """What a head reads of one of several stores: the store's ``name``, ``dim`` and ``n_layers``."""

    name: str
    dim: int
    n_layers: int = 1


class StoreMix(nn.Module):
    """The vectors of several stores, one after the other, each with a learned weight.

    Every store is standardised by itself; where it keeps layers apart, they are mixed by a
    :class:`ScalarMix` of its own. Then its vectors are multiplied by
    ``gamma * n_stores * softmax(weights)_k``, which is 1 at the start for each, so that a head can listen to
    one store more than to another before it reads them (the attention over embeddings of Kiela et al. 2018,
    *Dynamic meta-embeddings*, without projecting them to one dimension).

    Parameters
    ----------
    inputs : sequence of StoreInput
    """

    def __init__(self, inputs: Sequence[StoreInput]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.standardize = nn.ModuleList(Standardize(*token_shape(n, dim)) for _, dim, n in self.inputs)
        self.mixes = nn.ModuleDict(
            {str(number): ScalarMix(n) for number, (_, _, n) in enumerate(self.inputs) if n > 1}
        )
        self.weights = nn.Parameter(torch.zeros(len(self.inputs)))
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, features: Features) -> Tensor:
        """Return (..., sum of dim) float32.

        Parameters
        ----------
        features : Tensor or mapping of str to Tensor
            (..., sum of dim) float32, if each store has one layer; or by the stores' names, (..., dim) or
            (..., n_layers, dim) float32.
        """
        weights = self.gamma * self.shares()
        vectors = []
        for number, (standardize, part) in enumerate(self.parts(features)):
            if str(number) in self.mixes:
                vectors.append(self.mixes[str(number)](standardize(part)) * weights[number])
            else:
                vectors.append((part - standardize.mean) * (standardize.scale * weights[number]))
        return torch.cat(vectors, dim=-1)

    def layers(self) -> Iterator[tuple[str, ScalarMix]]:
        """Yield the names of the stores that keep layers apart, and their mixes."""
        for number, mix in self.mixes.items():
            yield self.inputs[int(number)].name, mix  # type: ignore[misc]  # a ModuleDict says Module

    def shares(self) -> Tensor:
        """Return the weight of each store, (n_stores,) float32, of which the mean is 1."""
        return torch.softmax(self.weights, dim=0) * len(self.inputs)

    def parts(self, features: Features) -> Iterator[tuple[Standardize, Tensor]]:
        """Yield the standardisation of each store with what it is of.

        Raises
        ------
        ModelError
            If the features are not those of these stores.
        """
        if isinstance(features, Mapping):
            if set(features) != {name for name, _, _ in self.inputs}:
                self._refuse(f"those of {', '.join(features)}")
            parts = [features[name] for name, _, _ in self.inputs]
        elif self.mixes or features.shape[-1] != sum(dim for _, dim, _ in self.inputs):
            self._refuse(f"one tensor of shape {tuple(features.shape)}")
        else:
            parts = list(features.split_with_sizes([dim for _, dim, _ in self.inputs], dim=-1))
        for (name, dim, n_layers), standardize, part in zip(
            self.inputs, self.standardize, parts, strict=True
        ):
            shape = token_shape(n_layers, dim)
            if part.shape[-len(shape) :] != shape:
                self._refuse(f"{name} of shape {tuple(part.shape)}")
            yield standardize, part  # type: ignore[misc]  # a ModuleList says Module

    def _refuse(self, found: str) -> NoReturn:
        sizes = "; ".join(
            f"{name} (..., {', '.join(map(str, token_shape(n, dim)))})" for name, dim, n in self.inputs
        )
        raise ModelError(f"this model reads features of the stores {sizes}, found {found}")
