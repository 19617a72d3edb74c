"""Where the files of a model lie."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

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
)
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
