"""Where the files of a model lie, and what can be known of a model without reading its weights."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from featurestore.encoders.base import EncoderOutline
from featurestore.encoders.elmo.files.cache import (
    CachedModel,
    cached_files,
    fetch_published,
    published_places,
)
from featurestore.encoders.elmo.files.catalog import (
    BundledSource,
    FiledSource,
    PublishedSource,
    UntrainedSource,
    choose_initial_state,
    parse_source,
)
from featurestore.encoders.elmo.files.layers import n_layers_kept, parse_layers
from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
from featurestore.errors import EncoderError


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
        return self.weights.parent / f"{self.weights.stem}.warm.hdf5"

    def require_warm_state(self) -> Path:
        """Return where the warm initial state lies.

        Raises
        ------
        EncoderError
            If it was not made yet.
        """
        if not os.path.isfile(self.warm_state):  # unlike Path.is_file no error, whatever a store names
            raise EncoderError(
                f"initial state 'warm' needs {self.warm_state}, which is not here: make it once with "
                f"`featurestore warm-up {shlex.quote(self.spec)} CORPUS...`, or use --initial-state zero"
            )
        return self.warm_state

    def confirm_weights(self, found: str) -> None:
        """Check the SHA-256 of the weights as they were read, where it is known what it must be.

        Raises
        ------
        DownloadError
            If they are not the weights that are pinned or recorded.
        """
        if self.cached is not None:
            self.cached.confirm_weights(found)


def locate(source: FiledSource) -> ModelFiles:
    """Return where the files of a model belong, whether they are there or not."""
    if isinstance(source, PublishedSource):
        places = published_places(source)
        return ModelFiles(source.spec, places.options, places.weights, places)
    return ModelFiles(source.spec, source.options, source.weights)


def find_files(source: FiledSource, *, fetch: bool) -> ModelFiles:
    """Return the files of a model, of which options and weights are there.

    Parameters
    ----------
    source : FiledSource
    fetch : bool
        Whether to download a published model that is not here yet.

    Raises
    ------
    EncoderError
        If they are not here. Files that the user named are not looked for: reading them will tell.
    """
    if isinstance(source, PublishedSource):
        _ = fetch_published(source) if fetch else cached_files(source)
    files = locate(source)
    if isinstance(source, BundledSource):
        for path in (files.options, files.weights):
            if not path.is_file():
                raise EncoderError(
                    f"the bundled model {source.spec} is not in this installation: {path} is missing. "
                    "Name another model (--encoder elmo:small), or install a featurestore that has it"
                )
    return files


def outline_elmo(rest: str, *, layers: str, initial_state: str) -> EncoderOutline:
    """Return what is known of a model without its weights: no torch, no download.

    Parameters
    ----------
    rest : str
        As for :func:`featurestore.encoders.elmo.files.catalog.parse_source`; local options files are read.
    layers : str
        As for :func:`featurestore.encoders.elmo.files.layers.parse_layers`.
    initial_state : str
        As for :func:`featurestore.encoders.base.load_encoder`.

    Raises
    ------
    UsageError
        If an argument makes no sense.
    EncoderError
        If an options file cannot be read, or the initial state was not made yet.
    """
    source = parse_source(rest)
    state = choose_initial_state(initial_state, source)
    if isinstance(source, UntrainedSource):
        options = source.options()
    else:
        if state == "warm":
            locate(source).require_warm_state()
        if isinstance(source, PublishedSource):
            options = PRESETS[source.model.shape]
        else:
            options = ElmoOptions.read(find_files(source, fetch=False).options)
    kept = parse_layers(layers, options.n_layers + 1)
    return EncoderOutline(options.dim, n_layers_kept(kept), options.megaflops_per_token)
