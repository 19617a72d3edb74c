"""The recipe of an ELMo encoder, and how to know it without building the network."""

from __future__ import annotations

from typing import Any

from featurestore.encoders.elmo.files.cache import recorded_sha256
from featurestore.encoders.elmo.files.catalog import UntrainedSource, choose_initial_state, parse_source
from featurestore.encoders.elmo.files.initial_state import read_state
from featurestore.encoders.elmo.files.layers import parse_layers
from featurestore.encoders.elmo.files.resolving import find_files
from featurestore.encoders.elmo.files.weights import Weights, hash_weights, seeded_weights, tensors_sha256
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import UsageError
from featurestore.recipe import Recipe

RECIPE_VERSION = 1
"""Raised whenever the same recipe would give other vectors; covers the rounding rules of ``numerics``."""

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
        ``{"weights_sha256": ...}`` of a file, or what :func:`untrained_identity` returns.
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


def untrained_identity(source: UntrainedSource, weights: Weights) -> dict[str, Any]:
    """Return the recipe fields that name random weights: the tensors' hash, and where they came from."""
    # An options file's path names nothing for others; its content is in options_sha256.
    shape = source.shape if isinstance(source.shape, str) else "options"
    return {"weights_sha256": tensors_sha256(weights), "untrained": {"shape": shape, "seed": source.seed}}


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
    source = parse_source(rest)
    state_policy = choose_initial_state(initial_state, source)
    if isinstance(source, UntrainedSource):
        options = source.options()
        return elmo_recipe(
            options,
            untrained_identity(source, seeded_weights(options, source.seed)),
            layers=layers,
            precision=precision,
        )
    files = find_files(source, fetch=False)
    if state_policy == "warm":
        files.require_warm_state()
    options = ElmoOptions.read(files.options)
    digest = recorded_sha256(files.cached) if files.cached else None
    if digest is None:
        digest = hash_weights(files.weights)
    state = read_state(files.warm_state, options, weights_sha256=digest) if state_policy == "warm" else None
    return elmo_recipe(
        options,
        {"weights_sha256": digest},
        layers=layers,
        precision=precision,
        warm_state_sha256=state.sha256 if state else None,
    )
