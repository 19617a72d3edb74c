"""ELMo models by name: what a specification asks for, where published models lie, what their shapes are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from featurestore.encoders.elmo.files.folders import ARCHIVES, model_in
from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
from featurestore.errors import UnknownEncoderError, UsageError

BASE_URL = "https://s3-us-west-2.amazonaws.com/allennlp/models/elmo/"
"""Where the models were published; ``FEATURESTORE_ELMO_BASE_URL`` names a mirror instead."""

BUNDLED_NAME = "demo"
"""Name of the model that comes with the package: ``elmo:demo``."""

BUNDLED_FOLDER = Path(__file__).parent.parent / "demo"
"""Where its files lie: ``options.json``, ``weights.hdf5``, ``weights.warm.hdf5``, ``CARD.md``."""

BUNDLED_INITIAL_STATE = "zero"
"""What initial state ``auto`` means for the bundled model."""

INITIAL_STATES = ("auto", "zero", "warm")
"""Policies for the LSTM state at the start of a sentence; ``auto`` is what the catalog says of the model."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PublishedModel:
    """A published model.

    Attributes
    ----------
    name : str
        As in ``elmo:NAME``.
    options_path, weights_path : str
        Relative to the base URL.
    shape : str
        The preset with its dimensions.
    weights_sha256 : str or None
        Known hash of the weights; where none is known the first download is recorded and compared ever after.
    initial_state : str
        What initial state ``auto`` means for it.
    """

    name: str
    options_path: str
    weights_path: str
    shape: str
    weights_sha256: str | None = None
    initial_state: str = "zero"


def _model(name: str, path: str, shape: str, weights_sha256: str | None = None) -> PublishedModel:
    return PublishedModel(name, f"{path}_options.json", f"{path}_weights.hdf5", shape, weights_sha256)


PUBLISHED = {
    model.name: model
    for model in (
        _model(
            "small",
            "2x1024_128_2048cnn_1xhighway/elmo_2x1024_128_2048cnn_1xhighway",
            "small",
            "747ba97abce8a5f446558369e10bb0f7931437a46867476fdd156f5d7f576229",
        ),
        _model("medium", "2x2048_256_2048cnn_1xhighway/elmo_2x2048_256_2048cnn_1xhighway", "medium"),
        _model("original", "2x4096_512_2048cnn_2xhighway/elmo_2x4096_512_2048cnn_2xhighway", "original"),
        _model(
            "original-5.5b",
            "2x4096_512_2048cnn_2xhighway_5.5B/elmo_2x4096_512_2048cnn_2xhighway_5.5B",
            "original",
        ),
        _model("portuguese", "contributed/pt/elmo_pt", "original"),
        PublishedModel(
            "pubmed",
            "contributed/pubmed/elmo_2x4096_512_2048cnn_2xhighway_options.json",
            "contributed/pubmed/elmo_2x4096_512_2048cnn_2xhighway_weights_PubMed_only.hdf5",
            "original",
        ),
    )
}


@dataclass(frozen=True)
class BundledSource:
    """The model that comes with the package."""

    @property
    def spec(self) -> str:
        """The full specification."""
        return f"elmo:{BUNDLED_NAME}"

    @property
    def options(self) -> Path:
        """Its options file."""
        return BUNDLED_FOLDER / "options.json"

    @property
    def weights(self) -> Path:
        """Its weights file."""
        return BUNDLED_FOLDER / "weights.hdf5"


@dataclass(frozen=True)
class PublishedSource:
    """A published model, perhaps with the hash the user insists on."""

    model: PublishedModel
    pinned_sha256: str | None

    @property
    def spec(self) -> str:
        """The full specification."""
        return f"elmo:{self.model.name}" + (f"#sha256={self.pinned_sha256}" if self.pinned_sha256 else "")


@dataclass(frozen=True)
class LocalSource:
    """Options and weights in files of the user, by absolute paths."""

    options: Path
    weights: Path

    @property
    def spec(self) -> str:
        """The full specification."""
        return f"elmo:{self.options},{self.weights}"


@dataclass(frozen=True)
class UntrainedSource:
    """Random weights from a seed, in the shape of a preset or of an options file."""

    shape: str | Path
    seed: int

    @property
    def spec(self) -> str:
        """The full specification."""
        joint = ":" if isinstance(self.shape, Path) else "-"
        return f"elmo:untrained{joint}{self.shape}?seed={self.seed}"

    def options(self) -> ElmoOptions:
        """Return the options, reading the file if one was named.

        Raises
        ------
        EncoderError
            If the file cannot be read or makes no sense.
        """
        return ElmoOptions.read(self.shape) if isinstance(self.shape, Path) else PRESETS[self.shape]


FiledSource = BundledSource | PublishedSource | LocalSource
"""A model in files."""

ElmoSource = FiledSource | UntrainedSource


def parse_source(rest: str) -> ElmoSource:
    """Return what the part of a specification after ``elmo:`` names.

    Parameters
    ----------
    rest : str
        ``demo``, the bundled model; a published name, perhaps with ``#sha256=HEX`` to pin its weights;
        ``OPTIONS.json,WEIGHTS.hdf5``; a path with a slash, of a folder that holds both
        (:mod:`featurestore.encoders.elmo.files.folders`); ``untrained-small?seed=0`` or another shape of
        :data:`featurestore.encoders.elmo.model.options.PRESETS`; or ``untrained:OPTIONS.json?seed=3``.

    Raises
    ------
    UnknownEncoderError
        If it names nothing.
    UsageError
        If the seed or the hash is malformed.
    EncoderError
        If a folder holds no model, or several.
    """
    if rest.startswith(("untrained-", "untrained:")):
        return _untrained(rest)
    if "," in rest:
        options, _, weights = rest.partition(",")
        if not options or not weights or "," in weights:
            raise UsageError(f"elmo:{rest}: expected two paths, elmo:OPTIONS.json,WEIGHTS.hdf5")
        return LocalSource(_absolute(options), _absolute(weights))
    if "/" in rest or rest in (".", "..") or rest.endswith(ARCHIVES):
        return LocalSource(*model_in(_absolute(rest)))
    name, hash_mark, pin = rest.partition("#")
    if name == BUNDLED_NAME:
        if hash_mark:
            raise UsageError(f"elmo:{rest}: the bundled model is named elmo:{BUNDLED_NAME}, without a hash")
        return BundledSource()
    if name not in PUBLISHED:
        raise UnknownEncoderError(
            f"unknown ELMo model {name!r}: expected {', '.join([BUNDLED_NAME, *PUBLISHED])}, a folder as "
            f"elmo:./FOLDER, two files as elmo:OPTIONS.json,WEIGHTS.hdf5, or "
            f"{', '.join(f'untrained-{shape}' for shape in PRESETS)}"
        )
    digest = pin.removeprefix("sha256=").lower()
    if hash_mark and (not pin.startswith("sha256=") or not _SHA256.fullmatch(digest)):
        raise UsageError(f"elmo:{rest}: after # expected sha256= and 64 hexadecimal digits, found {pin!r}")
    return PublishedSource(PUBLISHED[name], digest or None)


def _untrained(rest: str) -> UntrainedSource:
    shape, _, query = rest[len("untrained-") :].partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    seed = settings.pop("seed", "0")
    if settings or not (seed.isascii() and seed.isdigit() and len(seed) <= 18):
        raise UsageError(f"elmo:{rest}: expected nothing but ?seed=NUMBER after the shape, found ?{query}")
    if rest.startswith("untrained:"):
        if not shape:
            raise UsageError(f"elmo:{rest}: expected a path, elmo:untrained:OPTIONS.json?seed=0")
        return UntrainedSource(_absolute(shape), int(seed))
    if shape not in PRESETS:
        raise UnknownEncoderError(
            f"unknown ELMo shape {shape!r}: expected one of "
            f"{', '.join(f'untrained-{name}' for name in PRESETS)}, or untrained:OPTIONS.json"
        )
    return UntrainedSource(shape, int(seed))


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))  # which keeps ~nobody as it is


def choose_initial_state(policy: str, source: ElmoSource) -> Literal["zero", "warm"]:
    """Return the initial state that a policy means for a model.

    Parameters
    ----------
    policy : str
        One of :data:`INITIAL_STATES`.
    source : ElmoSource

    Raises
    ------
    UsageError
        If there is no such policy, or it needs files that the model does not have.
    """
    if policy == "carry":
        raise UsageError(
            "initial state 'carry' is refused: a vector would depend on everything encoded before it, so no "
            "store could promise the same vector for the same sentence. Use 'warm' or 'zero'"
        )
    if policy not in INITIAL_STATES:
        raise UsageError(f"unknown initial state {policy!r}: expected {', '.join(INITIAL_STATES)}")
    if policy == "auto":
        if isinstance(source, BundledSource):
            policy = BUNDLED_INITIAL_STATE
        else:
            policy = source.model.initial_state if isinstance(source, PublishedSource) else "zero"
    if policy == "warm":
        if isinstance(source, UntrainedSource):
            raise UsageError(
                f"initial state 'warm' is refused for {source.spec}: an untrained model has no files, beside "
                "which its state could lie. Use 'zero'"
            )
        return "warm"
    return "zero"
