"""From the specification of an ELMo to its files, options, weights and initial state: the one place."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from featurestore.encoders.elmo.files.cache import (
    CachedModel,
    cached_files,
    fetch_published,
    published_places,
    recorded_sha256,
)
from featurestore.encoders.elmo.files.catalog import (
    BundledSource,
    FiledSource,
    PublishedSource,
    UntrainedSource,
    choose_initial_state,
    parse_source,
)
from featurestore.encoders.elmo.files.folders import WARM_STATE
from featurestore.encoders.elmo.files.initial_state import WarmState, read_state
from featurestore.encoders.elmo.files.weights import (
    Weights,
    hash_weights,
    read_weights_and_hash,
    seeded_weights,
    tensors_sha256,
)
from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
from featurestore.errors import EncoderError

Published = Literal["download", "here", "anywhere"]
"""What is asked of the files of a published model: downloaded if need be, here, or nothing."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    Attributes
    ----------
    spec : str
        The specification they belong to, for messages.
    options, weights : Path
    cached : CachedModel or None
        For a published model: knows what its weights must be.
    """

    spec: str
    options: Path
    weights: Path
    cached: CachedModel | None = None

    @property
    def warm_state(self) -> Path:
        """Where the warm initial state belongs: beside the weights, ``NAME.warm.hdf5`` for ``NAME.hdf5``."""
        return self.weights.parent / f"{self.weights.stem}{WARM_STATE}"

    def require_warm_state(self) -> None:
        """Raise EncoderError if the warm initial state was not made yet."""
        if not os.path.isfile(self.warm_state):  # unlike Path.is_file no error, whatever a store names
            raise EncoderError(
                f"initial state 'warm' needs {self.warm_state}, which is not here: make it once with "
                f"`featurestore warm-up {shlex.quote(self.spec)} CORPUS...`, or use --initial-state zero"
            )

    def read_weights(self, options: ElmoOptions) -> tuple[Weights, str]:
        """Return the weights and the SHA-256 of their file, checked where it is known what it must be.

        Raises
        ------
        EncoderError, WeightsError
            If they cannot be read.
        DownloadError
            If they are not the weights that are pinned or recorded.
        """
        weights, digest = read_weights_and_hash(self.weights, options)
        if self.cached is not None:
            self.cached.confirm_weights(digest)
        return weights, digest

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the weights' file: pinned, recorded at the download, or computed now."""
        return (recorded_sha256(self.cached) if self.cached else None) or hash_weights(self.weights)


@dataclass(frozen=True)
class FiledModel:
    """A model in files, and the initial state that was chosen.

    Attributes
    ----------
    source : FiledSource
    initial_state : {"zero", "warm"}
    files : ModelFiles
    """

    source: FiledSource
    initial_state: Literal["zero", "warm"]
    files: ModelFiles

    @cached_property
    def options(self) -> ElmoOptions:
        """Its options, read once.

        Raises
        ------
        EncoderError
            If the file cannot be read or makes no sense.
        """
        return ElmoOptions.read(self.files.options)

    @property
    def shape(self) -> ElmoOptions:
        """Its options; of a published model those in the catalog, so that no file is needed."""
        if isinstance(self.source, PublishedSource):
            return PRESETS[self.source.model.shape]
        return self.options

    def read(self) -> tuple[Weights, dict[str, Any], WarmState | None]:
        """Return the weights, the recipe fields that name them, and the warm initial state if it is chosen.

        Raises
        ------
        EncoderError
            If they cannot be read, or are not the weights they should be.
        """
        weights, digest = self.files.read_weights(self.options)
        return weights, {"weights_sha256": digest}, self._warm_state(digest)

    def identity(self) -> tuple[dict[str, Any], WarmState | None]:
        """Return what :meth:`read` does, without the weights: at most their file is hashed.

        Raises
        ------
        EncoderError
            If a file cannot be read.
        """
        digest = self.files.weights_sha256()
        return {"weights_sha256": digest}, self._warm_state(digest)

    def _warm_state(self, weights_sha256: str) -> WarmState | None:
        if self.initial_state == "zero":
            return None
        return read_state(self.files.warm_state, self.options, weights_sha256=weights_sha256)


@dataclass(frozen=True)
class RandomModel:
    """A model of random weights, with the same interface as :class:`FiledModel`.

    Attributes
    ----------
    source : UntrainedSource
    """

    source: UntrainedSource

    @cached_property
    def options(self) -> ElmoOptions:
        """Its options: a preset, or read from the file that was named."""
        return self.source.options()

    @property
    def shape(self) -> ElmoOptions:
        """Its options."""
        return self.options

    def read(self) -> tuple[Weights, dict[str, Any], WarmState | None]:
        """Draw the weights; the recipe holds their hash and where they came from."""
        weights = seeded_weights(self.options, self.source.seed)
        # The path of an options file means nothing elsewhere; its content is hashed in options_sha256.
        shape = self.source.shape if isinstance(self.source.shape, str) else "options"
        untrained = {"shape": shape, "seed": self.source.seed}
        return weights, {"weights_sha256": tensors_sha256(weights), "untrained": untrained}, None

    def identity(self) -> tuple[dict[str, Any], WarmState | None]:
        """Return the recipe fields that name the weights, which are drawn for that."""
        _, identity, state = self.read()
        return identity, state


def resolve(rest: str, *, initial_state: str, published: Published) -> FiledModel | RandomModel:
    """Return the model that the part of a specification after ``elmo:`` names.

    Parameters
    ----------
    rest : str
        See :func:`featurestore.encoders.elmo.files.catalog.parse_source`.
    initial_state : str
        As for :func:`featurestore.encoders.loading.load_encoder`.
    published : {"download", "here", "anywhere"}
        What is asked of the files of a published model.

    Raises
    ------
    UnknownEncoderError, UsageError
        If the specification or the initial state makes no sense.
    EncoderError
        If files are not here: of a published or the bundled model, of a folder, or the warm state. Whether
        files that the user named exist is found out when they are read.
    """
    source = parse_source(rest)
    state = choose_initial_state(initial_state, source)
    if isinstance(source, UntrainedSource):
        return RandomModel(source)
    model = FiledModel(source, state, find_files(source, published=published))
    if state == "warm":
        model.files.require_warm_state()
    return model


def find_files(source: FiledSource, *, published: Published) -> ModelFiles:
    """Return the files of a model; for errors see :func:`resolve`."""
    if isinstance(source, PublishedSource):
        if published != "anywhere":
            _ = fetch_published(source) if published == "download" else cached_files(source)
        places = published_places(source)
        return ModelFiles(source.spec, places.options, places.weights, places)
    files = ModelFiles(source.spec, source.options, source.weights)
    if isinstance(source, BundledSource):
        for path in (files.options, files.weights):
            if not path.is_file():
                raise EncoderError(
                    f"the bundled model {source.spec} is not in this installation: {path} is missing. "
                    "Name another model (--encoder elmo:small), or install a featurestore that has it"
                )
    return files
