"""The recipe of an ELMo encoder, and how to know it without building the network."""

from __future__ import annotations

from typing import Any

from featurestore.encoders.elmo.files.layers import parse_layers
from featurestore.encoders.elmo.files.resolving import resolve
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import UsageError
from featurestore.recipe import Recipe

RECIPE_VERSION = 1
"""Counts changes of the arithmetic, ``numerics`` included, so that equal recipes give equal vectors."""

PRECISIONS = ("float32", "bfloat16", "float16")


def elmo_recipe(
    options: ElmoOptions,
    weights_identity: dict[str, Any],
    *,
    layers: str,
    precision: str,
    warm_state_sha256: str | None = None,
) -> Recipe:
    """Return the recipe of an encoder.

    Parameters
    ----------
    options : ElmoOptions
    weights_identity : dict
        As :class:`~featurestore.encoders.elmo.files.resolving.FiledModel` has it.
    layers : str
        As for :func:`featurestore.encoders.elmo.files.layers.parse_layers`.
    precision : str
        One of :data:`PRECISIONS`.
    warm_state_sha256 : str, optional
        Hash of the state that every sentence starts in; None where it starts from zeros.

    Raises
    ------
    UsageError
        If layers or precision make no sense.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: a recipe holds one of {', '.join(PRECISIONS)}")
    return Recipe(
        {
            "kind": "elmo",
            "version": RECIPE_VERSION,
            **weights_identity,
            "options_sha256": options.sha256,
            "layers": parse_layers(layers, options.n_layers + 1),
            # Two fields rather than one that is sometimes text and sometimes an object: a difference between
            # policies then reads as one.
            **(
                {"initial_state": "warm", "initial_state_sha256": warm_state_sha256}
                if warm_state_sha256
                else {"initial_state": "zero"}
            ),
            "precision": precision,
        }
    )


def recipe_of(rest: str, *, layers: str, precision: str, initial_state: str) -> Recipe:
    """Return the recipe that loading a specification would give: no torch, no download.

    Parameters
    ----------
    rest : str
        The specification after ``elmo:``. For local files the weights are read to hash them; for published
        models the hash pinned or recorded at the download is taken.
    layers, precision : str
        As for :func:`elmo_recipe`.
    initial_state : str
        As for :func:`featurestore.encoders.loading.load_encoder`; a warm state is read to hash it.

    Raises
    ------
    UsageError
        If an argument makes no sense.
    EncoderError
        If a file is not here or cannot be read.
    """
    model = resolve(rest, initial_state=initial_state, published="here")
    identity, state = model.identity()
    return elmo_recipe(
        model.options,
        identity,
        layers=layers,
        precision=precision,
        warm_state_sha256=state.sha256 if state else None,
    )
