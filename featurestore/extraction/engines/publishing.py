"""Publishing: complete shards into snapshots of a store, one after another; the report is kept up to date."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.extraction.report import Report
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.shard import ShardDraft
from featurestore.store.writer import PreparedShard, ShardFile, WriteSession

_TOKENS_TO_JUDGE_BY = 2000
"""Fewer say little about speed: what was known before is kept."""


class Publisher:
    """Publishes in the order of its calls, never in two threads at once.

    Parameters
    ----------
    session : WriteSession
    device : str
        Of the encoder.
    report : Report
        Brought up to date at every commit.
    """

    def __init__(self, session: WriteSession, device: str, report: Report) -> None:
        self._session, self._device, self._report = session, device, report
        self._started, self._n_tokens = time.perf_counter(), 0

    def prepared(self, draft: ShardDraft) -> AbstractContextManager[PreparedShard]:
        """Write a full draft: see :meth:`~featurestore.store.writer.WriteSession.prepared`."""
        return self._session.prepared(draft)

    def publish(self, shard: PreparedShard) -> tuple[int, int]:
        """Publish a shard of this process; return the sentences and tokens that this added."""
        note, before = self._note(shard.entry.n_tokens), len(self._session.manifest.shards)
        added = self._session.publish(shard, **note)
        # Not the shard itself, where others stored some of its sentences meanwhile.
        return self._counted(self._session.manifest.shards[before:][-1:] if added else ())

    def publish_files(self, files: Sequence[ShardFile]) -> tuple[tuple[int, int], NDArray[np.bool_]]:
        """Publish shards that others wrote, in one snapshot.

        Returns
        -------
        (int, int)
            Sentences and tokens that this added.
        (n,) bool
            Which of all their sentences others have stored meanwhile: if any, nothing was published.
        """
        known = self._session.publish_files(files, **self._note(sum(file.entry.n_tokens for file in files)))
        return self._counted(() if known.any() else [file.entry for file in files]), known

    def stop_waiting(self) -> None:
        """Let commits fail that wait for a lock which another process holds."""
        self._session.stop_waiting()

    def _note(self, n_tokens: int) -> dict[str, Any]:
        """Return what a commit says of the run, with ``n_tokens`` more."""
        self._n_tokens += n_tokens
        speed = self._n_tokens / max(time.perf_counter() - self._started, 1e-9)
        last = self._session.manifest.commit
        if self._n_tokens < _TOKENS_TO_JUDGE_BY and last.device == self._device and last.tokens_per_second:
            speed = last.tokens_per_second
        return {
            "device": self._device,
            "tokens_per_second": round(speed, 3),
            "n_read": self._report.n_sentences,
            "n_distinct": self._report.n_distinct,
            "n_cached": self._report.n_cached,
        }

    def _counted(self, entries: Iterable[ShardEntry]) -> tuple[int, int]:
        n_sentences = n_tokens = 0
        for entry in entries:
            n_sentences, n_tokens = n_sentences + entry.n_sentences, n_tokens + entry.n_tokens
            self._report.n_shards += 1
            self._report.n_bytes += entry.n_bytes
        self._report.n_encoded += n_sentences
        self._report.n_encoded_tokens += n_tokens
        return n_sentences, n_tokens
