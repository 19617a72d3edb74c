"""Vectors straight from an encoder, loaded when the first one is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import CheckedEncoder, checked_encoder
from featurestore.encoders.loading import load_encoder, recipe_choices
from featurestore.errors import EncoderOutOfMemory, UsageError
from featurestore.families import remedy_for
from featurestore.integrations.layers import LayerChoice
from featurestore.keys import Sentence, require_sentence
from featurestore.recipe import Recipe


class LiveVectors:
    """An encoder as a source of one vector per token.

    The encoder is no part of the pickled state: another process loads its own, by the specification.

    Parameters
    ----------
    encoder : CheckedEncoder or None
        None to load it when it is needed.
    spec : str
        The specification that loads it.
    recipe : Recipe
        What it must have.
    choice : LayerChoice
    """

    def __init__(
        self, encoder: CheckedEncoder | None, spec: str, recipe: Recipe, choice: LayerChoice
    ) -> None:
        self._encoder, self.spec, self.recipe, self.choice = encoder, spec, recipe, choice

    @classmethod
    def of(cls, encoder: Encoder, layers: str) -> LiveVectors:
        """Return the vectors of a loaded encoder."""
        checked = checked_encoder(encoder)
        choice = LayerChoice.of(layers, checked.recipe, dim=checked.dim, n_layers=checked.n_layers)
        return cls(checked, checked.spec, checked.recipe, choice)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def __repr__(self) -> str:
        return f"live, {self.spec}, {self.choice.length} dimensions"

    def vectors(self, sentences: Sequence[Sequence[str]], *, device: str = "auto") -> Tensor:
        """Return the vectors of a batch, sentence after sentence.

        Parameters
        ----------
        sentences : sequence of token sequences
        device : str
            Where to load the encoder if it is not loaded yet.

        Returns
        -------
        (n_tokens, length) float32 on the CPU
        """
        wanted = [require_sentence(tokens) for tokens in sentences]
        if self._encoder is None:
            self._encoder = load_encoder_of(self.recipe, self.spec, device=device)
        arrays = encode_all(self._encoder, wanted)
        return self.choice.applied(torch.from_numpy(np.concatenate(arrays).astype(np.float32, copy=False)))

    def to_params(self) -> dict[str, Any]:
        """Return plain values from which :meth:`from_params` makes an equal source."""
        return {
            "kind": "live",
            "spec": self.spec,
            "recipe": self.recipe.to_dict(),
            "dim": self.choice.dim,
            "n_layers": self.choice.n_layers,
            "layers": self.choice.text,
        }

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> LiveVectors:
        """Return a source that has loaded nothing yet."""
        recipe = Recipe(params["recipe"])
        choice = LayerChoice.of(params["layers"], recipe, dim=params["dim"], n_layers=params["n_layers"])
        return cls(None, params["spec"], recipe, choice)


def load_encoder_of(recipe: Recipe, spec: str, *, device: str = "auto") -> CheckedEncoder:
    """Load the encoder that a specification names, in the way that a recipe says.

    Raises
    ------
    UsageError
        If the specification is empty.
    RecipeMismatchError
        If it has another recipe all the same.
    EncoderError
        If it cannot be loaded.
    """
    if not spec:
        raise UsageError(
            "no encoder is named: the one that was given had no specification, so it has to be given again. "
            "Of a model that ran it: to_live(model, ENCODER); of cached embeddings that compute what is "
            "missing: to_cached(model, STORE, on_missing='compute', fallback=ENCODER)"
        )
    return require_recipe(recipe, load_encoder(spec, device=device, **recipe_choices(recipe)))


def require_recipe(recipe: Recipe, given: Encoder) -> CheckedEncoder:
    """Return an encoder that has a recipe.

    Raises
    ------
    RecipeMismatchError
        If it has another.
    UsageError
        If it is not an encoder.
    """
    encoder = checked_encoder(given)
    named = encoder.spec or "the encoder"
    recipe.require_equal(
        encoder.recipe,
        where="the store or model",
        remedy=remedy_for(
            recipe,
            encoder.recipe,
            f"{named} gives different vectors: load it with the layers, precision and initial state above, "
            "or name the encoder that filled the store.",
        ),
    )
    return encoder


def encode_all(encoder: CheckedEncoder, sentences: Sequence[Sentence]) -> list[NDArray[np.floating]]:
    """Return an array per sentence, in batches within the encoder's budget, halved when memory runs out.

    Raises
    ------
    EncoderOutOfMemory
        If a single sentence does not fit.
    """
    arrays: list[NDArray[np.floating]] = []
    start = 0
    while start < len(sentences):
        stop, n_tokens = start + 1, len(sentences[start])
        while stop < len(sentences) and n_tokens + len(sentences[stop]) <= encoder.token_budget:
            n_tokens += len(sentences[stop])
            stop += 1
        arrays += _encode(encoder, sentences[start:stop])
        start = stop
    return arrays


def _encode(encoder: CheckedEncoder, sentences: Sequence[Sentence]) -> list[NDArray[np.floating]]:
    try:
        return list(encoder.encode(sentences))
    except EncoderOutOfMemory:
        if len(sentences) == 1:
            raise
    # Outside the except block, so that the failed batch's tensors are gone.
    half = len(sentences) // 2
    return _encode(encoder, sentences[:half]) + _encode(encoder, sentences[half:])
