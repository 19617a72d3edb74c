"""The encoder object that the package runs: what the user gave, checked to be a whole encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from featurestore.encoders.base import EncoderOutline
from featurestore.encoders.vectors import EncodedVectors, PendingVectors
from featurestore.errors import UsageError
from featurestore.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurestore.encoders.base import Encoder
    from featurestore.keys import Sentence

_ATTRIBUTES = {"spec": str, "dim": int, "n_layers": int, "device": str, "token_budget": int}
_AT_LEAST_ONE = ("dim", "n_layers", "token_budget")


class CheckedEncoder:
    """An encoder whose recipe is a :class:`~featurestore.recipe.Recipe`, and which always has ``submit``.

    Made by :func:`checked_encoder`. Everything else is the encoder's own.

    Attributes
    ----------
    spec : str
    recipe : Recipe
    wrapped : Encoder
        What was given.
    """

    def __init__(self, wrapped: Encoder, recipe: Recipe, spec: str) -> None:
        self.wrapped, self.recipe, self.spec = wrapped, recipe, spec

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.wrapped.dim

    @property
    def n_layers(self) -> int:
        """Layers kept apart."""
        return self.wrapped.n_layers

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.wrapped.device

    @property
    def token_budget(self) -> int:
        """Tokens of a batch by default, padding not counted."""
        return self.wrapped.token_budget

    @property
    def outline(self) -> EncoderOutline:
        """Its shape, and how much of a token it reads."""
        n_bytes = getattr(self.wrapped, "max_token_bytes", None)
        return EncoderOutline(self.dim, self.n_layers, max_token_bytes=n_bytes)

    def encode(self, sentences: Sequence[Sentence], /) -> Sequence[NDArray[np.floating]]:
        """Return one array per sentence."""
        return self.wrapped.encode(sentences)

    def watched(self, report: Callable[[int], None]) -> AbstractContextManager[None]:
        """Report progress within a batch while the context lasts, if the encoder can."""
        watched = getattr(self.wrapped, "watched", None)
        if callable(watched):
            context: AbstractContextManager[None] = watched(report)
            return context
        return nullcontext()

    def submit(self, sentences: Sequence[Sentence], /) -> PendingVectors:
        """Start encoding a batch; without a ``submit`` of the encoder's own it is done on return."""
        submit = getattr(self.wrapped, "submit", None)
        if callable(submit):
            pending: PendingVectors = submit(sentences)
            return pending
        return EncodedVectors(self.wrapped.encode(sentences))


def checked_encoder(given: object, *, spec: str | None = None) -> CheckedEncoder:
    """Return an encoder as the package runs it, after checking that it has all that is asked of one.

    Parameters
    ----------
    given : object
        Expected to be an :class:`~featurestore.encoders.base.Encoder`.
    spec : str, optional
        The specification that loaded it, where it does not know that itself.

    Raises
    ------
    UsageError
        Naming what is missing or of another type, or how an embedding of Flair becomes an encoder.
    """
    if isinstance(given, CheckedEncoder) and spec is None:
        return given
    kind = type(given).__name__
    if isinstance(given, type):
        raise UsageError(f"the class {given.__name__} is no encoder: expected an object of one")
    if not hasattr(given, "recipe"):
        raise UsageError(
            f"a {kind} is no encoder: expected one, or its specification. An embedding of "
            "Flair becomes one as featurestore.encoders.flair.FlairEncoder(embedding)"
        )
    recipe = _recipe_of(given)
    wrong = [
        f"{name} is {getattr(given, name, None)!r:.60}, expected {expected.__name__}"
        for name, expected in _ATTRIBUTES.items()
        if not isinstance(getattr(given, name, None), expected) or isinstance(getattr(given, name), bool)
    ]
    wrong = wrong or [
        f"{name} is {getattr(given, name)}, expected at least 1"
        for name in _AT_LEAST_ONE
        if getattr(given, name) < 1
    ]
    if not callable(getattr(given, "encode", None)):
        wrong.append("encode() is missing")
    if wrong:
        raise UsageError(f"a {kind} is not a whole encoder: {'; '.join(wrong)} (see featurestore.Encoder)")
    encoder: Any = given
    return CheckedEncoder(encoder, recipe, encoder.spec if spec is None else spec)


def _recipe_of(given: Any) -> Recipe:
    try:
        return Recipe.of(given.recipe)
    except UsageError as error:
        raise UsageError(f"a {type(given).__name__} is no encoder: its recipe: {error}") from error
