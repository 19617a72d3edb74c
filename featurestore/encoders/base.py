"""What an encoder is, and how a specification such as ``elmo:original`` becomes one.

An encoder turns sentences into one array per sentence. It is deterministic, runs without gradients, and
knows its recipe. This module imports neither torch nor flair; loading an encoder does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from featurestore.errors import UnknownEncoderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurestore.encoders.elmo.warm import WarmUp
    from featurestore.keys import Sentence
    from featurestore.recipe import Recipe

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
DEFAULT_LAYERS = "average"

DEFAULT_ENCODER = "elmo:demo"
"""What fills a new store for which no encoder is named: the model that comes with the package."""

DEFAULT_WARM_UP_TOKENS = 200_000

_EXPECTED = (
    "elmo:demo (comes with the package), elmo:small, elmo:medium, elmo:original, elmo:original-5.5b, "
    "elmo:portuguese, elmo:pubmed, elmo:./FOLDER, elmo:OPTIONS.json,WEIGHTS.hdf5 or "
    "elmo:untrained-small?seed=0"
)


class PendingVectors(Protocol):
    """Vectors on their way from the device."""

    def result(self) -> list[NDArray[np.floating]]:
        """Wait, then return one array per sentence, as :meth:`Encoder.encode` does."""


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

        Raises
        ------
        EncoderOutOfMemory
            The batch does not fit; here or from ``result()``.
        """

    def encode(self, sentences: Sequence[Sentence]) -> list[NDArray[np.floating]]:
        """Return one ``(n_tokens, dim)`` or ``(n_tokens, n_layers, dim)`` float32 array per sentence."""


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


def load_encoder(
    spec: str,
    *,
    layers: str = DEFAULT_LAYERS,
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
    layers : str
        ``average``, ``top``, ``all``, or indices such as ``0,2``.
    precision : str
        ``auto`` (float32 on a CPU, float16 on a GPU), ``float32``, ``bfloat16`` or ``float16``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    initial_state : str
        LSTM state at the start of every sentence: ``zero``; ``warm``, one fixed state made from text by
        ``featurestore warm-up`` and kept beside the weights; or ``auto``, which is what suits the model best
        as far as that was measured.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    EncoderError
        If the encoder cannot be built: see its subclasses.
    """
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.encoder import load_elmo

        return load_elmo(rest, layers=layers, precision=precision, device=device, initial_state=initial_state)
    raise _unknown(spec)


def outline_encoder(
    spec: str, *, layers: str = DEFAULT_LAYERS, initial_state: str = "auto"
) -> EncoderOutline:
    """Return what can be known of an encoder without loading it (no torch, no download).

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    EncoderError
        If a file that is needed, and is not downloaded when loading, is not here.
    """
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.files import outline_elmo

        return outline_elmo(rest, layers=layers, initial_state=initial_state)
    raise _unknown(spec)


def encoder_recipe(
    spec: str, *, layers: str = DEFAULT_LAYERS, precision: str = "float32", initial_state: str = "auto"
) -> Recipe:
    """Return the recipe of an encoder without loading it: no torch, no download.

    Raises
    ------
    UnknownEncoderError
        If nothing has that name.
    EncoderError
        If its files are not here.
    """
    family, _, rest = spec.partition(":")
    if family == "elmo" and rest:
        from featurestore.encoders.elmo.identity import recipe_of

        return recipe_of(rest, layers=layers, precision=precision, initial_state=initial_state)
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
        If nothing has that name, or the model is untrained.
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
    raise _unknown(spec)


def _unknown(spec: str) -> UnknownEncoderError:
    return UnknownEncoderError(f"unknown encoder {spec!r}: expected {_EXPECTED}")
