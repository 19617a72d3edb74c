"""What an encoder is: the interface that extraction asks for, and nothing that loads one.

An encoder turns sentences into one array per sentence. It is deterministic, runs without gradients, and
knows its recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from featurestore.errors import UsageError
from featurestore.families import Encodes

if TYPE_CHECKING:
    from featurestore.encoders.vectors import EncodedVectors
    from featurestore.keys import Sentence

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
DEFAULT_LAYERS = "average"

DEFAULT_ENCODER = "elmo:demo"
"""What fills a new store for which no encoder is named: the model that comes with the package."""

DEFAULT_WARM_UP_TOKENS = 200_000

Layers = str | int | Sequence[int]
"""A choice of layers: ``average``, ``top``, ``all``, ``0,2``, or indices as numbers."""


@runtime_checkable
class Encoder(Encodes, Protocol):
    """Sentences in, one array of vectors per sentence out.

    A class need not inherit from this; one that does declares its attributes in its body
    (``spec: str``). :func:`featurestore.testing.check_encoder` tests what the types cannot say.

    Attributes
    ----------
    spec : str
        The specification that loads this encoder again (``load_encoder(spec)``), or any name, or empty. It
        names the encoder for people and is not an identity: that is the recipe.
    recipe : Recipe or mapping
        Everything that decides a vector; at least ``kind`` and ``version``.
    dim : int
        Length of a vector.
    n_layers : int
        Layers kept apart: with 1 an array is ``(n_tokens, dim)``, with more ``(n_tokens, n_layers, dim)``.
    device : str
        Where it runs, as torch names it (``cpu``, ``cuda:0``).
    token_budget : int
        Tokens of a batch by default, padding not counted.

    Notes
    -----
    An encoder may also have ``submit(sentences)``, which returns without waiting for the device, an object
    whose ``result()`` waits and returns what ``encode`` would
    (:class:`~featurestore.encoders.vectors.PendingVectors`). Extraction then keeps a second batch under way
    on devices other than a CPU. ``submit`` and ``encode`` may raise
    :class:`~featurestore.errors.EncoderOutOfMemory`: a smaller batch is tried.

    And it may have ``watched(report)``, a context in which it calls ``report(n_tokens)`` when that many more
    tokens' worth of a batch is done: for sentences that take minutes. One that reads only the first bytes of
    a token's UTF-8 may say how many in ``max_token_bytes``: extraction then counts the tokens whose end it
    does not see.
    """

    if TYPE_CHECKING:

        @property
        def token_budget(self) -> int:
            """Tokens of a batch by default."""

    else:
        token_budget: int

    if not TYPE_CHECKING:

        def __init_subclass__(cls, **options):
            # Not a member of the protocol, which asks for encode alone; classes that inherit get this
            # default.
            super().__init_subclass__(**options)
            if not hasattr(cls, "submit"):
                cls.submit = _encode_at_once


def _encode_at_once(self: Encoder, sentences: Sequence[Sentence]) -> EncodedVectors:
    """Encode a batch, done on return, in the form of one that is under way."""
    from featurestore.encoders.vectors import EncodedVectors  # loads NumPy

    return EncodedVectors(self.encode(sentences))


@dataclass(frozen=True)
class EncoderOutline:
    """What can be known of an encoder without loading its weights: enough to plan an extraction.

    Attributes
    ----------
    dim, n_layers : int
        As in :class:`Encoder`.
    megaflops_per_token : float or None
        Arithmetic for one token, in millions of floating point operations; None where unknown.
    max_token_bytes : int or None
        Bytes of a token's UTF-8 that decide its vector; None where all do, or nothing is known.
    """

    dim: int
    n_layers: int
    megaflops_per_token: float | None = None
    max_token_bytes: int | None = None


@dataclass(frozen=True)
class WarmUp:
    """What warming up a model did; see :func:`featurestore.encoders.loading.warm_up_encoder`.

    Attributes
    ----------
    spec : str
        The model, by its full specification.
    path : Path
        Where the state lies.
    in_place : bool
        Whether that is where the model looks for it.
    written : bool
        False if the file held this very state already.
    sha256, weights_sha256 : str
        Of the state, as recipes hold it, and of the weights it was made with.
    n_sentences, n_tokens, n_streams : int
        The text that was run.
    """

    spec: str
    path: Path
    in_place: bool
    written: bool
    sha256: str
    weights_sha256: str
    n_sentences: int
    n_tokens: int
    n_streams: int


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
