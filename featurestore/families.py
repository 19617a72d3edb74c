"""Encoders to those who load none: what each does, and the table of their families.

A family stands before the colon of a specification (``elmo:demo``) and in the field ``kind`` of a recipe. To
add one, write its package and one entry in :data:`FAMILIES`. Functions are named, not imported, so that this
table is a leaf: a store may ask it about a recipe without loading torch.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.errors import EncoderError, FieldDifference
from featurestore.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurestore.keys import Sentence

_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Encodes(Protocol):
    """What the store asks of an encoder; :class:`featurestore.encoders.base.Encoder` says what each is."""

    # Properties to a type checker, so that a property, a constant or a frozen dataclass will do; at run time
    # plain names, so that a class that inherits may assign them.
    if TYPE_CHECKING:

        @property
        def spec(self) -> str:
            """Its specification or name."""

        @property
        def recipe(self) -> Mapping[str, Any]:
            """What decides its vectors."""

        @property
        def dim(self) -> int:
            """Length of a vector."""

        @property
        def n_layers(self) -> int:
            """Layers kept apart."""

        @property
        def device(self) -> str:
            """Where it runs."""

    else:
        spec: str
        recipe: Mapping[str, Any]
        dim: int
        n_layers: int
        device: str

    def encode(self, sentences: Sequence[Sentence], /) -> Sequence[NDArray[np.floating]]:
        """Return one array per sentence, in their order.

        Parameters
        ----------
        sentences : sequence of tuple of str
            At least one; each has at least one token.

        Returns
        -------
        sequence of ndarray
            ``(n_tokens, dim)`` or ``(n_tokens, n_layers, dim)``, of floats. They are copied before the next
            call, unless they come as :class:`~featurestore.encoders.vectors.BatchVectors`.
        """


@dataclass(frozen=True)
class Family:
    """One family of encoders.

    Attributes
    ----------
    name : str
        As in a specification and in ``kind``.
    load : str
        ``module:function``. Called with the rest of the specification and, as keywords, ``device`` (None for
        any) and those of ``layers``, ``precision`` and ``initial_state`` that are not fixed; returns the
        encoder.
    forms : tuple of str
        Specifications, for messages.
    place : str
        The form of a specification that says where the encoder lies.
    outline, recipe : str or None
        Functions that tell the shape of the vectors and the recipe without loading; None where only a loaded
        encoder knows them. Called like ``load`` but without a device, ``outline`` without precision.
    warm_up : str or None
        The function that makes a warm initial state.
    runs_code : bool
        Whether loading may run code that an encoder brings along. Such an encoder is loaded only if the user
        names it, never because a store does.
    package : str
        The package it needs beyond the core ones, empty if none.
    extra : str
        The extra of featurestore that installs the package.
    versions : tuple of str
        Packages whose versions are noted where vectors are first made.
    fixed : mapping of str to (tuple of str, str)
        For each choice that the family leaves no freedom in (``layers``, ``precision``, ``initial_state``):
        the values it takes, and the reason that an error gives.
    max_token_bytes : int or None
        Bytes of a token's UTF-8 that such encoders read, as far as the family alone tells; None for all.
    remedies : mapping of str to str
        By the name of a recipe field: what to do where recipes differ in fields of that name alone.
    """

    name: str
    load: str
    forms: tuple[str, ...]
    place: str = ""
    outline: str | None = None
    recipe: str | None = None
    warm_up: str | None = None
    runs_code: bool = False
    package: str = ""
    extra: str = ""
    versions: tuple[str, ...] = ("torch",)
    fixed: Mapping[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    max_token_bytes: int | None = None
    remedies: Mapping[str, str] = field(default_factory=dict)

    @property
    def placeholder(self) -> str:
        """What stands for a specification in a command that the user has to complete."""
        return self.place or f"{self.name}:..."

    def resolved(self, function: str, spec: str) -> Any:
        """Return one of its functions.

        Parameters
        ----------
        function : str
            As in the table, ``module:function``.
        spec : str
            For the message.

        Raises
        ------
        EncoderError
            If the package that the family needs is not installed.
        """
        module, _, name = function.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not self.package or error.name != self.package:
                raise
            raise EncoderError(
                f"the encoder {spec} needs {self.package.capitalize()}, which is not installed: "
                f"pip install 'featurestore[{self.extra}]'"
            ) from error


IMPORTED = "imported"
"""Kind of the recipes of vectors that other tools computed: no encoder here has it."""


def is_imported(recipe: Mapping[str, Any]) -> bool:
    """Return whether vectors were imported, so that no encoder adds to them."""
    return recipe.get("kind") == IMPORTED


OWN_FORM = "PACKAGE.MODULE:CLASS"

FAMILIES = (
    Family(
        "elmo",
        place="elmo:./FOLDER",
        load="featurestore.encoders.elmo.encoder:load_elmo",
        outline="featurestore.encoders.elmo.files.outline:outline_elmo",
        recipe="featurestore.encoders.elmo.files.identity:recipe_of",
        warm_up="featurestore.encoders.elmo.warm:warm_up",
        max_token_bytes=48,
        forms=(
            "elmo:demo (comes with the package)", "elmo:small", "elmo:medium", "elmo:original",
            "elmo:original-5.5b", "elmo:portuguese", "elmo:pubmed", "elmo:./FOLDER",
            "elmo:OPTIONS.json,WEIGHTS.hdf5", "elmo:untrained-small?seed=0",
        ),
    ),
    Family(
        "flair",
        load="featurestore.encoders.flair.loading:load_flair",
        forms=(
            "any embedding of Flair: flair:PATH", "flair:glove", "flair:news-forward",
            "flair:TransformerWordEmbeddings=MODEL?layers=-1",
        ),
        runs_code=True,
        package="flair",
        extra="flair",
        versions=("torch", "flair", "transformers"),
        fixed={
            "layers": (
                ("average",),
                "a Flair embedding has no layers to choose. Those of a transformer are an option of its "
                "own, flair:TransformerWordEmbeddings=MODEL?layers=-1,-2&layer_mean=false",
            ),
            "precision": (("auto", "float32"), "Flair embeddings are computed in float32"),
            "initial_state": (("auto", "zero"), "only ELMo has one"),
        },
        remedies={
            "separator_sha256": (
                "Only the separator between a sentence and its context differs, which Flair draws at random "
                "whenever it makes the embedding. Make it the same every time: fix_separator(embedding), of "
                "featurestore.encoders.flair, before extraction and training. For a model that is trained "
                "already, fill a store with the embedding that it has: FlairEncoder(embedding)."
            )
        },
    ),
)  # fmt: skip

OWN = Family(
    "",
    load="featurestore.encoders.own:load_own",
    place=OWN_FORM,
    forms=(f"a class or function of your own: {OWN_FORM}",),
    runs_code=True,
    fixed={
        choice: ((default,), "an encoder of your own makes its choices itself, where it is written")
        for choice, default in (("layers", "average"), ("precision", "auto"), ("initial_state", "auto"))
    },
)
"""Encoders that users write: classes or functions that they name, and objects."""


def family_of(spec: str) -> Family | None:
    """Return the family of a specification, None if the text is not one."""
    name, _, rest = spec.partition(":")
    known = next((family for family in FAMILIES if family.name == name), None)
    if known is not None:
        return known if rest else None
    return OWN if _OWN.fullmatch(spec) else None


def family_of_recipe(recipe: Mapping[str, Any]) -> Family:
    """Return the family whose encoders have such recipes: :data:`OWN` for a kind that is not in the table."""
    return next((family for family in FAMILIES if family.name == recipe.get("kind")), OWN)


def expected_forms() -> str:
    """Return what a specification may look like, for messages."""
    *most, last = [*FAMILIES, OWN]
    listed = ", ".join(form for family in most for form in family.forms)
    return f"{listed}, or {', '.join(last.forms)}"


def remedy_for(stored: Recipe, wanted: Recipe, remedy: str) -> str:
    """Return what to do where two recipes differ.

    Parameters
    ----------
    stored, wanted : Recipe
    remedy : str
        Returned unless the family of the stored recipe knows better for the fields that differ.
    """
    differences = stored.diff(wanted)
    return next(
        (
            better
            for name, better in family_of_recipe(stored).remedies.items()
            if differences and all(_is_of(difference, name) for difference in differences)
        ),
        remedy,
    )


def _is_of(difference: FieldDifference, name: str) -> bool:
    return difference.field.rpartition(".")[2] == name


def versions_for(recipe: Mapping[str, Any]) -> Sequence[str]:
    """Return the packages whose versions are noted beside vectors of a recipe."""
    return family_of_recipe(recipe).versions
