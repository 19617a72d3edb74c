"""Read-through: what a store lacks is encoded, served, and committed a buffer at a time."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import os
import time
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import CheckedEncoder
from featurestore.errors import FeaturestoreError, StoreWriteError, VectorError
from featurestore.integrations.live import encode_all, load_encoder_of, require_recipe
from featurestore.integrations.terminating import end_orderly
from featurestore.keys import Sentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.canaries import require_canaries
from featurestore.store.format.casting import cast
from featurestore.store.format.codec import get_codec
from featurestore.store.format.staging import arrived
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

BUFFER_BYTES = 64 << 20
"""Bytes of vectors that wait at most before they are committed."""

BUFFER_SECONDS = 60.0
"""How long the oldest of them waits at most while more are computed."""


class ReadThrough:
    """An encoder behind a store: encodes what is missing and hands it to the store.

    Any number of processes may do so at the same time. What was not committed when a process is killed is
    computed again by whoever needs it; one that ends commits the rest. Vectors are served as the store will
    give them, so that a training does not depend on what was stored before it: rounded to its float type.
    Those of an int8 store are served unrounded, for how int8 rounds depends on all sentences of a shard.

    Parameters
    ----------
    encoder : Encoder or str
        A specification is loaded when the first sentence is missing.
    recipe : Recipe
        Of the store.

    Attributes
    ----------
    spec : str
        What loads the encoder in another process.
    """

    def __init__(self, encoder: Encoder | str, recipe: Recipe) -> None:
        self._encoder: CheckedEncoder | None = None
        if isinstance(encoder, str):
            self.spec = encoder
        else:
            self._encoder = require_recipe(recipe, encoder)
            self.spec = self._encoder.spec
        self._recipe = recipe
        self._checked: Path | None = None
        self._codec = get_codec("float32")
        self._start()

    def _start(self) -> None:
        self._buffer = Buffer(self._recipe)
        # Also when this object is dropped, and when the interpreter ends.
        weakref.finalize(self, self._buffer.commit_at_end)

    def __getstate__(self) -> dict[str, Any]:
        # The other process has its own model, and nothing of ours to commit.
        state = {**self.__dict__, "_encoder": None, "_checked": None}
        del state["_buffer"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def n_waiting(self) -> int:
        """Sentences that are not committed yet."""
        return len(self.waiting)

    @property
    def waiting(self) -> Collection[bytes]:
        """Keys of the sentences that are not committed yet."""
        return self._buffer.of_this_process().keys()

    def vectors(
        self, path: Path, keys: Sequence[bytes], sentences: Sequence[Sentence], *, device: str
    ) -> dict[bytes, NDArray[np.floating]]:
        """Return the vectors of sentences that a store lacks, by key.

        Parameters
        ----------
        path : Path
            Of the store, which gets them.
        keys : sequence of bytes
        sentences : sequence of tuple of str
            As many; repeated ones are encoded once.
        device : str
            Where to load the encoder if it is not loaded yet.

        Returns
        -------
        dict of bytes to (n_tokens, dim) or (n_tokens, n_layers, dim) float32

        Raises
        ------
        DriftError
            If by the same recipe the encoder gives other vectors than when the store was made.
        """
        waiting = self._buffer.of_this_process()
        new = {k: s for k, s in zip(keys, sentences, strict=True) if k not in waiting}
        if new:
            if self._encoder is None:
                self._encoder = load_encoder_of(self._recipe, self.spec, device=device)
            self._require_canaries(path, self._encoder)
            arrays = encode_all(self._encoder, list(new.values()))
            for sentence, array in zip(new.values(), arrays, strict=True):
                if not np.isfinite(array).all():
                    raise VectorError(
                        f"{self.spec} gives vectors that are not finite for {' '.join(sentence[:8])!r}: "
                        "nothing of this batch is stored"
                    )
            for sentence, array in zip(new.values(), arrays, strict=True):
                # A copy: the arrays of a batch are views of one, which a single waiting sentence would keep.
                self._buffer.put(path, sentence, np.array(array, np.float32))
        # Taken before a full buffer is committed and emptied.
        found = {key: self._as_stored(waiting[key][1]) for key in keys}
        if self._buffer.is_due:
            self._buffer.commit_or_warn()
        return found

    def _require_canaries(self, path: Path, encoder: CheckedEncoder) -> None:
        """Raise DriftError unless the encoder gives a store's canaries again; asked once for each store."""
        if self._checked == path:
            return
        store = Store.open(path)
        try:
            require_canaries(store, encoder)
        except StoreWriteError as error:
            self._buffer.give_up(path, error)
        self._codec = get_codec(store.manifest.codec)
        self._checked = path

    def _as_stored(self, vectors: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return vectors as they will come back from the store; those it cannot hold, as they are."""
        if self._codec.staging_dtype == vectors.dtype:
            return vectors
        rounded = np.empty(vectors.shape, self._codec.staging_dtype)
        cast(rounded, vectors)
        return rounded.astype(np.float32) if arrived(rounded, vectors, self._codec) else vectors

    def flush(self) -> None:
        """Commit what is waiting.

        Raises
        ------
        StoreWriteError
            If the disk is full or read-only; what was waiting is served no more, and computed again.
        """
        self._buffer.commit()


class Buffer:
    """Vectors of one recipe on their way into a store."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._path: Path | None = None
        self._waiting: dict[bytes, tuple[Sentence, NDArray[np.floating]]] = {}
        self._n_bytes = 0
        self._oldest = 0.0
        self._process = os.getpid()
        self._ends_with = 0
        self._writable = True
        self._is_committing = False

    @property
    def is_due(self) -> bool:
        """Whether it is time to commit."""
        return self._n_bytes >= BUFFER_BYTES or (
            self._n_bytes > 0 and time.monotonic() - self._oldest > BUFFER_SECONDS
        )

    @property
    def holds_any(self) -> bool:
        """Whether vectors of this process wait to be committed."""
        return self._process == os.getpid() and (bool(self._waiting) or self._is_committing)

    def of_this_process(self) -> dict[bytes, tuple[Sentence, NDArray[np.floating]]]:
        """Return what is waiting, by key; a forked child starts anew, as the parent commits its own."""
        if self._process != os.getpid():
            self._waiting, self._n_bytes, self._process = {}, 0, os.getpid()
        return self._waiting

    def put(self, path: Path, sentence: Sentence, vectors: NDArray[np.floating]) -> None:
        """Add a sentence for the store at a path."""
        waiting = self.of_this_process()
        if not waiting:
            self._oldest = time.monotonic()
            end_orderly(self)
        if self._ends_with != os.getpid() and multiprocessing.parent_process() is not None:
            # Worker processes leave without running what atexit holds, and a fork forgets what was set up.
            multiprocessing.util.Finalize(None, self.commit_at_end, exitpriority=10)
            self._ends_with = os.getpid()
        self._path = path
        waiting[sentence_key(sentence)] = (sentence, vectors)
        self._n_bytes += vectors.nbytes

    def commit(self) -> None:
        """Commit and empty; see :meth:`ReadThrough.flush`."""
        waiting, n_bytes = self.of_this_process(), self._n_bytes
        if not waiting or self._path is None:
            return
        # Taken away first: what fails once must not be tried again for every batch.
        self._waiting, self._n_bytes, self._is_committing = {}, 0, True
        try:
            if self._writable:
                self._store(self._path, list(waiting.values()))
        except (KeyboardInterrupt, SystemExit):
            self._waiting, self._n_bytes = waiting, n_bytes  # for the end of the process
            raise
        finally:
            self._is_committing = False

    def _store(self, path: Path, entries: list[tuple[Sentence, NDArray[np.floating]]]) -> None:
        store = Store.open(path)
        store.recipe.require_equal(
            self._recipe,
            where=f"store {store.path}",
            remedy="It was replaced since it was opened: nothing was added to it.",
        )
        with store.write() as session:
            for sentence, vectors in entries:
                try:
                    session.add(sentence, vectors)
                except VectorError as error:
                    # Too large or too small for the codec: the vectors served were right, but cannot be kept.
                    logger.warning("computed, but not stored: %s", error)

    def commit_or_warn(self) -> None:
        """Commit; where the store cannot be written, say so once and go on without."""
        try:
            self.commit()
        except StoreWriteError as error:
            self.give_up(self._path, error)

    def give_up(self, path: Path | None, error: StoreWriteError) -> None:
        """Store nothing from now on, and say so."""
        self._writable = False
        logger.warning("computed vectors are served but no longer stored in %s: %s", path, error)

    def commit_at_end(self) -> None:
        """Commit when the process ends or the buffer is dropped: never raises."""
        try:
            self.commit()
        except FeaturestoreError as error:
            logger.warning("vectors computed last were not stored in %s: %s", self._path, error)
