"""Full, read-only and failing disks: a clear error, nothing committed lost, the same call finishes later."""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from featurestore import extract, load_encoder
from featurestore.disk import filesystem
from featurestore.disk.filesystem import FileSystem
from featurestore.disk.places import free_bytes, free_inodes
from featurestore.errors import StoreWriteError
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.faults.trials.diskfaults import DISK_FAULTS, fail_everywhere
from tests.faults.trials.kills import in_child
from tests.faults.trials.scenarios import SCENARIOS, Scenario, check, prepared_once
from tests.kit.faulty import FaultyFileSystem, WithoutLinks, ignore, raising
from tests.kit.stores import assert_holds, create, fill, sentences, vectors_of

SOME = [
    scenario for scenario in SCENARIOS if scenario.name in ("create", "commit", "conflict", "index", "runs")
]


@pytest.mark.parametrize("name", DISK_FAULTS)
def test_disk_that_fails_at_any_operation(tmp_path, name):
    n_points = 0
    for scenario in SOME:
        folder = tmp_path / scenario.name
        folder.mkdir()
        points = list(fail_everywhere(scenario, DISK_FAULTS[name], folder))
        assert [(point.place, point.problems) for point in points if point.problems] == []
        n_points += len(points)
    assert n_points > 8


def test_writes_that_stop_half_way_are_completed(tmp_path):
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == "commit")
    scenario.prepare(tmp_path)
    halving = FaultyFileSystem(0, ignore, "half", kinds=("write",), for_good=True)
    acknowledged: list = []
    scenario.act(tmp_path, halving, acknowledged.extend)
    assert len(halving.operations) > 20
    assert check(tmp_path, scenario, acknowledged) == []


# -- real small disks, in a process whose death would be noticed


def add_large(path: Path, n: int, acknowledge) -> None:
    with Store.open(path).write() as session:
        for tokens in sentences(n):
            if session.add(tokens, vectors_of(tokens, dim=4096)):
                session.flush()
            acknowledge([tokens])


def large(n: int) -> Scenario:
    """A store that outgrows 2 MiB."""

    def act(folder: Path, filesystem: FileSystem, acknowledge) -> None:
        add_large(folder / "store.fs", n, lambda done: acknowledge(done))

    return Scenario("large", lambda folder: None, act, [], sentences(n))


def report_error(act, *arguments) -> tuple[int, str]:
    """Call in a forked process; return how it ended and the message of its StoreWriteError."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        try:
            act(*arguments)
        except StoreWriteError as error:
            os.write(sending, str(error).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with open(receiving) as pipe:
        message = pipe.read()
    return os.waitpid(child, 0)[1], message


def test_real_disk_of_two_mebibytes_that_fills_up(tmpfs):
    disk = tmpfs("2m")
    create(disk / "store.fs", dim=4096, shard_bytes=1 << 20)
    status, message = report_error(add_large, disk / "store.fs", 100, lambda _: None)
    assert status == 0
    assert re.search(
        rf"no space left while writing {disk}/\S+ \([\d,]+ bytes\); [\d,]+ bytes are free", message
    )
    store = Store.open(disk / "store.fs")
    n_stored = len(store)
    assert 5 < n_stored < 100
    assert [tokens for _, _, tokens in store.sentences()] == sentences(n_stored)
    assert_holds(store, sentences(n_stored))
    assert list(verify(store)) == []
    tmpfs.resize(disk, "16m")
    assert report_error(add_large, disk / "store.fs", 100, lambda _: None) == (0, "")
    again = store.refreshed()
    assert [tokens for _, _, tokens in again.sentences()] == sentences(100)
    assert_holds(again, sentences(100))
    assert list((disk / "store.fs" / "tmp").iterdir()) == []


def test_real_disk_without_inodes_left(tmpfs):
    disk = tmpfs("2m,nr_inodes=16")
    store = create(disk / "store.fs", shard_bytes=1)
    status, message = report_error(fill, store, sentences(30))
    assert status == 0
    assert re.search(rf"no space left while writing {disk}/\S+", message)
    assert re.search(r"no inodes left \(df -i\), though [\d,]+ bytes are free: delete files", message)
    n_stored = len(store.refreshed())
    assert 0 < n_stored < 30
    tmpfs.resize(disk, "2m,nr_inodes=999")
    assert_holds(fill(store.refreshed(), sentences(30)), sentences(30))


def test_real_disk_that_becomes_read_only(tmpfs):
    disk = tmpfs("2m")
    store = fill(create(disk / "store.fs"), sentences(4))
    tmpfs.resize(disk, "2m,ro")
    with pytest.raises(StoreWriteError, match=rf"{disk}/.*[Rr]ead-only"):
        fill(store, sentences(12))
    assert_holds(Store.open(disk / "store.fs"), sentences(4))
    tmpfs.resize(disk, "2m,rw")
    assert_holds(fill(store, sentences(12)), sentences(12))


def test_real_limit_on_the_size_of_a_file(tmp_path):
    store = create(tmp_path / "store.fs", dim=4096, shard_bytes=1 << 20)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        add_large(store.path, 9, lambda _: None)

    status, message = report_error(limited)
    assert status == 0
    assert re.search(rf"cannot write {tmp_path}/\S+ \([\d,]+ bytes\): .*allows no file that large", message)
    # A shard of one sentence cannot be made smaller.
    assert message.endswith("(`ulimit -f`) allows no file that large, but 8,192 bytes: raise the limit")
    add_large(store.path, 9, lambda _: None)
    assert_holds(store.refreshed(), sentences(9))


def test_a_shard_of_many_sentences_beyond_the_limit_may_be_made_smaller(tmp_path):
    store = create(tmp_path / "store.fs", shard_bytes=1 << 20)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        fill(store, sentences(300))

    status, message = report_error(limited)
    assert status == 0
    assert message.endswith("but 8,192 bytes: raise the limit, or make the store with smaller shards")


def test_real_disk_that_reports_no_size_is_not_full(ramfs, tmp_path):
    """A disk that has no blocks to count, as ramfs and some FUSE file systems."""
    assert (free_bytes(ramfs), free_inodes(ramfs)) == (None, None)
    assert free_bytes(tmp_path) > 0
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a small corpus\n")
    extract([corpus], load_encoder("elmo:untrained-small"), ramfs / "store", progress=False)
    assert ("a", "small", "corpus") in Store.open(ramfs / "store")
    assert_holds(fill(create(ramfs / "store.fs"), sentences(9)), sentences(9))


@pytest.fixture
def ramfs(tmp_path):
    disk = tmp_path / "ramfs"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "ramfs", "ramfs", str(disk)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"needs to mount a disk: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


# -- disks that lack something


@pytest.fixture
def untold(monkeypatch):
    """Nobody was told yet what a disk lacks."""
    monkeypatch.setattr(filesystem, "_warned_of", set())


WITHOUT_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK]


@pytest.mark.parametrize("code", WITHOUT_LINKS, ids=errno.errorcode.get)
@pytest.mark.usefixtures("untold")
def test_disk_without_links_is_written_by_renaming_and_says_so(tmp_path, caplog, code):
    disk = WithoutLinks(code)
    with caplog.at_level(logging.WARNING):
        store = create(tmp_path / "store.fs", filesystem=disk)
        for n in (4, 12, 12):
            store = fill(store, sentences(n))
    assert disk.n_renames > 4
    assert_holds(store, sentences(12))
    assert list(verify(store)) == []
    assert list((store.path / "tmp").iterdir()) == []
    (warning,) = (record.getMessage() for record in caplog.records if "one name only" in record.getMessage())
    assert str(tmp_path) in warning
    assert "only one computer" in warning


def test_renaming_writer_never_takes_a_name_that_is_taken(tmp_path):
    disk = WithoutLinks(errno.EPERM)
    store = create(tmp_path / "store.fs", filesystem=disk)
    one, other = store.write(), store.write()
    for session, wanted in ((one, sentences(6)), (other, sentences(9, start=3))):
        for tokens in wanted:
            session.add(tokens, vectors_of(tokens))
    one.flush()
    other.flush()
    assert [tokens for _, _, tokens in store.refreshed().sentences()] == sentences(12)
    assert store.refreshed().snapshot == 3


def test_kills_at_any_operation_of_a_disk_without_links(tmp_path):
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == "append")

    class Dying(WithoutLinks):
        def __init__(self, at: int) -> None:
            super().__init__(errno.EPERM)
            self.left = at

        def operate(self, operation, call, *arguments):
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().operate(operation, call, *arguments)

    n_killed, prepare = 0, prepared_once(scenario, tmp_path / "prepared")
    for at in range(200):
        folder = tmp_path / str(at)
        prepare(folder)
        status, acknowledged = in_child(scenario, folder, Dying(at))
        assert check(folder, scenario, acknowledged) == []
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        n_killed += 1
    assert n_killed > 30


def test_a_link_that_was_made_but_reported_as_taken_is_ours(tmp_path):
    # What a network file system does when the answer to the first request was lost.
    class Forgetful(FileSystem):
        def operate(self, operation, call, *arguments):
            result = super().operate(operation, call, *arguments)
            if operation.kind == "link":
                raising(errno.EEXIST)(operation)
            return result

    store = create(tmp_path / "store.fs", filesystem=Forgetful())
    with store.write() as session:
        draft = session.draft(sentences(3))
        for position, tokens in enumerate(sentences(3)):
            draft.put(position, vectors_of(tokens))
        assert session.commit(draft) == 3
    assert store.refreshed().snapshot == 2


def test_disk_that_cannot_sync_directories_is_used_as_it_is(tmp_path):
    refusing = FaultyFileSystem(0, raising(errno.EINVAL), kinds=("sync directory",), for_good=True)
    assert_holds(fill(create(tmp_path / "store.fs", filesystem=refusing), sentences(9)), sentences(9))


def test_disk_without_locks_is_refused(tmp_path, monkeypatch):
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filesystem.fcntl, "flock", no_locks)
    with pytest.raises(StoreWriteError, match=rf"cannot lock {tmp_path}.*flock\(2\).*use another disk"):
        create(tmp_path / "store.fs")
    assert not Store.exists(tmp_path / "store.fs")
