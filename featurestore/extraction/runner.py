"""The runner: distinct sentences through the encoder into committed shards, resumable at any moment.

Sentences are taken in corpus order until a shard is full, then encoded in batches of like length
(:mod:`featurestore.extraction.pipeline`). While a batch is computed, the one before it is copied off the
device and another thread stores the one before that. A full shard is committed beside the filling of the
next ones (:mod:`featurestore.extraction.writing`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from featurestore.corpora.corpus import Corpus
from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import checked_encoder
from featurestore.extraction.destination import Destination
from featurestore.extraction.engines.around import (
    opened_or_made,
    require_all_stored,
    require_budget,
    session_of,
    share_cached,
)
from featurestore.extraction.engines.publishing import Publisher
from featurestore.extraction.engines.units import units
from featurestore.extraction.pipeline import EncodingPipeline
from featurestore.extraction.planning.plan import Plan
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.extraction.writing import ShardWriter, sealing_threads
from featurestore.store.canaries import make_canaries, require_canaries
from featurestore.store.format.codec import DEFAULT_CODEC
from featurestore.store.snapshot import Snapshot

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
        require_budget(token_budget)
        self.corpora, self.encoder, self.plan = corpora, checked_encoder(encoder), plan
        self.progress = progress or Progress()
        self.report = Report(
            plan.n_sentences,
            plan.n_distinct,
            plan.n_cached,
            token_budget=token_budget or self.encoder.token_budget,
        )
        self._codec, self._n_sealing = codec, n_sealing
        encodes = plan.n_new > 0
        opened, is_new = opened_or_made(
            destination,
            self.encoder,
            codec=codec or DEFAULT_CODEC,
            shard_bytes=shard_bytes,
            canaries=lambda: make_canaries(self.encoder) if encodes else None,
        )
        # Those of a store that was made now are this encoder's, computed a moment ago.
        self.store = require_canaries(opened, self.encoder) if encodes and not is_new else opened
        self.committed: Snapshot = self.store

    def run(self) -> Report:
        """Encode and commit until nothing is left; see :func:`featurestore.extract` for errors."""
        session = session_of(self.store, self.encoder, self.plan, self.report, self._codec)
        self.progress.started(self.plan.n_new_tokens, share_cached(self.plan))
        started = time.perf_counter()
        n_sealing = self._n_sealing or sealing_threads(session.staged_bytes)
        publisher = Publisher(session, self.encoder.device, self.report)
        writer = ShardWriter(publisher, self.report, self.progress, n_sealing)
        pipeline = EncodingPipeline(self.encoder, writer, self.report, self.progress)
        try:
            for unit in units(self.corpora, session, self.plan.division):
                draft = session.draft(unit.sentences, sentence_keys=unit.keys)
                pipeline.encode(draft, unit.window)
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
        require_all_stored(self.report)
        return self.report
