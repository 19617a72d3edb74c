"""One interface for encoders, loaded or only named: what is known before loading, and loading."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from featurestore.encoders.base import DEFAULT_LAYERS, Encoder, EncoderOutline
from featurestore.encoders.checked import CheckedEncoder, checked_encoder
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder
from featurestore.errors import UsageError
from featurestore.families import OWN, family_of, family_of_recipe
from featurestore.recipe import Recipe


@dataclass(frozen=True)
class KnownRecipe:
    """A recipe as far as it is known.

    Attributes
    ----------
    recipe : Recipe
    undecided : tuple of str
        Fields whose values only loading decides, whatever stands in ``recipe``.
    """

    recipe: Recipe
    undecided: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every field is known."""
        return not self.undecided

    def beside(self, stored: Recipe) -> tuple[Recipe, Recipe]:
        """Return a stored recipe and this one, both without the fields that are undecided."""
        return _without(stored, self.undecided), _without(self.recipe, self.undecided)


class EncoderSource(Protocol):
    """An encoder, loaded or not.

    Attributes
    ----------
    spec : str
        Its specification; empty for an object that has none.
    precision : str
        What it computes in, ``auto`` where the device decides.
    is_at_hand : bool
        Whether it is the user's own code, handed over as an object or by naming a class: it may have changed
        without its recipe changing, and asking it costs no download.
    outline_loads : bool
        Whether :meth:`outline` and :meth:`known_recipe` have to load it.
    named_by : Path or None
        The store that names it, where the user does not.
    """

    @property
    def spec(self) -> str:
        """Its specification; empty for an object that has none."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    @property
    def is_at_hand(self) -> bool:
        """Whether the user handed over its code."""

    @property
    def outline_loads(self) -> bool:
        """Whether the shape of its vectors is known only by loading it."""

    @property
    def named_by(self) -> Path | None:
        """The store that names it, where the user does not."""

    def outline(self) -> EncoderOutline:
        """Return the shape of its vectors and what they cost.

        Raises
        ------
        UsageError
            If the specification or a choice makes no sense.
        EncoderError
            If a file that is needed is not here.
        """

    def known_recipe(self) -> KnownRecipe:
        """Return its recipe as far as it is known; loads the encoder only if :attr:`outline_loads`.

        Raises
        ------
        UsageError
            If the specification or a choice makes no sense.
        EncoderError
            If its files are not here.
        """

    def load(self, device: str = "auto") -> CheckedEncoder:
        """Return the encoder.

        Raises
        ------
        UsageError
            If something makes no sense; of a loaded encoder if it runs on another device.
        EncoderError
            If it cannot be loaded.
        """


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder that is an object already.

    Attributes
    ----------
    encoder : CheckedEncoder
    """

    encoder: CheckedEncoder

    outline_loads = False
    named_by = None

    @classmethod
    def of(cls, given: Encoder) -> LoadedEncoder:
        """Check what was given; see :func:`~featurestore.encoders.checked.checked_encoder`."""
        return cls(checked_encoder(given))

    @property
    def is_at_hand(self) -> bool:
        """Whether it is the user's own: recipes of ELMo and Flair hold hashes of what they load."""
        return family_of_recipe(self.encoder.recipe) is OWN

    @property
    def spec(self) -> str:
        """What the encoder calls itself."""
        return self.encoder.spec

    @property
    def precision(self) -> str:
        """``auto``: it decided already."""
        return "auto"

    def outline(self) -> EncoderOutline:
        """Return its own dimensions."""
        return self.encoder.outline

    def known_recipe(self) -> KnownRecipe:
        """Return all of its recipe."""
        return KnownRecipe(self.encoder.recipe)

    def load(self, device: str = "auto") -> CheckedEncoder:
        """Return it, unless another device is asked for."""
        if device != "auto" and not self.encoder.device.startswith(device):
            raise UsageError(
                f"the encoder was loaded on {self.encoder.device}, not on {device}: load it there, or pass "
                "its specification"
            )
        return self.encoder


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder by its specification and choices, as :func:`featurestore.load_encoder` takes them.

    Attributes
    ----------
    spec, layers, precision, initial_state : str
    named_by : Path, optional
        The store that names it, where the user does not.
    """

    spec: str
    layers: str = DEFAULT_LAYERS
    precision: str = "auto"
    initial_state: str = "auto"
    named_by: Path | None = field(default=None, compare=False)

    @property
    def is_at_hand(self) -> bool:
        """Whether it names a class or function of the user's."""
        return family_of(self.spec) is OWN

    @property
    def outline_loads(self) -> bool:
        """Whether its family knows nothing before loading."""
        family = family_of(self.spec)
        return family is not None and family.outline is None

    def outline(self) -> EncoderOutline:
        """Return what can be known without loading it, where its family can tell."""
        return outline_encoder(
            self.spec, layers=self.layers, precision=self.precision, initial_state=self.initial_state
        )

    def known_recipe(self) -> KnownRecipe:
        """Return its recipe; of precision ``auto``, which depends on the device, without that field."""
        is_open = self.precision == "auto" and not self.outline_loads
        recipe = encoder_recipe(
            self.spec,
            layers=self.layers,
            precision="float32" if is_open else self.precision,
            initial_state=self.initial_state,
        )
        return KnownRecipe(recipe, ("precision",) if is_open else ())

    def load(self, device: str = "auto") -> CheckedEncoder:
        """Load it."""
        return checked_encoder(
            load_encoder(
                self.spec,
                layers=self.layers,
                precision=self.precision,
                device=device,
                initial_state=self.initial_state,
            )
        )


def _without(recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    return Recipe({name: value for name, value in recipe.items() if name not in names}) if names else recipe
