"""Layers taken out of a store that keeps several apart: the store that extract would have made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.loading import encoder_recipe, outline_encoder
from featurestore.errors import UsageError
from featurestore.families import is_imported
from featurestore.recipe import Recipe
from featurestore.store.format.codec import Floats
from featurestore.store.maintenance.recoding import Recoded, change_layers
from featurestore.store.store import Store


def take_layers(
    store: Store,
    into: str | Path,
    layers: str,
    *,
    again: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Recoded:
    """Make a store of some layers of another, or of their average.

    The vectors are those that an extraction with these ``layers`` stores, within the codec's error: an
    average is computed of the stored layers.

    Parameters
    ----------
    store : Store
        Made with ``layers="all"``, or several of them.
    into : str or Path
        A directory that does not exist or is empty.
    layers : str
        ``average``, ``top``, or indices such as ``0,2``, as :func:`featurestore.load_encoder` takes them.
    again : bool
        Permit what rounds vectors of int8 a second time.
    progress : callable, optional
        Called with the bytes of each shard read.

    Raises
    ------
    UsageError
        If the store keeps no layers apart, lacks one that is asked for, or something is at ``into``.
    EncoderError
        If the encoder's files are not here.
    """
    if is_imported(store.recipe):
        raise UsageError(
            f"the vectors of {store.path} were imported, and do not say which layers they are of"
        )
    kept = store.recipe.get("layers")
    if store.n_layers < 2 or not isinstance(kept, (list, tuple)) or len(kept) != store.n_layers:
        raise UsageError(f"{store.path} keeps no layers apart (layers: {kept!r}): extract with --layers all")
    options = {
        "precision": str(store.recipe.get("precision", "float32")),
        "initial_state": _initial_state(store),
    }
    recipe = encoder_recipe(store.encoder, layers=layers, **options)
    _require_same_encoder(store, recipe)
    wanted = recipe["layers"]
    if wanted == "average":
        n_available = outline_encoder(store.encoder, layers="all").n_layers
        if list(kept) != list(range(n_available)):
            raise UsageError(
                f"{store.path} keeps the layers {_listed(kept)} of {n_available}: an average is of all"
            )
        return change_layers(store, into, _average, recipe=recipe, n_layers=1, again=again, progress=progress)
    if missing := [layer for layer in wanted if layer not in kept]:
        raise UsageError(
            f"{store.path} keeps the layers {_listed(kept)}: there is no layer {_listed(missing)}"
        )
    places = [list(kept).index(layer) for layer in wanted]
    return change_layers(
        store, into, _Taking(places), recipe=recipe, n_layers=len(places), again=again, progress=progress
    )


class _Taking:
    def __init__(self, places: Sequence[int]) -> None:
        self._places = list(places)

    def __call__(self, vectors: Floats) -> NDArray[np.floating]:
        taken = vectors[:, self._places]
        return taken[:, 0] if len(self._places) == 1 else taken


def _average(vectors: Floats) -> NDArray[np.floating]:
    # Summed from the first layer on, as the encoder does.
    total = vectors[:, 0].copy()
    for layer in range(1, vectors.shape[1]):
        total += vectors[:, layer]
    return np.asarray(total / np.float32(vectors.shape[1]), np.float32)


def _initial_state(store: Store) -> str:
    stated = store.recipe.get("initial_state", "auto")
    return stated if isinstance(stated, str) else "auto"


def _require_same_encoder(store: Store, recipe: Recipe) -> None:
    """Refuse an encoder that is another than the one that filled the store, whatever its layers."""
    plain = Recipe({**recipe, "layers": store.recipe["layers"]})
    store.recipe.require_equal(
        plain,
        where=f"store {store.path}",
        remedy=f"{store.encoder} is another encoder now than the one that filled the store.",
    )


def _listed(layers: Sequence[object]) -> str:
    return ", ".join(map(str, layers))
