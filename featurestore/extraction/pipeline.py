"""The pipeline: sentences of one shard after another to the device, which always has a batch to work on.

On a GPU two batches are under way, one computing while the other is copied, also where one shard ends and
the next begins: its sentences are read meanwhile. Whenever memory runs out, the token budget is halved.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.corpora.contract.example import Example
from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import checked_encoder
from featurestore.encoders.vectors import BatchVectors, PendingVectors, require_vectors
from featurestore.errors import EncoderOutOfMemory
from featurestore.extraction.batching import batches_by_length
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.extraction.writing import ShardWriter
from featurestore.store.format.shard import ShardDraft

logger = logging.getLogger(__name__)

_IN_FLIGHT = 2
"""Batches given to the device before the oldest is waited for."""


@dataclass
class _Shard:
    """A shard whose sentences are being encoded.

    Attributes
    ----------
    draft : ShardDraft
    window : sequence of Example
        Its sentences, with their places.
    waiting : set of int
        Positions of those that have yet to be given to the device.
    n_left : int
        Sentences that neither have their vectors nor were given up.
    """

    draft: ShardDraft
    window: Sequence[Example]
    waiting: set[int]
    n_left: int


class EncodingPipeline:
    """Encodes shards and hands their vectors to a writer, which commits them in the order of :meth:`encode`.

    Parameters
    ----------
    encoder : Encoder
    writer : ShardWriter
    report : Report
        Its token budget is what a batch may hold; brought down when memory runs out.
    progress : Progress
    """

    def __init__(self, encoder: Encoder, writer: ShardWriter, report: Report, progress: Progress) -> None:
        self._encoder = checked_encoder(encoder)
        self._writer, self._report, self._progress = writer, report, progress
        self._most_in_flight = 1 if encoder.device == "cpu" else _IN_FLIGHT
        self._shards: deque[_Shard] = deque()
        self._in_flight: deque[tuple[_Shard, list[int], PendingVectors]] = deque()
        self._failed: list[tuple[_Shard, list[int]]] = []
        self._n_ahead = 0

    def encode(self, draft: ShardDraft, window: Sequence[Example]) -> None:
        """Give all sentences of a shard to the device; the last ones may still be there on return."""
        positions = set(range(len(window)))
        self._writer.open(draft)
        self._shards.append(_Shard(draft, window, positions, len(positions)))
        self._submit_waiting()

    def finish(self) -> None:
        """Wait for what is still on the device."""
        while self._in_flight:
            self._collect()
            if self._failed:
                self._back_off()
                self._submit_waiting()

    def _submit_waiting(self) -> None:
        """Give the device what waits, of the earliest shard first."""
        while (shard := next((each for each in self._shards if each.waiting), None)) is not None:
            todo = sorted(shard.waiting)
            lengths = [len(shard.draft.sentences[position]) for position in todo]
            for batch in batches_by_length(lengths, self._report.token_budget):
                self._submit(shard, [todo[i] for i in batch])
                if self._failed:
                    self._back_off()
                    break

    def _submit(self, shard: _Shard, positions: list[int]) -> None:
        self._writer.check()
        shard.waiting.difference_update(positions)
        try:
            with self._encoder.watched(self._advance):
                pending = self._encoder.submit([shard.draft.sentences[position] for position in positions])
        except EncoderOutOfMemory as error:
            logger.info("%s", error)
            self._failed.append((shard, positions))
            return
        finally:
            self._advance(-self._n_ahead)  # the writer counts whole batches
        self._in_flight.append((shard, positions, pending))
        if len(self._in_flight) >= self._most_in_flight:
            self._collect()

    def _advance(self, n_tokens: int) -> None:
        """Show progress within the batch that is being encoded."""
        self._n_ahead += n_tokens
        if n_tokens:
            self._progress.encoded(n_tokens)

    def _collect(self) -> None:
        """Wait for the oldest batch and hand over its vectors."""
        shard, positions, pending = self._in_flight.popleft()
        try:
            vectors = pending.result()
        except EncoderOutOfMemory as error:
            logger.info("%s", error)
            self._failed.append((shard, positions))
            return
        sentences = [shard.draft.sentences[position] for position in positions]
        vectors = require_vectors(vectors, sentences, self._encoder)
        if not isinstance(vectors, BatchVectors):
            # The encoder may use its arrays for the next batch, before another thread has stored them.
            vectors = [array.copy() for array in vectors]
        self._writer.put(shard.draft, positions, vectors)
        self._ended(shard, len(positions))

    def _ended(self, shard: _Shard, n_sentences: int) -> None:
        """Take note that sentences need no more work; commit shards without any that do, earliest first."""
        shard.n_left -= n_sentences
        while self._shards and not self._shards[0].n_left:
            self._writer.commit(self._shards[0].draft)
            self._shards.popleft()

    def _back_off(self) -> None:
        """Halve the token budget, or find out which single sentences do not even fit alone."""
        while self._in_flight:
            self._collect()
        failed, self._failed = self._failed, []
        several = [shard.draft.tokens_in(positions) for shard, positions in failed if len(positions) > 1]
        if several:
            n_tokens = max(several)
            self._report.token_budget = max(1, min(self._report.token_budget, n_tokens) // 2)
            self._progress.notice(
                f"out of memory with {n_tokens:,} tokens in a batch; "
                f"going on with {self._report.token_budget:,}"
            )
            for shard, positions in failed:
                shard.waiting.update(positions)
            return
        for shard, positions in failed:
            # Once more with nothing beside it: another batch in flight may have taken the memory.
            self._submit(shard, positions)
            while self._in_flight:
                self._collect()
            if self._failed:
                self._failed.clear()
                self._give_up(shard, positions[0])

    def _give_up(self, shard: _Shard, position: int) -> None:
        tokens, place = shard.draft.sentences[position], shard.window[position].place
        self._progress.notice(
            f"out of memory with one sentence of {len(tokens):,} tokens ({place}); leaving it out"
        )
        self._report.too_large.append(f"{place}: {' '.join(tokens[:8])} ... ({len(tokens):,} tokens)")
        self._ended(shard, 1)
