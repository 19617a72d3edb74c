"""The encoder that a user means: an object, a specification, or the one that the store names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurestore.encoders.base import DEFAULT_ENCODER, DEFAULT_LAYERS, EncoderOutline, Layers, layers_text
from featurestore.encoders.checked import CheckedEncoder
from featurestore.encoders.loading import recipe_choices, require_no_code
from featurestore.encoders.sources import EncoderSource, KnownRecipe, NamedEncoder
from featurestore.errors import EncoderError, EncoderOutOfMemory, UsageError
from featurestore.extraction.destination import Destination
from featurestore.families import family_of, family_of_recipe, is_imported
from featurestore.store.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderChoice(NamedEncoder):
    """An encoder specification with its choices, the store's own recipe filled in where nothing was said."""

    @classmethod
    def for_store(
        cls,
        store: str | Path | Store | Destination,
        spec: str | None,
        layers: Layers | None,
        precision: str | None,
        initial_state: str | None = None,
    ) -> EncoderChoice:
        """Fill in what was left out: from the store if it exists, else with the defaults.

        Raises
        ------
        UsageError
            If there is a store that does not name its encoder, and no specification.
        """
        named_by = None
        layers = None if layers is None else layers_text(layers)
        destination = Destination.of(store)
        if destination.store is not None:
            recipe = destination.store.recipe
            if not spec:
                spec, named_by = destination.store.encoder, destination.path
            if family_of(spec) is family_of_recipe(recipe):  # else its choices mean nothing to the encoder
                own = recipe_choices(recipe)
                layers = layers or own.get("layers")
                precision = precision or own.get("precision")
                initial_state = initial_state or own.get("initial_state")
            if not spec and is_imported(recipe):
                raise UsageError(
                    f"the vectors of {destination.path} were imported, and no encoder adds to them: extract "
                    "into another --store"
                )
            if not spec:
                raise UsageError(
                    f"the store {destination.path} does not name its encoder (it was made with an object "
                    "that has no specification): pass that object, or name one (--encoder)"
                )
        return cls(
            spec or DEFAULT_ENCODER,
            layers or DEFAULT_LAYERS,
            precision or "auto",
            initial_state or "auto",
            named_by,
        )

    def require_no_code(self) -> None:
        """Raise :class:`UsageError` if loading what only the store names could run code."""
        if self.named_by is not None:
            require_no_code(self.spec, self.named_by)

    @property
    def is_at_hand(self) -> bool:
        """Whether the user named a class or function of their own."""
        return self.named_by is None and super().is_at_hand

    def load(self, device: str = "auto") -> CheckedEncoder:
        """Load the encoder."""
        self.require_no_code()
        with self._said_who_named_it():
            return super().load(device)

    def outline(self) -> EncoderOutline:
        """Return what can be known without loading it, where its family can tell."""
        self.require_no_code()
        with self._said_who_named_it():
            return super().outline()

    def known_recipe(self) -> KnownRecipe:
        """Return its recipe as far as it is known; see :meth:`NamedEncoder.known_recipe`."""
        self.require_no_code()
        return super().known_recipe()

    @contextmanager
    def _said_who_named_it(self) -> Iterator[None]:
        """Append to an encoder's error that the specification came from the store and may be stale."""
        try:
            yield
        except EncoderError as error:
            if self.named_by is None or isinstance(error, EncoderOutOfMemory):
                raise
            family = family_of(self.spec)
            place = f" (--encoder {family.placeholder})" if family is not None else " (--encoder)"
            raise EncoderError(
                f"{error}\nThe store {self.named_by} names this encoder: if it lies elsewhere now, name its "
                f"new place{place}. It is taken if its files are the same"
            ) from error


def is_own(source: EncoderSource, destination: Destination) -> bool:
    """Return whether an encoder is the store's own, by what the store says of it."""
    if destination.store is None or not destination.store.encoder:
        return False
    return source == EncoderChoice.for_store(destination, None, None, None)


def require_store_of(destination: Destination, source: EncoderSource) -> bool:
    """Compare an encoder's recipe with the store's, as far as that can be done without loading an ELMo.

    Returns
    -------
    bool
        Whether all of it could be compared.

    Raises
    ------
    RecipeMismatchError
        If the store has another recipe.
    """
    if destination.store is None:
        return False
    try:
        known = source.known_recipe()
    except EncoderError:  # not downloaded yet, or what loading it will say too
        logger.warning(
            "whether %s filled the store %s cannot be told yet, for its files are not here: if it did "
            "not, extract will refuse it, and nothing is cached for it",
            source.spec,
            destination.path,
        )
        return False
    stored, wanted = known.beside(destination.store.recipe)
    destination.require_recipe(wanted, stored)
    return known.is_complete
