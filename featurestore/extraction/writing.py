"""Writing beside encoding: vectors into drafts in one thread, full drafts into shards in several.

The *filling* thread casts vectors into the open draft. A full one goes to a *sealing* thread, which hashes
it, writes and syncs it, waits for the shard before it and then publishes. So several shards are worked on at
once, but published in the order in which they were opened, and the bytes of a store do not depend on threads.
In memory are, at most, a full draft for each sealing thread, the one being filled, and some batches.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.vectors import BatchVectors
from featurestore.errors import VectorError
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.store.format.shard import ShardDraft
from featurestore.store.writer import PreparedShard

_MOST_SEALING_THREADS = 8

_MOST_SEALING_BYTES = 2 << 30
"""Memory of the drafts being sealed: with larger shards fewer are sealed at once, one at least."""

_MOST_BATCHES = 4
"""Batches whose vectors wait to be put into a draft."""

_MOST_REFUSED = 20
"""With more sentences whose vectors cannot be stored, the encoder is broken and the run ends."""


class Sealing(Protocol):
    """What becomes of full drafts."""

    def prepared(self, draft: ShardDraft) -> AbstractContextManager[PreparedShard]:
        """Write one, in any thread; what was not published when the context ends is gone."""

    def publish(self, shard: PreparedShard) -> tuple[int, int]:
        """Publish one inside its context, after those before it; return the sentences and tokens added."""

    def stop_waiting(self) -> None:
        """Wait no longer for locks that other processes hold; may be called in any thread."""


def sealing_threads(draft_bytes: int) -> int:
    """Return how many shards to seal at once here: a thread for each core but one, up to eight.

    Parameters
    ----------
    draft_bytes : int
        Memory that one takes meanwhile; all of them together take 2 GiB at most.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(_MOST_SEALING_THREADS, n_cores - 1, _MOST_SEALING_BYTES // max(1, draft_bytes)))


class ShardWriter:
    """Puts vectors into drafts and commits them, so that encoding need not wait.

    An error in one of its threads is raised in the encoding thread at its next call. After an error in a
    shard no later one is published, so that a store holds the beginning of an undisturbed run; earlier ones
    are.

    Parameters
    ----------
    sealing : Sealing
        Writes full drafts and publishes them.
    report : Report
        Told of sentences that are left out.
    progress : Progress
        Told from several threads, by one at a time.
    n_sealing : int
        Shards sealed at once.
    """

    _Job = tuple[ShardDraft, list[int], "Sequence[NDArray[np.floating]] | None"]

    def __init__(self, sealing: Sealing, report: Report, progress: Progress, n_sealing: int) -> None:
        self._sealing, self._report, self._progress = sealing, report, progress
        self._n_sealing = n_sealing
        self._jobs: queue.Queue[ShardWriter._Job | None] = queue.Queue(maxsize=_MOST_BATCHES)
        self._under_way: deque[Future[bool]] = deque()
        self._telling = threading.Lock()
        self._error: BaseException | None = None
        self._failed = threading.Event()
        self._open: deque[ShardDraft] = deque()
        self._sealed_last: ShardDraft | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="featurestore-filling", daemon=True)
        self._thread.start()

    def open(self, draft: ShardDraft) -> None:
        """Begin a shard."""
        self._open.append(draft)

    def put(self, draft: ShardDraft, positions: list[int], vectors: Sequence[NDArray[np.floating]]) -> None:
        """Hand over the vectors of sentences of an open shard."""
        self.check()
        self._jobs.put((draft, positions, vectors))

    def commit(self, draft: ShardDraft) -> None:
        """Commit the shard that was opened first, as far as it is filled; returns before that is done."""
        self._jobs.put((draft, [], None))
        self._open.remove(draft)

    def check(self) -> None:
        """Raise the first error of a thread, if there is one."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def finish(self) -> None:
        """Commit what was encoded, wait for the threads, and raise the first error they met."""
        try:
            self._end()
        except BaseException:
            # Ctrl-C or SIGTERM while the last shards are written: they are committed before the exception
            # goes on, unless another process keeps the store locked.
            self._sealing.stop_waiting()
            self._end()
            raise
        self.check()

    def _end(self) -> None:
        while self._open:
            self.commit(self._open[0])
        self._jobs.put(None)
        # Not Thread.join alone: when a signal interrupts it, Python up to 3.12 takes the thread for ended.
        self._ended.wait()
        self._thread.join()

    def _fail(self, error: BaseException) -> None:
        """Keep the first error for the encoding thread."""
        with self._telling:
            if not self._failed.is_set():
                self._error = error
                self._failed.set()

    # -- the filling thread

    def _fill(self) -> None:
        with ThreadPoolExecutor(self._n_sealing, "featurestore-sealing") as sealing:
            while (job := self._jobs.get()) is not None:
                if self._failed.is_set():
                    continue  # keep taking jobs, or the encoding thread would wait for room for ever
                try:
                    self._do(sealing, *job)
                except BaseException as error:  # noqa: BLE001 - the encoding thread raises it
                    self._fail(error)
        self._ended.set()

    def _do(
        self,
        sealing: ThreadPoolExecutor,
        draft: ShardDraft,
        positions: list[int],
        vectors: Sequence[NDArray[np.floating]] | None,
    ) -> None:
        if vectors is None:
            self._submit(sealing, draft)
            return
        if not (isinstance(vectors, BatchVectors) and draft.put_all(positions, vectors.values)):
            for position, array in zip(positions, vectors, strict=True):
                self._put(draft, position, array)
        with self._telling:
            self._progress.encoded(draft.tokens_in(positions))

    def _put(self, draft: ShardDraft, position: int, vectors: NDArray[np.floating]) -> None:
        try:
            draft.put(position, vectors)
        except VectorError as error:
            # One bad sentence must not cost the hours after it: it is left out and named at the end.
            self._report.refused.append(str(error))
            with self._telling:
                self._progress.notice(f"left out: {error}")
            if len(self._report.refused) > _MOST_REFUSED:
                raise

    def _submit(self, sealing: ThreadPoolExecutor, draft: ShardDraft) -> None:
        """Let a thread seal a draft, as soon as one is free: no full draft waits beside this one."""
        if draft is self._sealed_last:
            return  # Ctrl-C came between giving it to this thread and taking note of that
        self._sealed_last = draft
        if not draft.filled.all():
            whole, draft = draft, draft.subset(np.flatnonzero(draft.filled).tolist())
            whole.release()
        if not draft.sentences:
            return
        while len(self._under_way) >= self._n_sealing:
            if not self._under_way.popleft().result():
                return
        before = self._under_way[-1] if self._under_way else None
        self._under_way.append(sealing.submit(self._seal, draft, before))

    # -- the sealing threads

    def _seal(self, draft: ShardDraft, before: Future[bool] | None) -> bool:
        """Write a draft and publish it after the one before; return False if one of them could not be."""
        try:
            with self._sealing.prepared(draft) as shard:
                # The one before has a thread already, for drafts are given to threads in their order.
                if before is not None and not before.result():
                    return False
                added, n_tokens = self._sealing.publish(shard)
                with self._telling:
                    self._progress.committed(added, n_tokens)
        except BaseException as error:  # noqa: BLE001 - the encoding thread raises it
            self._fail(error)
            return False
        finally:
            draft.release()
        return True
