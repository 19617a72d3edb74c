"""Specifications such as ``elmo:original`` to encoders, or to what is known of them before loading.

This module imports neither torch nor flair; loading an encoder does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.encoders.base import (
    DEFAULT_LAYERS,
    DEFAULT_WARM_UP_TOKENS,
    PRECISIONS,
    Encoder,
    EncoderOutline,
    Layers,
    WarmUp,
    layers_text,
)
from featurestore.encoders.checked import checked_encoder
from featurestore.errors import UnknownEncoderError, UsageError
from featurestore.families import FAMILIES, OWN, Family, expected_forms, family_of, family_of_recipe
from featurestore.recipe import Recipe

if TYPE_CHECKING:
    from featurestore.keys import Sentence


def load_encoder(
    spec: str,
    *,
    layers: Layers = DEFAULT_LAYERS,
    precision: str = "auto",
    device: str = "auto",
    initial_state: str = "auto",
) -> Encoder:
    """Load the encoder that a specification names.

    Parameters
    ----------
    spec : str
        ``elmo:demo`` (comes with the package), ``elmo:small``, ``elmo:medium``, ``elmo:original``,
        ``elmo:original-5.5b``, ``elmo:portuguese``, ``elmo:pubmed`` (published models, downloaded once),
        ``elmo:./FOLDER`` (with options and weights) or ``elmo:OPTIONS.json,WEIGHTS.hdf5``
        (local files), or ``elmo:untrained-small?seed=0`` (random weights, for speed work only).
        With Flair installed ``flair:PATH`` (a transformer's folder, a character model, word vectors),
        ``flair:glove``, ``flair:news-forward`` (by Flair's names), ``flair:Class=NAME_OR_PATH?option=value``,
        or several with ``+`` between them (a stack). Flair's files are mostly pickles: reading one runs the
        code in it, so name only files of people you trust.
        An encoder of your own is ``PACKAGE.MODULE:CLASS``, a class or function that is called without
        arguments (with ``device=`` if it takes that): see :mod:`featurestore.encoders.own`.
    layers : str, int or sequence of int
        Of an ELMo ``average``, ``top``, ``all``, or indices such as ``0,2`` or ``[0, 2]``.
    precision : str
        ``auto`` (float32 on a CPU, float16 on a GPU), ``float32``, ``bfloat16`` or ``float16``; Flair's are
        computed in float32.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    initial_state : str
        Of an ELMo, the LSTM state at the start of every sentence: ``zero``; ``warm``, one fixed state made
        from text by ``featurestore warm-up`` and kept beside the weights; or ``auto``, which is what suits
        the model best as far as that was measured.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    UsageError
        If an argument makes no sense, or the encoder does not take it.
    EncoderError
        If the encoder cannot be built: see its subclasses.
    """
    family, rest = _family(spec)
    return _loaded(family, spec, rest, device, _choices(family, layers, precision, initial_state))


def outline_encoder(
    spec: str, *, layers: Layers = DEFAULT_LAYERS, precision: str = "auto", initial_state: str = "auto"
) -> EncoderOutline:
    """Return what can be known of an ELMo without loading it (no torch, no download).

    Any other encoder is loaded; loading the same one afterwards takes no time.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    UsageError
        If an argument makes no sense, or the encoder does not take it; before anything is loaded.
    EncoderError
        If a file that is needed, and is not downloaded when loading, is not here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
    family, rest = _family(spec)
    choices = _choices(family, layers, precision, initial_state)
    if family.outline is None:
        return checked_encoder(_loaded(family, spec, rest, None, choices)).outline
    choices.pop("precision")  # decides no shape
    outline: EncoderOutline = family.resolved(family.outline, spec)(rest, **choices)
    return outline


def encoder_recipe(
    spec: str, *, layers: Layers = DEFAULT_LAYERS, precision: str = "float32", initial_state: str = "auto"
) -> Recipe:
    """Return the recipe of an encoder; of an ELMo without loading it: no torch, no download.

    Any other encoder is loaded; loading the same one afterwards takes no time.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    UsageError
        If an argument makes no sense, or the encoder does not take it.
    EncoderError
        If its files are not here.
    """
    family, rest = _family(spec)
    if family.recipe is None and precision == "float32":
        precision = "auto"  # these families have one precision only
    choices = _choices(family, layers, precision, initial_state)
    if family.recipe is None:
        return checked_encoder(_loaded(family, spec, rest, None, choices)).recipe
    recipe: Recipe = family.resolved(family.recipe, spec)(rest, **choices)
    return recipe


def warm_up_encoder(
    spec: str,
    sentences: Iterable[Sentence],
    *,
    max_tokens: int = DEFAULT_WARM_UP_TOKENS,
    device: str = "auto",
    out: Path | None = None,
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> WarmUp:
    """Make the fixed state of initial state ``warm`` for a model, and store it beside the model's weights.

    Parameters
    ----------
    spec : str
        A model in files, as for :func:`load_encoder`.
    sentences : iterable of tuple of str
        Running text in its order; no more of it is read than ``max_tokens``.
    max_tokens : int
    device : str
        As for :func:`load_encoder`.
    out : Path, optional
        Write there instead.
    force : bool
        Replace a state that differs.
    progress : callable, optional
        Called now and then with the number of tokens done since.

    Raises
    ------
    UsageError
        If nothing has that name, the model is untrained, or it is not an ELMo.
    EncoderError
        If the model cannot be loaded, the text is too short, the state cannot be written, or the file holds a
        state that differs.
    """
    family, rest = _family(spec)
    if family is OWN:  # or a name with a colon that means nothing
        raise UnknownEncoderError(
            f"unknown encoder {spec!r}: only an ELMo has an initial state to warm up, expected "
            f"{', '.join(form for each in FAMILIES if each.warm_up for form in each.forms)}"
        )
    if family.warm_up is None:
        raise UsageError(f"{spec} has no initial state to warm up: only an ELMo has one")
    made: WarmUp = family.resolved(family.warm_up, spec)(
        rest, sentences, max_tokens=max_tokens, device=device, out=out, force=force, progress=progress
    )
    return made


def recipe_choices(recipe: Recipe) -> dict[str, str]:
    """Return what a recipe says about layers, precision and initial state, as :func:`load_encoder` takes it.

    Not every family leaves all of them open, and a recipe may come from anywhere: the rest is left out.
    """
    found = {}
    fixed = family_of_recipe(recipe).fixed
    for name in (name for name in ("layers", "precision", "initial_state") if name not in fixed):
        stated = recipe.get(name)
        if isinstance(stated, list):
            stated = ",".join(map(str, stated))
        if isinstance(stated, str):
            found[name] = stated
    return found


def lies_no_longer(spec: str) -> bool:
    """Return whether a specification names files by absolute paths, and one of them is not there any more."""
    rest = spec.partition(":")[2].partition("?")[0]
    paths = [Path(path) for path in rest.split(",")]
    return family_of(spec) is not None and any(path.is_absolute() and not path.exists() for path in paths)


def require_no_code(spec: str, store: str | Path) -> None:
    """Raise if loading an encoder that a store names, rather than the user, could run code.

    Raises
    ------
    UsageError
        For one of Flair's, whose files are mostly pickles, and for one of the user's own.
    """
    family = family_of(spec)
    if family is None or not family.runs_code:
        return
    why = (
        f"Loading a {family.name.capitalize()} model can run code that is in its files"
        if family.name
        else "Loading it runs the code of that module"
    )
    raise UsageError(
        f"the store {store} was filled by {spec!r}. {why}, and a store may come from anywhere: if you trust "
        "this one, name the encoder yourself (--encoder; from Python encoder= or fallback=)"
    )


def _family(spec: object) -> tuple[Family, str]:
    """Return a specification's family and what its functions take: the text after the colon, or all."""
    if not isinstance(spec, str):
        raise UsageError(f"a {type(spec).__name__} names no encoder: expected {expected_forms()}")
    family = family_of(spec)
    if family is None:
        raise UnknownEncoderError(f"unknown encoder {spec!r}: expected {expected_forms()}")
    return family, spec.partition(":")[2] if family.name else spec


def _loaded(family: Family, spec: str, rest: str, device: str | None, choices: dict[str, Any]) -> Encoder:
    """Return the encoder; with no device, on any, where only what is known of it is asked for."""
    encoder: Encoder = family.resolved(family.load, spec)(rest, device=device, **choices)
    return encoder


def _choices(family: Family, layers: Layers, precision: str, initial_state: str) -> dict[str, Any]:
    """Return the choices that a family leaves open; checks the others, before the family is imported."""
    choices = {"layers": layers_text(layers), "precision": precision, "initial_state": initial_state}
    for name, (allowed, reason) in family.fixed.items():
        if choices[name] not in allowed:
            shown = name.replace("_", " ")
            raise UsageError(f"{shown} {choices[name]!r}: {reason}")
    return {name: value for name, value in choices.items() if name not in family.fixed}
