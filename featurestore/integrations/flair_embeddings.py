"""Flair token embeddings whose vectors come from a store or from one of our encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import flair
from flair.embeddings.base import TokenEmbeddings, register_embeddings
from torch import Tensor

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import checked_encoder
from featurestore.encoders.flair.conditions import Dependence, conditioned
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder, recipe_choices
from featurestore.errors import EncoderError, FieldDifference, RecipeMismatchError, UsageError
from featurestore.families import family_of, family_of_recipe
from featurestore.integrations.live import LiveVectors
from featurestore.integrations.stored import MissPolicy, StoredVectors
from featurestore.recipe import Recipe
from featurestore.store.store import Store


class VectorEmbeddings(TokenEmbeddings):  # type: ignore[misc]
    """A Flair embedding over a source of vectors; the base of ours.

    Vectors depend on the token texts, and on what else the recipe names in its field ``depends_on``: the
    sentences before and after, the language, the spaces. A sentence's neighbours are those that it is linked
    to when it is embedded; one that is linked to none stands alone, whatever else is in the batch, and
    nothing is linked here. Flair's ``predict`` has by then linked the sentences of the list that it was
    given, as if it were running text, unless they had a context: see
    :func:`~featurestore.integrations.flair_context.set_context`.

    They are the encoder's vectors in evaluation mode and are not fine-tuned. Train with
    ``embeddings_storage_mode="none"``: Flair's default, ``"cpu"``, keeps every vector in memory as float32.
    What Flair saves of it are the source's plain parameters (path or specification, recipe), never vectors,
    an open file or a model.

    Parameters
    ----------
    name : str
        Under which Flair keeps the vectors on a token; concatenated embeddings are ordered by it.
    source : StoredVectors or LiveVectors

    Attributes
    ----------
    encoder_device : str or None
        Where an encoder is loaded when one is needed; None for ``flair.device``.
    """

    encoder_device: str | None = None

    def __init__(self, name: str, source: StoredVectors | LiveVectors) -> None:
        self.name = name
        # The same sentence has the same vectors in every epoch.
        self.static_embeddings = True
        super().__init__()
        # Not a torch module, so an encoder inside is neither saved, nor trained, nor moved.
        self.source = source
        self._depends = Dependence.of(source.recipe)

    @property
    def embedding_length(self) -> int:
        """Length of a token's vector; known without a store or a model."""
        return self.source.choice.length

    @property
    def recipe(self) -> Recipe:
        """The recipe of the vectors."""
        return self.source.recipe

    @property
    def is_cached(self) -> bool:
        """Whether the vectors come from a store."""
        return isinstance(self.source, StoredVectors)

    @property
    def n_missing(self) -> int:
        """Sentences that were not in the store when they were asked for."""
        return self.source.n_missing if isinstance(self.source, StoredVectors) else 0

    def flush(self) -> None:
        """Commit computed vectors now; this also happens from time to time, and when the program ends.

        Raises
        ------
        StoreWriteError
            If the disk is full or read-only.
        """
        if isinstance(self.source, StoredVectors):
            self.source.flush()

    def _add_embeddings_internal(self, sentences: list[Any]) -> list[Any]:
        texts: list[Sequence[str]]
        if self._depends:
            texts = [conditioned(sentence, self._depends) for sentence in sentences]
        else:
            texts = [tuple([token.form for token in sentence.tokens]) for sentence in sentences]
        matrix: Tensor = self.source.vectors(texts, device=self.encoder_device or str(flair.device))
        matrix = matrix.to(flair.device)
        name = self.name
        tokens = chain.from_iterable(sentence.tokens for sentence in sentences)
        for token, vector in zip(tokens, matrix.unbind(0), strict=True):
            token._embeddings[name] = vector  # set_embedding; the call would take a tenth of the lookup
        return sentences

    def extra_repr(self) -> str:
        """Return what Flair prints of the embedding."""
        return f"{self.name}: {self.source!r}"

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def to_params(self) -> dict[str, Any]:
        """Return what Flair saves of the embedding: plain values only."""
        return {"name": self.name, "source": self.source.to_params()}

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> VectorEmbeddings:
        """Return the embedding that was saved; opens no store and loads no model until it is used."""
        saved = params["source"]
        kind = StoredVectors if saved["kind"] == "stored" else LiveVectors
        return cls.over(params["name"], kind.from_params(saved))

    @classmethod
    def over(cls, name: str, source: StoredVectors | LiveVectors) -> VectorEmbeddings:
        """Return an embedding of this class over a source."""
        embedding = cls.__new__(cls)
        VectorEmbeddings.__init__(embedding, name, source)
        return embedding


@register_embeddings("featurestore.CachedEmbeddings")
class CachedEmbeddings(VectorEmbeddings):
    """A Flair embedding that reads a store.

    Parameters
    ----------
    store : Store, str or Path
    on_missing : {"error", "compute", "zeros"}
        What to do with sentences that are not in the store: raise
        :class:`~featurestore.errors.MissingSentencesError`; encode them and add them to the store, which
        many processes may do at the same time; or give them zeros. What is encoded is served as the store
        will give it (but of an int8 store unrounded at first).
    fallback : Encoder or str, optional
        What ``compute`` encodes with, of the store's recipe; a specification is loaded when the first
        sentence is missing. By default the encoder that the store names, unless it is one of Flair's, whose
        files may hold code.
    name : str, optional
        By default made from the recipe and the layers, so that embeddings of different vectors have different
        names.
    layers : str
        Of a store that keeps several apart: ``all`` (concatenated), ``average``, ``top``, or numbers such as
        ``0,2``.

    Raises
    ------
    NotAStoreError
        If there is no store at the path.
    RecipeMismatchError
        If the fallback has another recipe than the store.
    UsageError
        If an argument makes no sense, or a fallback is needed and none is named.
    """

    def __init__(
        self,
        store: Store | str | Path,
        on_missing: MissPolicy = "error",
        fallback: Encoder | str | None = None,
        name: str | None = None,
        *,
        layers: str = "all",
    ) -> None:
        opened = store if isinstance(store, Store) else Store.open(store)
        if isinstance(fallback, str):
            _require_spec(fallback, opened.recipe)
        source = StoredVectors.of(opened, layers, on_missing=on_missing, fallback=fallback)
        super().__init__(name or _default_name("cached", source.recipe, layers), source)


@register_embeddings("featurestore.LiveEmbeddings")
class LiveEmbeddings(VectorEmbeddings):
    """A Flair embedding that runs one of our encoders for every batch.

    Parameters
    ----------
    encoder : Encoder or str
        An encoder, or a specification for :func:`featurestore.load_encoder`.
    name : str, optional
    layers : str
        As for :class:`CachedEmbeddings`, of the layers that the encoder keeps apart.
    """

    def __init__(self, encoder: Encoder | str, name: str | None = None, *, layers: str = "all") -> None:
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, device=str(flair.device))
        source = LiveVectors.of(encoder, layers)
        super().__init__(name or _default_name("live", source.recipe, layers), source)


EMBEDDING_MODES = ("all", "top", "average")

_SPECS = {
    "5.5b": "original-5.5b",
    "large": "original-5.5b",
    "pt": "portuguese",
}
"""Flair's names of published models, in lower case, where ours differ."""


@register_embeddings("featurestore.ElmoEmbeddings")
class ElmoEmbeddings(VectorEmbeddings):
    """ELMo under the names and in the argument order of Flair's ``ELMoEmbeddings``, which needs AllenNLP.

    The vectors are AllenNLP's, except that no state leaks from one batch into the next: a sentence has the
    same vectors every time.

    Parameters
    ----------
    model : str
        ``original``, ``small``, ``medium``, ``5.5B`` or ``large``, ``pt`` or ``portuguese``, ``pubmed``;
        ``demo``, which comes with featurestore; or an ``elmo:...`` specification.
    options_file, weight_file : str or Path, optional
        Local files of a model; both, instead of ``model``.
    embedding_mode : {"all", "top", "average"}
        The three layers concatenated (three times the length; layer 0, the token vector, first), the last
        one, or their mean.
    store : Store, str or Path, optional
        Read vectors from this store, and compute and add those that are not in it. It is made if there is
        none.
    precision, initial_state : str
        As for :func:`featurestore.load_encoder`; ``auto`` is the store's own, if there is one.
    device : str, optional
        Where the model runs; by default ``flair.device``.

    Raises
    ------
    UnknownEncoderError
        If no model has that name.
    EncoderError
        If the model cannot be fetched or read.
    RecipeMismatchError
        If the store holds vectors of another model, or lacks a layer that is needed.
    """

    def __init__(
        self,
        model: str = "original",
        options_file: str | Path | None = None,
        weight_file: str | Path | None = None,
        embedding_mode: str = "all",
        *,
        store: Store | str | Path | None = None,
        precision: str = "auto",
        device: str | None = None,
        initial_state: str = "auto",
    ) -> None:
        if embedding_mode not in EMBEDDING_MODES:
            raise UsageError(f"embedding_mode is {embedding_mode!r}, expected {', '.join(EMBEDDING_MODES)}")
        spec = _elmo_spec(model, options_file, weight_file)
        where = device or str(flair.device)
        source: StoredVectors | LiveVectors
        if isinstance(store, (str, Path)) and Store.exists(store):
            store = Store.open(store)
        if isinstance(store, Store):
            layers = _stored_layers(store, spec, embedding_mode, precision, initial_state)
            source = StoredVectors.of(store, layers, on_missing="compute", fallback=spec)
        else:
            encoder = checked_encoder(
                load_encoder(
                    spec,
                    layers=embedding_mode,
                    precision=precision,
                    device=where,
                    initial_state=initial_state,
                )
            )
            source = LiveVectors.of(encoder, "all")
            if store is not None:
                made = Store.create(
                    store,
                    recipe=encoder.recipe,
                    dim=encoder.dim,
                    n_layers=encoder.n_layers,
                    encoder=encoder.spec,
                )
                source = StoredVectors.of(made, "all", on_missing="compute", fallback=encoder)
        named = model if model.replace(".", "").isalnum() and options_file is None else "local"
        super().__init__(_default_name(f"elmo-{named}", source.recipe, embedding_mode), source)
        self.encoder_device = device


def _default_name(prefix: str, recipe: Recipe, layers: str) -> str:
    kind = str(recipe["kind"])
    middle = "" if kind in prefix else f"-{kind}"
    return f"{prefix}{middle}-{layers}-{recipe.fingerprint[:12]}"


def _elmo_spec(model: str, options_file: str | Path | None, weight_file: str | Path | None) -> str:
    if options_file is not None or weight_file is not None:
        if options_file is None or weight_file is None:
            raise UsageError("options_file and weight_file go together: one of them is missing")
        return f"elmo:{options_file},{weight_file}"
    if model.startswith("elmo:"):
        return model
    lower = model.lower()
    return f"elmo:{_SPECS.get(lower, lower)}"


def _require_spec(spec: str, recipe: Recipe) -> None:
    """Raise RecipeMismatchError if, without loading, a specification is known to have another recipe."""
    family = family_of(spec)
    if family is not None and family.recipe is None:
        # Its recipe is known when it is loaded, which is when something is missing.
        if family is not family_of_recipe(recipe):
            raise RecipeMismatchError(
                f"the store holds vectors of kind {recipe['kind']!r}: give the encoder that filled it as "
                f"fallback, not {spec}",
                differences=[FieldDifference("kind", recipe["kind"], family.name)],
            )
        return
    try:
        named = encoder_recipe(spec, **recipe_choices(recipe))
    except EncoderError:
        return  # its files are not here yet: compared when it is loaded
    recipe.require_equal(
        named, where="the store", remedy=f"Give the encoder that filled it as fallback, not {spec}."
    )


def _stored_layers(store: Store, spec: str, mode: str, precision: str, initial_state: str) -> str:
    """Return the layers of a store of the model's recipe that make the vectors of an embedding mode.

    Raises
    ------
    RecipeMismatchError
        If the store is of another model, or does not keep what is needed.
    """
    recipe = store.recipe
    kept = recipe.get("layers")
    if recipe["kind"] != "elmo" or not (kept == "average" or isinstance(kept, list)):
        raise RecipeMismatchError(
            f"store {store.path} holds vectors of kind {recipe['kind']!r}, not of an ELMo: "
            "read it with CachedEmbeddings",
            differences=[FieldDifference("kind", recipe["kind"], "elmo")],
        )
    everything = list(range(outline_encoder(spec, layers="all").n_layers))
    stated = {"precision": precision, "initial_state": initial_state}
    asked = {name: value for name, value in stated.items() if value != "auto"}
    try:
        wanted = encoder_recipe(spec, **{**recipe_choices(recipe), **asked})
    except EncoderError as error:
        if store.encoder.partition("#")[0] != spec.partition("#")[0]:
            raise RecipeMismatchError(
                f"store {store.path} was filled by {store.encoder!r}; whether {spec!r} is the same "
                f"model cannot be told, as its files are not here ({error}). Name the model that filled "
                "the store"
            ) from error
    else:
        recipe.require_equal(wanted, where=f"store {store.path}", remedy="Use another store for this model.")
    if mode == "average" and kept == "average":
        return "all"
    if mode == "average" and kept == everything:
        return "average"
    if mode == "all" and kept == everything:
        return "all"
    if mode == "top" and isinstance(kept, list) and everything[-1] in kept:
        return str(everything[-1])
    raise RecipeMismatchError(
        f"store {store.path} keeps the layers {kept}, which do not make embedding_mode={mode!r}: "
        f"fill another one with featurestore extract CORPUS --store NEW --encoder {spec} --layers {mode}",
        differences=[FieldDifference("layers", kept, "average" if mode == "average" else everything)],
    )
