"""Which layers of a model are wanted: ``average``, ``top``, ``all`` or indices, in the form recipes hold."""

from __future__ import annotations

from typing import Literal

from featurestore.errors import UsageError

CanonicalLayers = Literal["average"] | list[int]
"""``"average"``, or the indices of the layers kept, in the order they are stored."""


def parse_layers(layers: str, n_available: int) -> CanonicalLayers:
    """Return the canonical form of a choice of layers.

    Parameters
    ----------
    layers : str
        ``average`` (of all layers), ``top``, ``all``, or indices such as ``0,2``. Layer 0 holds the token
        vectors, layer 1 the first LSTM layer.
    n_available : int
        Layers the model has, the token vectors included.

    Raises
    ------
    UsageError
        If it is not one of these, names a layer twice, or one the model does not have.
    """
    if layers == "average":
        return "average"
    if layers == "top":
        return [n_available - 1]
    if layers == "all":
        return list(range(n_available))
    valid = f"expected average, top, all, or indices from 0 to {n_available - 1} such as 0,{n_available - 1}"
    parts = [part.strip() for part in layers.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts):
        raise UsageError(f"layers {layers!r} make no sense: {valid}")
    indices = [int(part) for part in parts]
    for index in indices:
        if index >= n_available:
            raise UsageError(f"layers {layers!r}: the model has no layer {index}: {valid}")
        if indices.count(index) > 1:
            raise UsageError(f"layers {layers!r} name layer {index} twice: {valid}")
    return indices


def n_layers_kept(layers: CanonicalLayers) -> int:
    """Return how many layers each vector consists of: 1 for an average."""
    return 1 if layers == "average" else len(layers)
