"""The runner: distinct sentences through the encoder into committed shards, resumable at any moment.

Sentences are taken in corpus order until a shard is full, then encoded in batches of like length
(:mod:`featurestore.extraction.pipeline`). While a batch is computed, the one before it is copied off the
device and another thread stores the one before that. A full shard is committed beside the filling of the
next ones (:mod:`featurestore.extraction.writing`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import checked_encoder
from featurestore.encoders.loading import lies_no_longer
from featurestore.errors import EncoderError, UsageError, VectorError
from featurestore.extraction.destination import Destination
from featurestore.extraction.pipeline import EncodingPipeline
from featurestore.extraction.planning.new import new_examples
from featurestore.extraction.planning.plan import Plan
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.extraction.writing import ShardWriter, sealing_threads
from featurestore.keys import condition_of
from featurestore.store.canaries import make_canaries, require_canaries
from featurestore.store.format.codec import DEFAULT_CODEC
from featurestore.store.missing import depends_on
from featurestore.store.snapshot import Snapshot
from featurestore.store.store import Store
from featurestore.store.writer import WriteSession

logger = logging.getLogger(__name__)


class Extraction:
    """One run over planned corpora; :attr:`report` is true at any moment, also after an exception.

    Once :meth:`run` has returned, :attr:`committed` is the store with all that it added.

    Parameters
    ----------
    corpora : sequence of Corpus
    encoder : Encoder
    destination : Destination
        A store is made if there is none.
    plan : Plan
    codec, token_budget, shard_bytes, progress
        As in :func:`featurestore.extract`.
    n_sealing : int, optional
        Shards written at a time; by default as many as
        :func:`~featurestore.extraction.writing.sealing_threads` says.

    Raises
    ------
    RecipeMismatchError
        If the store holds vectors of another recipe.
    DriftError
        If the encoder's vectors differ from those that the store holds for the same recipe.
    UsageError
        From :meth:`run`, if a sentence has a condition but the encoder's vectors depend on tokens alone.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        encoder: Encoder,
        destination: Destination,
        plan: Plan,
        *,
        codec: str | None = None,
        token_budget: int | None = None,
        shard_bytes: int | None = None,
        progress: Progress | None = None,
        n_sealing: int | None = None,
    ) -> None:
        if token_budget is not None and (not isinstance(token_budget, int) or token_budget < 1):
            raise UsageError(
                f"a token budget of {token_budget!r} holds no sentence: give an int of at least 1"
            )
        self.corpora, self.encoder, self.plan = corpora, checked_encoder(encoder), plan
        self.progress = progress or Progress()
        self.report = Report(
            plan.n_sentences,
            plan.n_distinct,
            plan.n_cached,
            token_budget=token_budget or self.encoder.token_budget,
        )
        self._codec, self._n_sealing = codec, n_sealing
        self.store = self._opened_or_made(destination, codec or DEFAULT_CODEC, shard_bytes)
        self.committed: Snapshot = self.store

    def run(self) -> Report:
        """Encode and commit until nothing is left; see :func:`featurestore.extract` for errors."""
        if self.plan.n_new and not self.plan.n_conditioned:
            self.report.missing_context = list(depends_on(self.encoder.recipe))
        if self.report.notice:
            logger.warning("%s", self.report.notice)
        named = self.store.manifest.encoder
        moved = self.encoder.spec if self.encoder.spec and lies_no_longer(named) else None
        if moved is not None:
            logger.warning("the store named %s, which is gone; it names %s from now on", named, moved)
        session = self.store.write(codec=self._codec, encoder=moved)
        share = self.plan.n_cached / self.plan.n_distinct if self.plan.n_distinct else 0.0
        self.progress.started(self.plan.n_new_tokens, share)
        started = time.perf_counter()
        writer = ShardWriter(
            session,
            self.encoder.device,
            self.report,
            self.progress,
            self._n_sealing or sealing_threads(session.staged_bytes),
        )
        pipeline = EncodingPipeline(self.encoder, writer, self.report, self.progress)
        try:
            for window, keys in self._windows(session):
                draft = session.draft([example.tokens for example in window], sentence_keys=keys)
                pipeline.encode(draft, window)
            pipeline.finish()
        finally:
            # Also after an error or Ctrl-C: what was encoded is committed before the exception goes on.
            try:
                writer.finish()
            finally:
                self.report.seconds = time.perf_counter() - started
                self.progress.finished()
        session.close()
        self.committed = session.store
        self._require_all_stored()
        return self.report

    def _require_all_stored(self) -> None:
        """Raise for sentences that had to be left out."""
        for left_out, error, problem, remedy in (
            (
                self.report.too_large,
                EncoderError,
                "not fit into memory even alone",
                "Split what is too long, or encode it on a device with more memory",
            ),
            (
                self.report.refused,
                VectorError,
                "not give vectors that can be stored",
                "The reasons above say what to change",
            ),
        ):
            if left_out:
                listed = "".join(f"\n  {line}" for line in left_out[:10])
                does = "sentence does" if len(left_out) == 1 else "sentences do"
                raise error(f"{len(left_out)} {does} {problem}:{listed}\nAll others are committed. {remedy}")

    def _opened_or_made(self, destination: Destination, codec: str, shard_bytes: int | None) -> Store:
        """Return the store, after checking that this encoder may add to it."""
        encoder, encodes = self.encoder, self.plan.n_new > 0
        destination = destination.latest()  # loading the encoder may have taken minutes
        if destination.store is None:
            try:
                return Store.create(
                    destination.path,
                    recipe=encoder.recipe,
                    dim=encoder.dim,
                    n_layers=encoder.n_layers,
                    encoder=encoder.spec,
                    codec=codec,
                    shard_bytes=limits.DEFAULT_SHARD_BYTES if shard_bytes is None else shard_bytes,
                    canaries=make_canaries(encoder) if encodes else None,
                )
            except UsageError:
                destination = destination.latest()
                if destination.store is None:
                    raise  # else another extraction made it just now
        destination.require_recipe(encoder.recipe)
        return require_canaries(destination.store, encoder) if encodes else destination.store

    def _left_out(self, session: WriteSession) -> Callable[[NDArray[np.uint8]], NDArray[np.bool_]]:
        """Return what says of keys which are not to be encoded: stored, or another part's."""
        division = self.plan.division
        if division is None:
            return session.stored
        return lambda keys: session.stored(keys) | ~division.holds(keys)

    def _windows(self, session: WriteSession) -> Iterator[tuple[list[Example], list[bytes]]]:
        """Yield the sentences of one shard after the other, in corpus order, and their keys."""
        window: list[Example] = []
        keys: list[bytes] = []
        room = session.tokens_per_shard
        depends_on_more = bool(depends_on(self.encoder.recipe))
        for key, example in new_examples(self.corpora, self._left_out(session)):
            if not depends_on_more and condition_of(example.tokens):
                # Its vectors would be stored under a key that no reader asks for.
                raise UsageError(
                    f"{example.place} ({' '.join(example.tokens[:8])!r}) comes with a context, but the "
                    f"vectors of {self.encoder.spec!r} depend on tokens alone: read the corpus without it"
                )
            if window and len(example.tokens) > room:
                yield window, keys
                window, keys, room = [], [], session.tokens_per_shard
            window.append(example)
            keys.append(key)
            room -= len(example.tokens)
        if window:
            yield window, keys
