"""What an encoder is, and how a specification such as ``elmo:original`` or ``flair:glove`` becomes one.

An encoder turns sentences into one array per sentence. It is deterministic, runs without gradients, and
knows its recipe. This module imports neither torch nor flair; loading an encoder does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from featurestore.encoders.vectors import EncodedVectors, PendingVectors
from featurestore.errors import EncoderError, UnknownEncoderError, UsageError
from featurestore.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurestore.encoders.elmo.warm import WarmUp
    from featurestore.encoders.flair.encoder import FlairEncoder
    from featurestore.keys import Sentence

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
DEFAULT_LAYERS = "average"

DEFAULT_ENCODER = "elmo:demo"
"""What fills a new store for which no encoder is named: the model that comes with the package."""

DEFAULT_WARM_UP_TOKENS = 200_000

Layers = str | int | Sequence[int]
"""A choice of layers: ``average``, ``top``, ``all``, ``0,2``, or indices as numbers."""

_EXPECTED = (
    "elmo:demo (comes with the package), elmo:small, elmo:medium, elmo:original, elmo:original-5.5b, "
    "elmo:portuguese, elmo:pubmed, elmo:./FOLDER, elmo:OPTIONS.json,WEIGHTS.hdf5, "
    "elmo:untrained-small?seed=0, or any embedding of Flair: flair:PATH, flair:glove, flair:news-forward, "
    "flair:TransformerWordEmbeddings=MODEL?layers=-1"
)


@runtime_checkable
class Encoder(Protocol):
    """Sentences in, one array of vectors per sentence out.

    Attributes
    ----------
    spec : str
        The specification that loads this encoder again (``load_encoder(spec)``); names it for people. It is
        not an identity: that is the recipe.
    recipe : Recipe
        Everything that decides a vector.
    dim : int
        Length of a vector.
    n_layers : int
        Layers kept apart: 1 gives ``(n_tokens, dim)`` per sentence, more ``(n_tokens, n_layers, dim)``.
    device : str
        Where it runs, as torch names it (``cpu``, ``cuda:0``).
    token_budget : int
        Tokens a batch may hold by default on this device.
    """

    spec: str
    recipe: Recipe
    dim: int
    n_layers: int
    device: str
    token_budget: int

    def submit(self, sentences: Sequence[Sentence]) -> PendingVectors:
        """Start encoding a batch and return without waiting for the device.

        An encoder need not have it: ``encode`` is enough.

        Raises
        ------
        EncoderOutOfMemory
            The batch does not fit; here or from ``result()``.
        """
        return EncodedVectors(self.encode(sentences))

    def encode(self, sentences: Sequence[Sentence]) -> list[NDArray[np.floating]]:
        """Return one ``(n_tokens, dim)`` or ``(n_tokens, n_layers, dim)`` float32 array per sentence."""


_ATTRIBUTES = {"spec": str, "dim": int, "n_layers": int, "device": str, "token_budget": int}


def require_encoder(given: object) -> None:
    """Raise unless an object is an encoder, with all that extraction asks of one.

    Raises
    ------
    UsageError
        Naming what is missing or of another type, or how an embedding of Flair becomes one.
    """
    if isinstance(given, type):
        raise UsageError(f"the class {given.__name__} is no encoder: expected an object of one")
    if not isinstance(getattr(given, "recipe", None), Recipe):
        raise UsageError(
            f"a {type(given).__name__} is no encoder: expected one, or its specification. An embedding of "
            "Flair becomes one as featurestore.encoders.flair.FlairEncoder(embedding)"
        )
    wrong = [
        f"{name} is {getattr(given, name, None)!r:.60}, expected {expected.__name__}"
        for name, expected in _ATTRIBUTES.items()
        if not isinstance(getattr(given, name, None), expected) or isinstance(getattr(given, name), bool)
    ]
    if not callable(getattr(given, "encode", None)):
        wrong.append("encode() is missing")
    if wrong:
        raise UsageError(
            f"a {type(given).__name__} is not a whole encoder: {'; '.join(wrong)} (see featurestore.Encoder)"
        )


@dataclass(frozen=True)
class EncoderOutline:
    """What can be known of an encoder without loading its weights: enough to plan an extraction.

    Attributes
    ----------
    dim, n_layers : int
        As in :class:`Encoder`.
    megaflops_per_token : float or None
        Arithmetic for one token, in millions of floating point operations; None where unknown.
    """

    dim: int
    n_layers: int
    megaflops_per_token: float | None = None


def layers_text(layers: Layers) -> str:
    """Return a choice of layers as text; indices may be numbers.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if isinstance(layers, str):
        return layers
    indices = [layers] if isinstance(layers, int) else layers
    if not isinstance(indices, Sequence) or not all(isinstance(index, int) for index in indices):
        raise UsageError(
            f"layers {layers!r} make no sense: expected average, top, all, or indices such as 0,2"
        )
    return ",".join(map(str, indices))


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
        ``elmo:./FOLDER`` (with ``options.json`` and ``weights.hdf5``) or ``elmo:OPTIONS.json,WEIGHTS.hdf5``
        (local files), or ``elmo:untrained-small?seed=0`` (random weights, for speed work only).
        With Flair installed ``flair:PATH`` (a transformer's folder, a character model, word vectors),
        ``flair:glove``, ``flair:news-forward`` (by Flair's names), ``flair:Class=NAME_OR_PATH?option=value``,
        or several with ``+`` between them (a stack). Flair's files are mostly pickles: reading one runs the
        code in it, so name only files of people you trust.
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
    EncoderError
        If the encoder cannot be built: see its subclasses.
    """
    if not isinstance(spec, str):
        raise UsageError(f"a {type(spec).__name__} names no encoder: expected {_EXPECTED}")
    layers = layers_text(layers)
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.encoder import load_elmo

        return load_elmo(rest, layers=layers, precision=precision, device=device, initial_state=initial_state)
    if family == "flair" and rest:
        return _load_flair(rest, layers, precision, initial_state, device)
    raise _unknown(spec)


def outline_encoder(
    spec: str, *, layers: str = DEFAULT_LAYERS, precision: str = "auto", initial_state: str = "auto"
) -> EncoderOutline:
    """Return what can be known of an ELMo without loading it (no torch, no download).

    A Flair embedding is loaded; loading the same encoder afterwards takes no time.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    UsageError
        If an argument makes no sense, or none for this encoder; of Flair before anything is loaded.
    EncoderError
        If a file that is needed, and is not downloaded when loading, is not here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.files.resolving import outline_elmo

        return outline_elmo(rest, layers=layers, initial_state=initial_state)
    if family == "flair" and rest:
        encoder = _load_flair(rest, layers, precision, initial_state)
        return EncoderOutline(encoder.dim, encoder.n_layers)
    raise _unknown(spec)


def encoder_recipe(
    spec: str, *, layers: str = DEFAULT_LAYERS, precision: str = "float32", initial_state: str = "auto"
) -> Recipe:
    """Return the recipe of an encoder; of an ELMo without loading it: no torch, no download.

    A Flair embedding is loaded; loading the same encoder afterwards takes no time.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    EncoderError
        If its files are not here.
    """
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.files.identity import recipe_of

        return recipe_of(rest, layers=layers, precision=precision, initial_state=initial_state)
    if family == "flair" and rest:
        return _load_flair(rest, layers, precision, initial_state).recipe
    raise _unknown(spec)


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
        Replace another state that is there.
    progress : callable, optional
        Called now and then with the number of tokens done since.

    Raises
    ------
    UsageError
        If nothing has that name, the model is untrained, or is no ELMo.
    EncoderError
        If the model cannot be loaded, the text is too short, the state cannot be written, or another one is
        there.
    """
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.warm import warm_up

        return warm_up(
            rest, sentences, max_tokens=max_tokens, device=device, out=out, force=force, progress=progress
        )
    if family == "flair":
        raise UsageError(f"{spec} has no initial state to warm up: only an ELMo has one")
    raise _unknown(spec)


def recipe_choices(recipe: Recipe) -> dict[str, str]:
    """Return what a recipe says about layers, precision and initial state, as :func:`load_encoder` takes it.

    Not every kind of encoder has all of them, and a recipe may come from anywhere: the rest is left out.
    """
    found = {}
    for name in ("layers", "precision", "initial_state"):
        stated = recipe.get(name)
        if isinstance(stated, list):
            stated = ",".join(map(str, stated))
        if isinstance(stated, str):
            found[name] = stated
    return found


def require_no_code(spec: str, store: str | Path) -> None:
    """Raise if loading an encoder that a store names, rather than the user, could run code.

    Raises
    ------
    UsageError
        For one of Flair's, whose files are mostly pickles.
    """
    if spec.startswith("flair:"):
        raise UsageError(
            f"the store {store} was filled by {spec!r}. Loading a Flair model can run code that is in its "
            "files, and a store may come from anywhere: if you trust this one, name the encoder yourself "
            "(--encoder; from Python encoder= or fallback=)"
        )


def _load_flair(
    rest: str, layers: str, precision: str, initial_state: str, device: str | None = None
) -> FlairEncoder:
    """Load a Flair embedding as an encoder; without a device, on any."""
    # Before Flair is imported, which takes seconds.
    if layers != DEFAULT_LAYERS:
        raise UsageError(
            f"layers {layers!r}: a Flair embedding has no layers to choose. Those of a transformer are an "
            "option of its own, flair:TransformerWordEmbeddings=MODEL?layers=-1,-2&layer_mean=false"
        )
    if precision not in ("auto", "float32"):
        raise UsageError(f"precision {precision!r}: Flair embeddings are computed in float32")
    if initial_state not in ("auto", "zero"):
        raise UsageError(f"initial state {initial_state!r}: only ELMo has one")
    try:
        from featurestore.encoders.flair.loading import load_flair
    except ModuleNotFoundError as error:
        if error.name != "flair":
            raise
        raise EncoderError(
            f"the encoder flair:{rest} needs Flair, which is not here: pip install 'featurestore[flair]'"
        ) from error
    return load_flair(rest, device=device)


def _unknown(spec: str) -> UnknownEncoderError:
    return UnknownEncoderError(f"unknown encoder {spec!r}: expected {_EXPECTED}")
