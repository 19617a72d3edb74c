"""Trained Flair models: bound to a store, made to run without one, loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flair.models
import flair.nn
from flair.class_utils import get_non_abstract_subclasses
from flair.embeddings import StackedEmbeddings
from flair.embeddings.base import TokenEmbeddings
from flair.file_utils import load_torch_state

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import CheckedEncoder
from featurestore.encoders.flair.conditions import Dependence
from featurestore.encoders.flair.encoder import FlairEncoder
from featurestore.encoders.loading import require_no_code
from featurestore.errors import FeaturestoreError, ModelError, RecipeMismatchError, UsageError
from featurestore.families import remedy_for
from featurestore.integrations.flair_embeddings import (
    CachedEmbeddings,
    ElmoEmbeddings,
    LiveEmbeddings,
    VectorEmbeddings,
)
from featurestore.integrations.live import LiveVectors, load_encoder_of, require_recipe
from featurestore.integrations.stored import MissPolicy, StoredVectors
from featurestore.recipe import Recipe
from featurestore.store.store import Store

logger = logging.getLogger(__name__)


def bind(model: Any, store: Store | str | Path) -> Any:
    """Let the cached embeddings of a model read a store of their recipe, wherever it is now.

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
        from it. By default what the store names, unless it is one of Flair's, whose files may hold code.
        Embeddings of other recipes stay as they are.

    Returns
    -------
    torch.nn.Module
        The same model; if it was an embedding itself, the one that takes its place.

    Raises
    ------
    UsageError
        If the model has no embedding of ours, or an encoder is needed and none is named.
    RecipeMismatchError
        If the encoder's recipe is that of none of the embeddings.
    """
    ours = _embeddings(model)
    if not ours:
        raise UsageError(f"the {type(model).__name__} has no embeddings of featurestore: nothing to change")
    loaded: dict[Recipe, CheckedEncoder] = {}
    mismatch: RecipeMismatchError | None = None
    replacements = {}
    for embedding in ours:
        try:
            if embedding.recipe not in loaded:
                loaded[embedding.recipe] = _encoder_for(embedding, encoder)
        except RecipeMismatchError as error:
            mismatch = mismatch or error
            continue
        running = loaded[embedding.recipe]
        source = LiveVectors(running, running.spec, embedding.recipe, embedding.source.choice)
        replacements[embedding] = _changed(embedding, source, LiveEmbeddings)
    if not replacements and mismatch is not None:
        raise mismatch
    if any(not running.spec for running in loaded.values()):
        logger.warning(
            "the encoder has no specification, so a saved copy of this model cannot load it: call "
            "to_live(model, ENCODER) on that again, or take an encoder of load_encoder('...')"
        )
    return _replaced(model, replacements)


def to_cached(
    model: Any,
    store: Store | str | Path,
    on_missing: MissPolicy = "error",
    fallback: Encoder | str | None = None,
) -> Any:
    """Let a model read a store instead of running an encoder: the way back from :func:`to_live`.

    Flair's own embeddings are replaced too, where the store holds the vectors that they give now: a model
    that was trained with a transformer goes on without it, under the same names, and is saved without it.

    Parameters
    ----------
    model : torch.nn.Module
        A Flair model, or any module with token embeddings inside.
    store : Store, str or Path
    on_missing, fallback
        As for :class:`CachedEmbeddings`; an embedding of Flair's that is replaced is its own fallback.

    Returns
    -------
    torch.nn.Module
        As for :func:`to_live`.

    Raises
    ------
    UsageError
        If the model has no token embedding whose vectors could be stored.
    RecipeMismatchError
        If none of its embeddings has the store's recipe, naming the fields in which the nearest differs.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    candidates: list[tuple[TokenEmbeddings, Recipe, Encoder | None]] = [
        (embedding, embedding.recipe, None) for embedding in _embeddings(model)
    ]
    refused: list[str] = []
    if not any(recipe == opened.recipe for _, recipe, _ in candidates):
        for embedding in _flairs_own(model):
            try:
                # Also one that was trained along: it is replaced only if the store holds its vectors as they
                # are now.
                own = FlairEncoder(embedding, allow_trainable=True, dependence=Dependence.of(opened.recipe))
            except FeaturestoreError as error:
                refused.append(f"\n  {embedding.name}: {error}")
            else:
                candidates.append((embedding, own.recipe, own))
    if not candidates:
        raise UsageError(
            f"the {type(model).__name__} has no embeddings whose vectors could be in a store: nothing to "
            f"change{''.join(refused)}"
        )
    replacements = {}
    for embedding, recipe, encoder in candidates:
        if recipe != opened.recipe:
            continue
        layers = embedding.source.choice.text if encoder is None else "all"
        computing = (fallback or encoder) if on_missing == "compute" else fallback
        source = StoredVectors.of(opened, layers, on_missing=on_missing, fallback=computing)
        replacements[embedding] = _changed(embedding, source, CachedEmbeddings)
    if not replacements:
        nearest = min((recipe for _, recipe, _ in candidates), key=lambda r: len(opened.recipe.diff(r)))
        remedy = "The model was trained on vectors of the recipe asked for: use a store of that recipe."
        opened.recipe.require_equal(
            nearest, where=f"store {opened.path}", remedy=remedy_for(opened.recipe, nearest, remedy)
        )
    return _replaced(model, replacements)


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
        If there is no such file, it cannot be read, or it is no Flair model that can be loaded here.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no Flair model at {path}: expected a file such as final-model.pt")
    if trusted is not True:
        raise UsageError(
            f"{path} was not loaded: a Flair model is a pickle, and loading it can run any code its maker "
            "put in. If you made it or trust who did: load(path, trusted=True)"
        )
    state = _read_state(path)
    named = state.get("__cls__")
    try:
        return _in_training_order(flair.nn.Model.load(state))
    except FeaturestoreError:
        raise
    except KeyError as error:
        raise ModelError(
            f"{path} cannot be loaded: there is no {error}. If that is an embedding class, import the module "
            "that registers it with Flair first; if not, the model is of another version of Flair, or damaged"
        ) from error
    except Exception as error:  # whatever the class of the model says of a state it cannot use
        # Of a state without a class Flair tries every one, and then shows all of the state.
        reason = f"{type(error).__name__}: {error}" if named else "no model class of Flair here takes it"
        raise ModelError(
            f"{path} cannot be loaded as a Flair {named or 'model'} ({reason}): it is of another version of "
            "Flair, or damaged"
        ) from error


def _read_state(path: Path) -> dict[str, Any]:
    """Return the content of a Flair file, if a model can be made of it.

    Not ``Model.load``, which takes a file it cannot read for the name of a published model.
    """
    try:
        state = load_torch_state(str(path))
    except Exception as error:  # unpickling raises anything
        raise ModelError(
            f"{path} cannot be read as a Flair model ({type(error).__name__}: {error}): is it damaged or cut "
            "short, of another kind, or in need of a module that is not here?"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        held = (
            f"keys {', '.join(map(str, list(state)[:5]))}"
            if isinstance(state, dict)
            else type(state).__name__
        )
        raise ModelError(f"{path} holds no Flair model (but {held}): expected a file that model.save wrote")
    named = state.get("__cls__")
    if named and named not in [known.__name__ for known in get_non_abstract_subclasses(flair.nn.Model)]:
        raise ModelError(
            f"{path} is a model of the class {named!r}, which Flair does not know here: import the module "
            "that defines it first"
        )
    return state


def _in_training_order(model: Any) -> Any:
    """Restore the position at the start of the name of stacked embeddings that do not save their names.

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


def _flairs_own(module: Any) -> list[TokenEmbeddings]:
    """Return Flair's token embeddings anywhere in a module, each once: a stack, then its members.

    Embeddings inside any other embedding are left alone.
    """
    if isinstance(module, VectorEmbeddings):
        return []
    found = [module] if isinstance(module, TokenEmbeddings) else []
    if not found or isinstance(module, StackedEmbeddings):
        found += [embedding for child in module.children() for embedding in _flairs_own(child)]
    return list(dict.fromkeys(found))


def _encoder_for(embedding: VectorEmbeddings, encoder: Encoder | str | None) -> CheckedEncoder:
    """Return the encoder to run, after checking that it has the embedding's recipe."""
    if encoder is not None and not isinstance(encoder, str):
        return require_recipe(embedding.recipe, encoder)
    source = embedding.source
    if encoder:
        spec = encoder
    elif isinstance(source, LiveVectors):
        spec = source.spec
    else:
        store = source.open()
        spec = store.encoder
        require_no_code(spec, store.path)
    return load_encoder_of(embedding.recipe, spec, device=str(flair.device))


def _changed(
    embedding: TokenEmbeddings, source: StoredVectors | LiveVectors, kind: type[VectorEmbeddings]
) -> VectorEmbeddings:
    """Return an embedding of the same name over another source."""
    # An ElmoEmbeddings is one over either source.
    made = (type(embedding) if isinstance(embedding, ElmoEmbeddings) else kind).over(embedding.name, source)
    if isinstance(embedding, VectorEmbeddings):
        if isinstance(embedding.source, StoredVectors):
            embedding.source.flush()
        made.encoder_device = embedding.encoder_device
    return made.train(embedding.training)  # type: ignore[no-any-return]


def _replaced(model: Any, replacements: Mapping[Any, VectorEmbeddings]) -> Any:
    """Put embeddings in the place of others wherever a module refers to them."""

    def new(value: Any) -> Any:
        return replacements.get(value, value) if isinstance(value, TokenEmbeddings) else value

    for module in list(model.modules()):
        for name, child in module._modules.items():
            module._modules[name] = new(child)
        # StackedEmbeddings keeps its members in a plain list as well.
        for value in vars(module).values():
            if isinstance(value, list):
                value[:] = [new(item) for item in value]
    return new(model)
