"""The runner: distinct sentences through the encoder into committed shards, resumable at any moment.

Sentences are taken in corpus order until a shard is full, then encoded in batches of like length. While a
batch is computed, the one before it is copied off the device and a writer thread stores the one before that.
A shard is committed as soon as it is full.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.example import Example
from featurestore.encoders.base import Encoder, PendingVectors
from featurestore.errors import EncoderError, EncoderOutOfMemory, UsageError, VectorError
from featurestore.extraction.batching import batches_by_length
from featurestore.extraction.mismatch import require_recipe
from featurestore.extraction.plan import Plan, new_examples
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.keys import condition_of
from featurestore.store.canaries import make_canaries, require_canaries
from featurestore.store.codec import DEFAULT_CODEC
from featurestore.store.dependence import depends_on
from featurestore.store.shard import ShardDraft
from featurestore.store.store import Store
from featurestore.store.writer import WriteSession

logger = logging.getLogger(__name__)

_IN_FLIGHT = 2
"""Batches given to the device before the oldest is waited for: one computes while the other is copied."""

_MOST_REFUSED = 20
"""With more sentences whose vectors cannot be stored, the encoder is broken and the run ends."""

_TOKENS_TO_JUDGE_BY = 2000
"""A smaller commit says little about speed: what was known before is kept."""


class Extraction:
    """One run over planned corpora; :attr:`report` is true at any moment, also after an exception.

    Parameters
    ----------
    corpora : sequence of Corpus
    encoder : Encoder
    path : Path
        The store, made if it does not exist.
    plan : Plan
    codec, token_budget, shard_bytes, progress
        As in :func:`featurestore.extract`.

    Raises
    ------
    RecipeMismatchError
        If the store holds vectors of another recipe.
    DriftError
        If by the same recipe the encoder gives other vectors than when the store was made.
    UsageError
        From :meth:`run`, if a sentence has a condition but the encoder's vectors depend on tokens alone.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        encoder: Encoder,
        path: Path,
        plan: Plan,
        *,
        codec: str | None = None,
        token_budget: int | None = None,
        shard_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        if token_budget is not None and token_budget < 1:
            raise UsageError(f"a token budget of {token_budget} holds no sentence: give at least 1")
        self.corpora, self.encoder, self.plan = corpora, encoder, plan
        self.progress = progress or Progress()
        self.report = Report(
            plan.n_sentences,
            plan.n_distinct,
            plan.n_cached,
            token_budget=token_budget or encoder.token_budget,
        )
        self._codec = codec
        self.store = self._opened_or_made(path, codec or DEFAULT_CODEC, shard_bytes)

    def run(self) -> Report:
        """Encode and commit until nothing is left; see :func:`featurestore.extract` for errors."""
        if self.plan.n_new and not self.plan.n_conditioned:
            self.report.missing_surroundings = list(depends_on(self.encoder.recipe))
        if self.report.notice:
            logger.warning("%s", self.report.notice)
        session = self.store.write(codec=self._codec)
        share = self.plan.n_cached / self.plan.n_distinct if self.plan.n_distinct else 0.0
        self.progress.started(self.plan.n_new_tokens, share)
        started = time.perf_counter()
        writer = _Writer(session, self.encoder.device, self.report, self.progress)
        try:
            for window in self._windows(session):
                draft = session.draft([example.tokens for example in window])
                writer.open(draft)
                self._encode(draft, window, writer)
                writer.commit()
        finally:
            # Also after an error or Ctrl-C: what was encoded is committed before the exception goes on.
            try:
                writer.finish()
            finally:
                self.report.seconds = time.perf_counter() - started
                self.progress.finished()
        session.close()
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

    def _opened_or_made(self, path: Path, codec: str, shard_bytes: int | None) -> Store:
        """Return the store, after making sure that this encoder may add to it."""
        encoder, encodes = self.encoder, self.plan.n_new > 0
        if not Store.exists(path):
            try:
                return Store.create(
                    path,
                    recipe=encoder.recipe,
                    dim=encoder.dim,
                    n_layers=encoder.n_layers,
                    encoder=encoder.spec,
                    codec=codec,
                    shard_bytes=limits.DEFAULT_SHARD_BYTES if shard_bytes is None else shard_bytes,
                    canaries=make_canaries(encoder) if encodes else None,
                )
            except UsageError:
                if not Store.exists(path):
                    raise  # else another extraction made it just now
        store = Store.open(path)
        require_recipe(store.recipe, encoder.recipe, path)
        return require_canaries(store, encoder) if encodes else store

    def _windows(self, session: WriteSession) -> Iterator[list[Example]]:
        """Yield the sentences of one shard after the other, in corpus order."""
        window: list[Example] = []
        room = session.tokens_per_shard
        depends_on_more = bool(depends_on(self.encoder.recipe))
        for example in new_examples(self.corpora, session.stored):
            if not depends_on_more and condition_of(example.tokens):
                # It would be stored where nobody looks for it.
                raise UsageError(
                    f"{example.place} ({' '.join(example.tokens[:8])!r}) comes with surroundings, but the "
                    f"vectors of {self.encoder.spec!r} depend on tokens alone: read the corpus without them"
                )
            if window and len(example.tokens) > room:
                yield window
                window, room = [], session.tokens_per_shard
            window.append(example)
            room -= len(example.tokens)
        if window:
            yield window

    def _encode(self, draft: ShardDraft, window: Sequence[Example], writer: _Writer) -> None:
        """Encode a shard's sentences, halving the token budget whenever memory runs out."""
        todo = list(range(len(window)))
        while todo:
            lengths = [len(window[position].tokens) for position in todo]
            failed: list[list[int]] = []
            in_flight: deque[tuple[list[int], PendingVectors]] = deque()
            for batch in batches_by_length(lengths, self.report.token_budget):
                positions = [todo[i] for i in batch]
                writer.check()
                pending = self._submit(draft, positions)
                if pending is None:
                    failed.append(positions)
                else:
                    in_flight.append((positions, pending))
                if len(in_flight) >= _IN_FLIGHT or self.encoder.device == "cpu":
                    self._collect(in_flight, failed, writer)
                if failed:
                    break
            while in_flight:
                self._collect(in_flight, failed, writer)
            if failed:
                self._back_off(failed, draft, window, writer)
            done = writer.handed_over
            todo = [position for position in todo if position not in done]

    def _submit(self, draft: ShardDraft, positions: list[int]) -> PendingVectors | None:
        try:
            return self.encoder.submit([draft.sentences[position] for position in positions])
        except EncoderOutOfMemory as error:
            logger.info("%s", error)
            return None

    def _collect(
        self, in_flight: deque[tuple[list[int], PendingVectors]], failed: list[list[int]], writer: _Writer
    ) -> None:
        if not in_flight:
            return
        positions, pending = in_flight.popleft()
        try:
            vectors = pending.result()
        except EncoderOutOfMemory as error:
            logger.info("%s", error)
            failed.append(positions)
            return
        if len(vectors) != len(positions):
            raise EncoderError(
                f"the encoder {self.encoder.spec!r} returned {len(vectors)} arrays for {len(positions)} "
                "sentences: expected one each, in their order. This is an error in the encoder"
            )
        writer.put(positions, vectors)

    def _back_off(
        self, failed: Sequence[list[int]], draft: ShardDraft, window: Sequence[Example], writer: _Writer
    ) -> None:
        """Halve the token budget, or find out which single sentences do not even fit alone."""
        several = [positions for positions in failed if len(positions) > 1]
        if several:
            n_tokens = max(sum(len(draft.sentences[p]) for p in positions) for positions in several)
            self.report.token_budget = max(1, min(self.report.token_budget, n_tokens) // 2)
            self.progress.notice(
                f"out of memory with {n_tokens:,} tokens in a batch; "
                f"going on with {self.report.token_budget:,}"
            )
            return
        for positions in failed:
            # Once more with nothing beside it: another batch in flight may have taken the memory.
            again: list[list[int]] = []
            pending = self._submit(draft, positions)
            if pending is not None:
                self._collect(deque([(positions, pending)]), again, writer)
            if pending is None or again:
                self._give_up(positions[0], draft, window, writer)

    def _give_up(self, position: int, draft: ShardDraft, window: Sequence[Example], writer: _Writer) -> None:
        tokens, place = draft.sentences[position], window[position].place
        self.progress.notice(
            f"out of memory with one sentence of {len(tokens):,} tokens ({place}); leaving it out"
        )
        self.report.too_large.append(f"{place}: {' '.join(tokens[:8])} ... ({len(tokens):,} tokens)")
        writer.leave_out(position)


class _Writer:
    """A thread that puts vectors into the draft and commits it, so that encoding need not wait.

    Errors it meets are raised in the encoding thread at its next call.
    """

    _Job = tuple[ShardDraft, list[int], "list[NDArray[np.floating]] | None"]

    def __init__(self, session: WriteSession, device: str, report: Report, progress: Progress) -> None:
        self._session, self._device, self._report, self._progress = session, device, report, progress
        # Bounded: vectors wait in memory here.
        self._jobs: queue.Queue[_Writer._Job | None] = queue.Queue(maxsize=4)
        self._error: BaseException | None = None
        self._draft: ShardDraft | None = None
        self._committed_at = time.perf_counter()
        self.handed_over: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="featurestore-writer", daemon=True)
        self._thread.start()

    def open(self, draft: ShardDraft) -> None:
        """Begin a shard."""
        self._draft, self.handed_over = draft, set()

    def put(self, positions: list[int], vectors: list[NDArray[np.floating]]) -> None:
        """Hand over the vectors of sentences of the open shard."""
        self.check()
        if self._draft is not None:
            self._jobs.put((self._draft, positions, vectors))
            self.handed_over.update(positions)

    def leave_out(self, position: int) -> None:
        """Give up on a sentence of the open shard."""
        self.handed_over.add(position)

    def commit(self) -> None:
        """Commit the open shard, as far as it is filled."""
        if self._draft is not None:
            self._jobs.put((self._draft, [], None))
            self._draft = None

    def check(self) -> None:
        """Raise what the thread met."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def finish(self) -> None:
        """Commit what is there, wait for the thread, and raise what it met."""
        try:
            self._end()
        except BaseException:
            # Ctrl-C or SIGTERM while the last shard is written: it is committed before the exception goes on.
            self._end()
            raise
        self.check()

    def _end(self) -> None:
        self.commit()
        self._jobs.put(None)
        # Not Thread.join alone: when a signal interrupts it, Python up to 3.12 takes the thread for ended.
        self._ended.wait()
        self._thread.join()

    def _work(self) -> None:
        failed = False
        while (job := self._jobs.get()) is not None:
            if failed:
                continue  # keep taking jobs, or the encoding thread would wait for room for ever
            try:
                self._do(*job)
            except BaseException as error:  # noqa: BLE001 - handed to the encoding thread, which raises it
                self._error, failed = error, True
        self._ended.set()

    def _do(
        self, draft: ShardDraft, positions: list[int], vectors: list[NDArray[np.floating]] | None
    ) -> None:
        if vectors is not None:
            for position, array in zip(positions, vectors, strict=True):
                self._put(draft, position, array)
            self._progress.encoded(sum(map(len, vectors)))
            return
        self._commit(draft)

    def _put(self, draft: ShardDraft, position: int, vectors: NDArray[np.floating]) -> None:
        try:
            draft.put(position, vectors)
        except VectorError as error:
            # One bad sentence must not cost the hours after it: it is left out and named at the end.
            self._report.refused.append(str(error))
            self._progress.notice(f"left out: {error}")
            if len(self._report.refused) > _MOST_REFUSED:
                raise

    def _commit(self, draft: ShardDraft) -> None:
        if not draft.filled.all():
            draft = draft.subset(np.flatnonzero(draft.filled).tolist())
        if not draft.sentences:
            return
        now = time.perf_counter()
        speed = draft.n_tokens / max(now - self._committed_at, 1e-9)
        self._committed_at = now
        last = self._session.manifest.commit
        if draft.n_tokens < _TOKENS_TO_JUDGE_BY and last.device == self._device and last.tokens_per_second:
            speed = last.tokens_per_second
        before = len(self._session.manifest.shards)
        added = self._session.commit(
            draft,
            device=self._device,
            tokens_per_second=round(speed, 3),
            n_read=self._report.n_sentences,
            n_distinct=self._report.n_distinct,
            n_cached=self._report.n_cached,
        )
        self._report.n_encoded += added
        shards = self._session.manifest.shards[before:][-1:] if added else ()
        self._report.n_encoded_tokens += sum(shard.n_tokens for shard in shards)
        self._report.n_shards += len(shards)
        self._report.n_bytes += sum(shard.n_bytes for shard in shards)
        self._progress.committed(added, sum(shard.n_tokens for shard in shards))
