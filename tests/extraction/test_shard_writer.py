"""Several shards written at once: published in order, none after an error, all there is after Ctrl-C."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurestore import Store
from featurestore.corpora.given import as_corpora
from featurestore.disk.filesystem import FileSystem
from featurestore.disk.operation import Operation
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import StoreWriteError
from featurestore.extraction import writing
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.runner import Extraction
from featurestore.extraction.writing import sealing_threads
from featurestore.store.verification import verify
from tests.kit.doubles import DoubleEncoder, Recorder, vectors_of

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")

A_SHARD = 4
"""Sentences of ten tokens in a shard."""

SENTENCES = [(f"<{number:03}>", *"abcdefghi") for number in range(12 * A_SHARD)]
PATIENCE = 30.0
"""Seconds until a test that would hang fails instead."""

several = pytest.mark.parametrize("n_sealing", [1, 3])


class Disk(FileSystem):
    """Knows which shard a temporary file is of; calls ``act`` before writing it and before syncing it."""

    def __init__(self, act: Callable[[str, int], object] = lambda kind, shard: None) -> None:
        self.act = act
        self.linked: list[str] = []
        self.at_once = self.most_at_once = 0
        self._shards: dict[Path, int] = {}
        self._changing = threading.Lock()

    def operate(self, operation: Operation, call, *arguments):
        path = operation.path
        if path.suffix == ".h5" and path.parent.name == "tmp":
            with self._changing:
                self.at_once += (operation.kind == "create") - (operation.kind == "unlink")
                self.most_at_once = max(self.most_at_once, self.at_once)
            if operation.kind == "write" and path not in self._shards:
                # The head, which is written first, has the tokens.
                first = int(re.search(rb"<(\d{3})>", bytes(operation.data))[1])
                self._shards[path] = first // A_SHARD
                self.act("write", self._shards[path])
            elif operation.kind == "sync":
                self.act("sync", self._shards[path])
        if operation.kind == "link" and path.parent.name == "shards":
            self.linked.append(path.name)
        return super().operate(operation, call, *arguments)


def prepared_run(path, n_sealing, disk=None, *, encoder=None, progress=None, codec="float16") -> Extraction:
    encoder, job = encoder or DoubleEncoder(), Job(as_corpora(SENTENCES), Destination.of(path))
    shard_bytes = A_SHARD * 10 * 8 * 2 if codec == "float16" else A_SHARD * 10 * 12
    run = Extraction(
        job.corpora,
        encoder,
        job.destination,
        job.plan(LoadedEncoder.of(encoder)),
        codec=codec,
        shard_bytes=shard_bytes,
        progress=progress,
        n_sealing=n_sealing,
    )
    run.store = Store.open(path, filesystem=disk or Disk())
    return run


def hashes(path) -> list[str]:
    return [shard.sha256 for shard in Store.open(path).manifest.shards]


def stored(path, tolerance: float = 0.01) -> list[tuple[str, ...]]:
    """The sentences of a sound store, each there once, whose vectors are all right."""
    store = Store.open(path)
    assert list(verify(store)) == []
    found = [tokens for _, _, tokens in store.sentences()]
    assert len(set(found)) == len(found)
    for tokens, vectors in store:
        assert np.allclose(vectors, vectors_of(tokens), atol=tolerance)
    return found


def assert_nothing_is_left(path) -> None:
    """Assert that no temporary file, no shard without a commit and no lock is left."""
    assert list((path / "tmp").iterdir()) == []
    committed = {shard.name for shard in Store.open(path).manifest.shards}
    assert {shard.name for shard in (path / "shards").iterdir()} == committed
    with (path / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def undisturbed(tmp_path) -> list[str]:
    """Hashes of the shards that one run after the other writes."""
    prepared_run(tmp_path / "undisturbed", 1).run()
    return hashes(tmp_path / "undisturbed")


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_threads_do_not_change_the_bytes(tmp_path, codec):
    for n_sealing in (1, 2, 4):
        report = prepared_run(tmp_path / str(n_sealing), n_sealing, codec=codec).run()
        assert (report.n_encoded, report.n_shards) == (len(SENTENCES), 12)
        assert report.n_bytes == Store.open(tmp_path / str(n_sealing)).n_bytes
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2") == hashes(tmp_path / "4")
    assert stored(tmp_path / "4", tolerance=0.1) == SENTENCES


def test_shards_are_published_in_order_though_the_first_is_the_last_to_be_written(tmp_path, undisturbed):
    others = threading.Semaphore(0)

    def act(kind: str, shard: int) -> None:
        if kind == "write" and shard == 0:
            assert others.acquire(timeout=PATIENCE)
            assert others.acquire(timeout=PATIENCE)
        if kind == "sync" and shard in (1, 2):
            others.release()

    disk = Disk(act)
    prepared_run(tmp_path / "store", 3, disk).run()
    assert hashes(tmp_path / "store") == undisturbed
    assert [name[:32] for name in disk.linked] == [sha256[:32] for sha256 in undisturbed]
    assert stored(tmp_path / "store") == SENTENCES


@several
def test_no_more_shards_are_under_way_than_there_are_threads(tmp_path, n_sealing):
    disk = Disk()
    prepared_run(tmp_path / "store", n_sealing, disk).run()
    assert 1 <= disk.most_at_once <= n_sealing
    assert disk.at_once == 0


@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("bad", [0, 5])
@several
def test_after_an_error_in_a_shard_no_later_one_is_published(tmp_path, undisturbed, n_sealing, bad, kind):
    later = threading.Semaphore(0)

    def act(now: str, shard: int) -> None:
        if now == "sync" and shard == bad + 1:
            later.release()
        if now == kind and shard == bad:
            # The next one is on the disk already, where it can be.
            assert n_sealing == 1 or later.acquire(timeout=PATIENCE)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = prepared_run(tmp_path / "store", n_sealing, Disk(act))
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreWriteError, match="no space left while writing"):
        run.run()
    assert hashes(tmp_path / "store") == undisturbed[:bad]
    assert run.report.n_encoded == A_SHARD * bad == len(Store.open(tmp_path / "store"))
    assert run.report.n_shards == bad
    assert_nothing_is_left(tmp_path / "store")
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    prepared_run(tmp_path / "store", n_sealing).run()
    assert hashes(tmp_path / "store") == undisturbed


def test_an_error_while_filling_leaves_earlier_shards_to_be_published(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(writing, "_MOST_REFUSED", 0)
    refused = threading.Event()

    class Watching(Recorder):
        def notice(self, message: str) -> None:
            refused.set()

    def act(kind: str, shard: int) -> None:
        if kind == "write" and shard == 2:
            assert refused.wait(PATIENCE)

    encoder = DoubleEncoder(nan_in=SENTENCES[3 * A_SHARD][0])
    run = prepared_run(tmp_path / "store", 3, Disk(act), encoder=encoder, progress=Watching())
    with pytest.raises(Exception, match="NaN"):
        run.run()
    assert hashes(tmp_path / "store") == undisturbed[:3]
    assert_nothing_is_left(tmp_path / "store")


@pytest.mark.parametrize("shard", [0, 4, 11])  # of the last, all batches are encoded by then
@several
def test_ctrl_c_while_shards_are_written_commits_what_was_encoded(tmp_path, n_sealing, shard):
    def act(kind: str, number: int) -> None:
        if kind == "sync" and number == shard:
            os.kill(os.getpid(), signal.SIGINT)

    encoder = DoubleEncoder(token_budget=10)
    run = prepared_run(tmp_path / "store", n_sealing, Disk(act), encoder=encoder)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    found = stored(tmp_path / "store")
    assert found == SENTENCES[: len(found)]
    # A batch may have been asked for and not handed over when the signal came.
    assert len(encoder.batches) - 1 <= len(found) == run.report.n_encoded <= len(encoder.batches)
    assert_nothing_is_left(tmp_path / "store")
    prepared_run(tmp_path / "store", n_sealing).run()
    assert stored(tmp_path / "store") == SENTENCES


@several
def test_what_another_writer_commits_meanwhile_is_left_out_of_the_shards_under_way(tmp_path, n_sealing):
    theirs = [SENTENCES[number] for number in (5, 6, 9)]

    def act(kind: str, shard: int) -> None:
        if kind == "sync" and shard == 1 and len(Store.open(tmp_path / "store")) <= A_SHARD:
            with Store.open(tmp_path / "store").write() as session:
                for tokens in theirs:
                    session.add(tokens, vectors_of(tokens))

    run = prepared_run(tmp_path / "store", n_sealing, Disk(act))
    report = run.run()
    assert report.n_encoded == len(SENTENCES) - 3
    found = stored(tmp_path / "store")
    assert [tokens for tokens in found if tokens not in theirs] == [
        tokens for tokens in SENTENCES if tokens not in theirs
    ]
    assert set(found) == set(SENTENCES)
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


@several
def test_report_and_progress_tell_what_is_committed(tmp_path, n_sealing):
    class Comparing(Recorder):
        def committed(self, n_sentences: int, n_tokens: int) -> None:
            super().committed(n_sentences, n_tokens)
            told = sum(event[1] for event in self.events if event[0] == "committed")
            assert told == run.report.n_encoded == len(Store.open(tmp_path / "store"))

    progress = Comparing()
    run = prepared_run(tmp_path / "store", n_sealing, progress=progress)
    run.run()
    assert [event for event in progress.events if event[0] == "committed"] == [("committed", 4, 40)] * 12


@pytest.mark.parametrize(
    ("n_cores", "draft_bytes", "expected"),
    [(1, 128 << 20, 1), (2, 128 << 20, 1), (3, 128 << 20, 2), (64, 128 << 20, 8),
     (64, 512 << 20, 4), (64, 1 << 30, 2), (64, 1 << 40, 1), (64, 1, 8)],
)  # fmt: skip
def test_threads_are_chosen_by_cores_and_memory(monkeypatch, n_cores, draft_bytes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(n_cores)))
    assert sealing_threads(draft_bytes) == expected
