"""How the layers that an encoder keeps apart become one vector per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featurestore.errors import UsageError
from featurestore.recipe import Recipe


@dataclass(frozen=True)
class LayerChoice:
    """Layers kept apart, and which of them make a token's vector.

    Attributes
    ----------
    text : str
        ``all`` (concatenated, in the order kept), ``average``, ``top`` (the last one kept), or numbers such
        as ``0,2`` (concatenated in that order).
    dim : int
        Length of one layer's vector.
    n_layers : int
        Layers kept apart.
    positions : tuple of int or None
        Which of them are concatenated; None for their mean.
    """

    text: str
    dim: int
    n_layers: int
    positions: tuple[int, ...] | None

    @classmethod
    def of(cls, text: str, recipe: Recipe, *, dim: int, n_layers: int) -> LayerChoice:
        """Read a choice; numbers are those of the recipe, where it lists its layers.

        Raises
        ------
        UsageError
            If it makes no sense, or names a layer that is not kept.
        """
        positions: tuple[int, ...] | None
        if text == "average":
            positions = None if n_layers > 1 else (0,)
        elif text == "all":
            positions = tuple(range(n_layers))
        elif text == "top":
            positions = (n_layers - 1,)
        else:
            listed = recipe.get("layers")
            kept = [str(n) for n in (listed if isinstance(listed, list) else range(n_layers))]
            numbers = [part.strip() for part in text.split(",")]
            if not set(numbers) <= set(kept) or len(set(numbers)) < len(numbers):
                raise UsageError(
                    f"layers {text!r} are not kept: expected all, average, top, or some of the layers kept "
                    f"({', '.join(kept)}), each once, such as {kept[-1]!r}"
                )
            positions = tuple(kept.index(number) for number in numbers)
        return cls(text, dim, n_layers, positions)

    @property
    def length(self) -> int:
        """Length of a token's vector."""
        return self.dim * (1 if self.positions is None else len(self.positions))

    def applied(self, vectors: Tensor) -> Tensor:
        """Turn (n_tokens, dim) or (n_tokens, n_layers, dim) into (n_tokens, length); a view if it can be."""
        if self.n_layers == 1:
            return vectors
        if self.positions is None:
            return vectors.mean(1)
        if self.positions != tuple(range(self.n_layers)):
            vectors = vectors.index_select(1, torch.tensor(self.positions))
        return vectors.reshape(-1, self.length)
