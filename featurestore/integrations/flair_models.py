"""Trained Flair models: bound to a store, made to run without one, loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flair.models
import flair.nn
from flair.embeddings import StackedEmbeddings

from featurestore.encoders.base import Encoder
from featurestore.errors import ModelError, RecipeMismatchError, UsageError
from featurestore.integrations.flair_embeddings import (
    CachedEmbeddings,
    ElmoEmbeddings,
    LiveEmbeddings,
    VectorEmbeddings,
)
from featurestore.integrations.live import LiveVectors, load_encoder_of, require_recipe
from featurestore.integrations.stored import OnMissing, StoredVectors
from featurestore.recipe import Recipe
from featurestore.store.store import Store


def bind(model: Any, store: Store | str | Path) -> Any:
    """Let the cached embeddings of a model read a store of their recipe, wherever it lies now.

    Embeddings of other recipes stay as they are: call it once for each store.

    Parameters
    ----------
    model : torch.nn.Module
        A Flair model, or any module with embeddings inside.
    store : Store, str or Path

    Returns
    -------
    torch.nn.Module
        The same model.

    Raises
    ------
    UsageError
        If the model has no cached embeddings.
    RecipeMismatchError
        If none of them has the store's recipe, naming the fields that differ.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    cached = [e.source for e in _embeddings(model) if isinstance(e.source, StoredVectors)]
    if not cached:
        raise UsageError(f"the {type(model).__name__} has no embeddings that read a store: nothing to bind")
    fitting = [source for source in cached if source.recipe == opened.recipe]
    for source in fitting or cached[:1]:  # where none fits the first one raises, with the difference
        source.rebind(opened)
    return model


def to_live(model: Any, encoder: Encoder | str | None = None) -> Any:
    """Let a model run an encoder instead of reading a store, so that it can be shipped without one.

    Names, lengths and with them everything that was learned stay.

    Parameters
    ----------
    model : torch.nn.Module
        A Flair model, or any module with embeddings inside.
    encoder : Encoder or str, optional
        Of the recipe of the embeddings to change; a specification takes layers, precision and initial state
        from it. By default what the store names. Embeddings of other recipes stay as they are.

    Returns
    -------
    torch.nn.Module
        The same model; if it was an embedding itself, the one that takes its place.

    Raises
    ------
    UsageError
        If the model has no embedding of ours.
    RecipeMismatchError
        If the encoder gives other vectors than any of its embeddings was trained on.
    """
    ours = _embeddings(model)
    if not ours:
        raise UsageError(f"the {type(model).__name__} has no embeddings of featurestore: nothing to change")
    loaded: dict[Recipe, Encoder] = {}
    mismatch: RecipeMismatchError | None = None
    replacements = {}
    for embedding in ours:
        try:
            if embedding.recipe not in loaded:
                loaded[embedding.recipe] = _encoder_for(embedding, encoder)
        except RecipeMismatchError as error:
            mismatch = mismatch or error
            continue
        source = LiveVectors(
            loaded[embedding.recipe], loaded[embedding.recipe].spec, embedding.recipe, embedding.source.choice
        )
        replacements[embedding] = _changed(embedding, source, LiveEmbeddings)
    if not replacements and mismatch is not None:
        raise mismatch
    return _replaced(model, replacements)


def to_cached(
    model: Any,
    store: Store | str | Path,
    on_missing: OnMissing = "error",
    fallback: Encoder | str | None = None,
) -> Any:
    """Let a model read a store instead of running an encoder: the way back from :func:`to_live`.

    Parameters
    ----------
    model : torch.nn.Module
    store : Store, str or Path
    on_missing, fallback
        As for :class:`CachedEmbeddings`.

    Returns
    -------
    torch.nn.Module
        As for :func:`to_live`.

    Raises
    ------
    UsageError
        If the model has no embedding of ours.
    RecipeMismatchError
        If none of its embeddings has the store's recipe, naming the fields that differ.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    ours = _embeddings(model)
    if not ours:
        raise UsageError(f"the {type(model).__name__} has no embeddings of featurestore: nothing to change")
    fitting = [e for e in ours if e.recipe == opened.recipe]
    if not fitting:
        opened.recipe.require_equal(
            ours[0].recipe,
            where=f"store {opened.path}",
            remedy="The model was trained on vectors of the recipe asked for: use a store of that recipe.",
        )
    return _replaced(
        model,
        {
            e: _changed(
                e,
                StoredVectors.of(opened, e.source.choice.text, on_missing=on_missing, fallback=fallback),
                CachedEmbeddings,
            )
            for e in fitting
        },
    )


def load(path: str | Path, *, trusted: bool = False) -> Any:
    """Load a model that Flair saved, embeddings of featurestore included.

    No store is opened before the model is used; if it has moved, :func:`bind` the model to it. Unlike Flair's
    own ``load``, this one keeps the order in which stacked embeddings were concatenated in training.

    Parameters
    ----------
    path : str or Path
        A ``.pt`` file.
    trusted : bool
        Say True if you made the file or trust who did. Flair models are pickles: loading one runs whatever
        code its maker put in, and Flair offers no other way.

    Returns
    -------
    flair.nn.Model
        In evaluation mode, on ``flair.device``.

    Raises
    ------
    UsageError
        Without ``trusted=True``.
    ModelError
        If there is no such file, or it is no Flair model that can be loaded here.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no Flair model at {path}: expected a file such as final-model.pt")
    if trusted is not True:
        raise UsageError(
            f"{path} was not loaded: a Flair model is a pickle, and loading it can run any code its maker "
            "put in. If you made it or trust who did: load(path, trusted=True)"
        )
    try:
        return _in_training_order(flair.nn.Model.load(str(path)))
    except KeyError as error:
        raise ModelError(
            f"{path} needs an embedding class that Flair does not know here, {error}: import the module that "
            "registers it first"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path} cannot be loaded as a Flair model: {error}") from error


def _in_training_order(model: Any) -> Any:
    """Give back the position that starts a stacked embedding's name to those that do not save their names.

    Flair concatenates by sorted name. ``OneHotEmbeddings`` and a few others lose theirs when they are loaded,
    and then stand elsewhere than in training: the model would run, on mixed-up vectors.
    """
    for module in model.modules():
        if isinstance(module, StackedEmbeddings):
            numbered = [e.name.startswith(f"{i}-") for i, e in enumerate(module.embeddings)]
            if any(numbered) and not all(numbered):
                for i, embedding in enumerate(module.embeddings):
                    if not numbered[i]:
                        embedding.name = f"{i}-{embedding.name}"
    return model


def _embeddings(model: Any) -> list[VectorEmbeddings]:
    """Return our embeddings anywhere in a module, each once."""
    return [module for module in model.modules() if isinstance(module, VectorEmbeddings)]


def _encoder_for(embedding: VectorEmbeddings, encoder: Encoder | str | None) -> Encoder:
    """Return the encoder to run, which has the embedding's recipe."""
    if encoder is not None and not isinstance(encoder, str):
        require_recipe(embedding.recipe, encoder)
        return encoder
    source = embedding.source
    spec = encoder or (source.spec if isinstance(source, LiveVectors) else source.open().encoder)
    return load_encoder_of(embedding.recipe, spec, device=str(flair.device))


def _changed(
    embedding: VectorEmbeddings, source: StoredVectors | LiveVectors, kind: type[VectorEmbeddings]
) -> VectorEmbeddings:
    """Return an embedding of the same name over another source."""
    if isinstance(embedding.source, StoredVectors):
        embedding.source.flush()
    # An ElmoEmbeddings is one over either source.
    made = (type(embedding) if isinstance(embedding, ElmoEmbeddings) else kind).over(embedding.name, source)
    made.encoder_device = embedding.encoder_device
    return made.train(embedding.training)  # type: ignore[no-any-return]


def _replaced(model: Any, replacements: dict[VectorEmbeddings, VectorEmbeddings]) -> Any:
    """Put embeddings in the place of others wherever a module refers to them."""
    new: Callable[[Any], Any] = lambda value: replacements.get(value, value)  # noqa: E731
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if isinstance(child, VectorEmbeddings):
                module._modules[name] = new(child)
        # StackedEmbeddings keeps its members in a plain list as well.
        for value in vars(module).values():
            if isinstance(value, list):
                value[:] = [new(item) if isinstance(item, VectorEmbeddings) else item for item in value]
    return new(model) if isinstance(model, VectorEmbeddings) else model
