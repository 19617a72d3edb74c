"""The vectors of a sentence: the shape they have everywhere, and when two of them differ too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload


def vector_shape(n_tokens: int, n_layers: int, dim: int) -> tuple[int, ...]:
    """Return the shape of a sentence's vectors.

    Returns
    -------
    tuple of int
        ``(n_tokens, dim)`` if ``n_layers`` is 1, else ``(n_tokens, n_layers, dim)``.
    """
    return (n_tokens, *token_shape(n_layers, dim))


def token_shape(n_layers: int, dim: int) -> tuple[int, ...]:
    """Return the shape of one token's vectors: ``(dim,)`` if ``n_layers`` is 1, else ``(n_layers, dim)``."""
    return (dim,) if n_layers == 1 else (n_layers, dim)


def layers_and_dim(shape: Sequence[int]) -> tuple[int, int]:
    """Return ``n_layers`` and ``dim`` of a shape that :func:`vector_shape` returned."""
    return (shape[1] if len(shape) == 3 else 1), shape[-1]


@overload
def exceeds(difference: float, tolerance: float) -> bool: ...


@overload
def exceeds(difference: Any, tolerance: Any) -> Any: ...


def exceeds(difference: Any, tolerance: Any) -> Any:
    """Return whether a difference is more than a tolerance, or is NaN; of arrays and tensors, where."""
    within = difference <= tolerance
    return not within if isinstance(within, bool) else ~within
