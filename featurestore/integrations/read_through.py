"""Read-through: missing sentences are encoded, served, and committed a buffer at a time."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import multiprocessing.util
import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import CheckedEncoder
from featurestore.errors import (
    EncoderError,
    EncoderOutOfMemory,
    FeaturestoreError,
    RecipeMismatchError,
    StoreWriteError,
    VectorError,
)
from featurestore.families import family_of_recipe
from featurestore.integrations.live import encode_all, load_encoder_of, require_recipe
from featurestore.integrations.terminating import end_orderly
from featurestore.keys import Sentence
from featurestore.recipe import Recipe
from featurestore.store.canaries import require_canaries
from featurestore.store.format.casting import cast
from featurestore.store.format.codec import get_codec
from featurestore.store.format.staging import arrived
from featurestore.store.pending import announce
from featurestore.store.store import Store

# Loaded now: what waits may be committed when the process ends, which is no time for imports (CPython forgets
# that Ctrl-C ended it).
from featurestore.store.writer import WriteSession  # noqa: F401

logger = logging.getLogger(__name__)

BUFFER_BYTES = 64 << 20
"""Upper bound on bytes of vectors that wait to be committed."""

BUFFER_SECONDS = 60.0
"""Upper bound on how long the oldest of them waits, checked when more are computed."""


class ReadThrough:
    """An encoder behind a store: encodes what is missing and hands it to the store.

    Any number of processes may do so at the same time. What waits is shared by all of a process, and
    committed when the store is opened in it. A process that ends, also by Ctrl-C or SIGTERM, commits the
    rest; what one that is killed had not committed is computed again by whoever needs it. Vectors are served
    as the store will give them, so that a training does not depend on what was stored before it: rounded to
    its float type. Those of an int8 store are served unrounded, for how int8 rounds depends on all sentences
    of a shard.

    Parameters
    ----------
    encoder : Encoder or str
        A specification is loaded when the first sentence is missing.
    recipe : Recipe
        Of the store.
    named_by : Path, optional
        The store, if only that names the encoder, for messages.

    Attributes
    ----------
    spec : str
        What loads the encoder in another process.
    """

    def __init__(self, encoder: Encoder | str, recipe: Recipe, named_by: Path | None = None) -> None:
        self._encoder: CheckedEncoder | None = None
        self._named_by = named_by
        if isinstance(encoder, str):
            self.spec = encoder
        else:
            self._encoder = require_recipe(recipe, encoder)
            self.spec = self._encoder.spec
        self._recipe = recipe
        self._checked: Path | None = None
        self._codec = get_codec("float32")
        self._buffer: WaitingVectors | None = None
        self._writable = True

    def __getstate__(self) -> dict[str, Any]:
        # The other process has its own model, and nothing of ours to commit.
        return {**self.__dict__, "_encoder": None, "_checked": None, "_buffer": None}

    @property
    def n_waiting(self) -> int:
        """Sentences that are not committed yet."""
        return len(self.waiting)

    @property
    def waiting(self) -> Collection[bytes]:
        """Keys of the sentences that are not committed yet."""
        return () if self._buffer is None else self._buffer.of_this_process().keys()

    def _waiting_for(self, path: Path) -> WaitingVectors:
        if self._buffer is None or self._buffer.path != path.absolute():
            self._buffer = waiting_for(path, self._recipe)
            # Also when this object is dropped.
            weakref.finalize(self, self._buffer.commit_pending).atexit = False
        return self._buffer

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
            If the encoder's vectors differ from those that the store holds for the same recipe.
        """
        buffer = self._waiting_for(path)
        buffer.of_this_process()
        with buffer.lock:
            waiting = buffer.of_this_process()
            found = {key: waiting[key][1] for key in keys if key in waiting}
        new = {k: s for k, s in zip(keys, sentences, strict=True) if k not in found}
        if new:
            if self._encoder is None:
                self._encoder = self._load(device)
            self._require_canaries(path, self._encoder)
            arrays = encode_all(self._encoder, list(new.values()))
            for sentence, array in zip(new.values(), arrays, strict=True):
                if not np.isfinite(array).all():
                    raise VectorError(
                        f"{self.spec} gives vectors that are not finite for {' '.join(sentence[:8])!r}: "
                        "nothing of this batch is stored"
                    )
            for (key, sentence), array in zip(new.items(), arrays, strict=True):
                # A copy: the arrays of a batch are views of one, which a single waiting sentence would keep.
                found[key] = np.array(array, np.float32)
                if self._writable:
                    buffer.put(key, sentence, found[key])
        if buffer.is_due:
            try:
                buffer.commit()
            except StoreWriteError as error:
                self._give_up(path, error)
        return {key: self._as_stored(vectors) for key, vectors in found.items()}

    def _load(self, device: str) -> CheckedEncoder:
        try:
            return load_encoder_of(self._recipe, self.spec, device=device)
        except EncoderError as error:
            if self._named_by is None or isinstance(error, EncoderOutOfMemory):
                raise
            place = family_of_recipe(self._recipe).placeholder
            raise EncoderError(
                f"{error}\nThe store {self._named_by} names this encoder: if it lies elsewhere now, name its "
                f"new place, fallback={place!r}. It is taken if its files are the same"
            ) from error

    def _require_canaries(self, path: Path, encoder: CheckedEncoder) -> None:
        """Raise DriftError unless the encoder gives a store's canaries again; asked once for each store."""
        if self._checked == path:
            return
        store = Store.open(path)
        try:
            require_canaries(store, encoder)
        except StoreWriteError as error:
            self._give_up(path, error)
        self._codec = get_codec(store.manifest.codec)
        self._checked = path

    def _give_up(self, path: Path, error: StoreWriteError) -> None:
        """Store nothing from now on, and say so once."""
        self._writable = False
        logger.warning("computed vectors are served but no longer stored in %s: %s", path, error)

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
        if self._buffer is not None:
            self._buffer.commit()


class WaitingVectors:
    """Computed vectors of one recipe that wait to be committed to one store, for all of this process.

    Parameters
    ----------
    path : Path
        Of the store.
    recipe : Recipe

    Attributes
    ----------
    lock : RLock
        Held while sentences are added or taken.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self._recipe = path, recipe
        self.lock = threading.RLock()
        self._waiting: dict[bytes, tuple[Sentence, NDArray[np.floating]]] = {}
        self._n_bytes = 0
        self._oldest = 0.0
        self._process = os.getpid()
        self._ends_with = 0
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
        """Return what is waiting, by key; a forked child starts empty, as the parent commits its own."""
        if self._process != os.getpid():
            self._waiting, self._n_bytes, self._process = {}, 0, os.getpid()
            self.lock = threading.RLock()
        return self._waiting

    def put(self, key: bytes, sentence: Sentence, vectors: NDArray[np.floating]) -> None:
        """Add a sentence."""
        self.of_this_process()  # first: a forked child has a lock of its own
        with self.lock:
            waiting = self._waiting
            if not waiting:
                self._oldest = time.monotonic()
            if self._ends_with != os.getpid():
                _commit_at_the_end_of(self)
                self._ends_with = os.getpid()
            waiting[key] = (sentence, vectors)
            self._n_bytes += vectors.nbytes

    def commit(self) -> None:
        """Commit and empty; see :meth:`ReadThrough.flush`."""
        self.of_this_process()
        with self.lock:
            if not self._waiting or self._is_committing:
                return
            self._is_committing = True  # opening the store asks for what waits
            try:
                self._commit()
            finally:
                self._is_committing = False

    def _commit(self) -> None:
        store = Store.open(self.path)
        store.recipe.require_equal(
            self._recipe,
            where=f"store {store.path}",
            remedy="It was replaced since it was opened: nothing was added to it.",
        )
        # Taken away first: what cannot be written must not be tried again for every batch.
        taken, n_bytes = self._waiting, self._n_bytes
        self._waiting, self._n_bytes = {}, 0
        try:
            self._add(store, list(taken.values()))
        except (KeyboardInterrupt, SystemExit):
            self._waiting, self._n_bytes = taken, n_bytes  # for the end of the process
            raise

    def _add(self, store: Store, entries: list[tuple[Sentence, NDArray[np.floating]]]) -> None:
        with store.write() as session:
            for sentence, vectors in entries:
                try:
                    session.add(sentence, vectors)
                except VectorError as error:
                    # Too large or too small for the codec: the vectors served were right, but cannot be kept.
                    logger.warning("computed, but not stored: %s", error)

    def commit_pending(self) -> None:
        """Commit because the store is opened, the process ends, or nobody computes any more: never raises."""
        try:
            self.commit()
        except RecipeMismatchError as error:
            logger.info("%s", error)  # they are for the store that was there before
        except FeaturestoreError as error:
            logger.warning("vectors computed last were not stored in %s: %s", self.path, error)


_shared: weakref.WeakValueDictionary[tuple[Path, str], WaitingVectors] = weakref.WeakValueDictionary()


def waiting_for(path: Path, recipe: Recipe) -> WaitingVectors:
    """Return what waits for the store at a path, one object for all of this process."""
    path = path.absolute()
    waiting = _shared.get((path, recipe.fingerprint))
    if waiting is None:
        _shared[path, recipe.fingerprint] = waiting = WaitingVectors(path, recipe)
        announce(path, waiting)
    return waiting


def _commit_at_the_end_of(waiting: WaitingVectors) -> None:
    """Commit when this process ends: by itself, by Ctrl-C, by SIGTERM."""
    if multiprocessing.parent_process() is not None:
        # Worker processes leave without running what atexit holds, and a fork forgets what was set up.
        multiprocessing.util.Finalize(None, waiting.commit_pending, exitpriority=10)
        return
    atexit.register(waiting.commit_pending)
    end_orderly(waiting)
