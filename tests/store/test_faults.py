"""A failing disk, a killed process, a sweeping neighbour; tests/faults has them at every operation."""

from __future__ import annotations

import errno
import fcntl
import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.disk.atomic import write_atomic
from featurestore.disk.filesystem import FileSystem
from featurestore.disk.temporary import ORPHAN_SECONDS, temporary_name
from featurestore.errors import StoreWriteError
from featurestore.store import locks
from featurestore.store.maintenance.gc import collect, orphaned_files
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import assert_holds, create, fill, sentences, vectors_of

N_BEFORE, N_AFTER = 4, 12
"""Sentences committed before something goes wrong, and those the interrupted session should have added."""


class SteppingFileSystem(FileSystem):
    """Does something before a chosen operation, counted from 0, and optionally before all that follow."""

    def __init__(self, step: int, act: Callable[[Path | None], None], *, for_good: bool = False) -> None:
        self.step, self.act, self.for_good, self.n_steps = step, act, for_good, 0

    def operate(self, operation, call, *arguments):
        number, self.n_steps = self.n_steps, self.n_steps + 1
        if number == self.step or (self.for_good and number > self.step):
            self.act(operation.path)
        return super().operate(operation, call, *arguments)


def raising(code: int) -> Callable[[Path | None], None]:
    def act(path: Path | None) -> None:
        raise OSError(code, os.strerror(code), str(path))

    return act


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / "tmp").iterdir())


def n_steps_of_a_session(folder: Path) -> int:
    """Return how many operations the session of the tests below takes when nothing goes wrong."""
    counting = SteppingFileSystem(10**9, raising(0))
    store = fill(create(folder / "count.fs"), sentences(N_BEFORE))
    fill(Store.open(store.path, filesystem=counting), sentences(N_AFTER))
    return counting.n_steps


# -- a failing disk


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            errno.ENOSPC,
            r"no space left while writing .*bytes\); .* bytes are free.* run the same command again",
        ),
        (errno.EROFS, r"cannot write .*Is the directory read-only\?"),
        (errno.EIO, r"cannot write .*Input/output error"),
    ],
    ids=["full", "read-only", "failing"],
)
def test_message_of_a_failing_disk_says_what_to_do(tmp_path, code, message):
    store = create(tmp_path / "store.fs")

    class Failing(FileSystem):
        def operate(self, operation, call, *arguments):
            if operation.kind == "write":
                raise OSError(code, os.strerror(code))
            return super().operate(operation, call, *arguments)

    with pytest.raises(StoreWriteError, match=message):
        fill(Store.open(store.path, filesystem=Failing()), sentences(3))
    assert leftovers(store) == []


def test_store_is_not_made_on_a_disk_that_cannot_hold_it(tmp_path):
    with pytest.raises(StoreWriteError):
        create(tmp_path / "store.fs", filesystem=SteppingFileSystem(6, raising(errno.ENOSPC), for_good=True))
    assert not Store.exists(tmp_path / "store.fs")
    assert len(fill(create(tmp_path / "store.fs"), sentences(3))) == 3


def test_shard_that_another_writer_linked_is_synced_before_it_is_committed(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x")
    target.write_bytes(b"x")
    synced: list[Path | None] = []
    watching = SteppingFileSystem(0, synced.append, for_good=True)
    assert not watching.link_new(source, target)
    assert tmp_path in synced


def test_new_directories_are_synced_into_their_parents(tmp_path):
    synced: list[Path] = []

    class Watching(FileSystem):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)
            super().sync_directory(path)

    create(tmp_path / "a" / "store.fs", filesystem=Watching())
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "store.fs"} <= set(synced)


def test_directory_left_by_a_killed_maker_is_synced_before_anything_is_made_in_it(tmp_path):
    (tmp_path / "a").mkdir()
    seen: list[tuple[str, Path]] = []

    class Watching(FileSystem):
        def operate(self, operation, call, *arguments):
            seen.append((operation.kind, operation.path))
            return super().operate(operation, call, *arguments)

    b, c = tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"
    Watching().make_directory(c)
    assert seen == [
        ("sync directory", tmp_path),
        ("mkdir", b),
        ("sync directory", tmp_path / "a"),
        ("mkdir", c),
        ("sync directory", b),
    ]


def test_atomic_file_replaces_or_leaves_alone(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    for step in range(4):
        with pytest.raises(StoreWriteError):
            write_atomic(path, b"new", SteppingFileSystem(step, raising(errno.ENOSPC)))
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


# -- temporary files


def test_leftovers_of_a_dead_writer_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    store = create(tmp_path / "store.fs")
    (store.path / "tmp" / temporary_name(".h5")).write_bytes(b"half")
    name = temporary_name(".h5")
    with (store.path / "tmp" / name).open("wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        store.write()
        assert leftovers(store) == [name]
    store.write()
    assert leftovers(store) == []


@pytest.mark.parametrize("name", ["00000000-0123456789abcdef.h5", "0123456789abcdef.h5"])
def test_file_of_another_computer_is_swept_when_it_is_old(tmp_path, name):
    """Its writer may live, and hold a lock that does not reach this computer."""
    store = create(tmp_path / "store.fs")
    file = store.path / "tmp" / name
    file.write_bytes(b"half")
    store.write()
    assert collect(store.path).too_young[0].name == f"tmp/{name}"
    assert orphaned_files(store.path) == []
    assert leftovers(store) == [name]
    collect(store.path, older_than=0, dry_run=True)
    assert [garbage.name for garbage in collect(store.path, older_than=0).removed] == [f"tmp/{name}"]
    file.write_bytes(b"half")
    later = time.time() + ORPHAN_SECONDS + 60
    with freeze_clock(later):
        assert orphaned_files(store.path) == [file]
        store.write()
    assert leftovers(store) == []


@contextmanager
def freeze_clock(seconds: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: seconds)
        yield


def test_where_locks_keep_nobody_out_a_living_writers_file_is_not_swept(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    monkeypatch.setattr(locks, "_probed", set())
    store = create(tmp_path / "store.fs")
    one = store.write()
    draft = one.draft(sentences(3))
    for position, tokens in enumerate(sentences(3)):
        draft.put(position, vectors_of(tokens))
    with caplog.at_level("WARNING"), one.prepared(draft) as shard:
        two = Store.open(store.path).write()
        collect(store.path)
        for tokens in sentences(2, start=7):
            two.add(tokens, vectors_of(tokens))
        two.flush()
        assert shard.path.exists()
        assert one.publish(shard) == 3
    assert_holds(Store.open(store.path), [*sentences(3), *sentences(2, start=7)])
    assert "locks on the disk of" in caplog.text


def test_leftover_of_a_writer_killed_after_its_commit_is_removed_while_the_commit_is_read(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    os.link(store.path / "manifests" / "00000002.json", store.path / "tmp" / "dead.json")
    reader = Store.open(store.path)
    store.write()
    assert leftovers(store) == []
    assert_holds(reader, sentences(3))


def test_sweeping_leaves_links_and_directories_alone(tmp_path):
    store = create(tmp_path / "store.fs")
    outside = tmp_path / "outside"
    outside.write_text("important")
    (store.path / "tmp" / "link").symlink_to(outside)
    (store.path / "tmp" / "folder").mkdir()
    os.mkfifo(store.path / "tmp" / "pipe")
    store.write()
    assert outside.read_text() == "important"
    assert leftovers(store) == ["folder", "link", "pipe"]


def test_session_that_begins_at_any_moment_of_a_commit_does_not_disturb_it(tmp_path):
    for step in range(n_steps_of_a_session(tmp_path)):
        store = fill(create(tmp_path / f"{step}.fs"), sentences(N_BEFORE))
        sweeping = SteppingFileSystem(step, lambda _: Store.open(store.path).write())  # noqa: B023
        filled = fill(Store.open(store.path, filesystem=sweeping), sentences(N_AFTER))
        assert_holds(filled, sentences(N_AFTER))


def test_temporary_file_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    path = tmp_path / "file"
    really_lock, calls = fcntl.flock, itertools.count()

    def swept_first(descriptor: int, operation: int) -> None:
        if next(calls) == 0:
            path.unlink()
        really_lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    with FileSystem().temporary_file(path, [b"one", b"two"]):
        assert path.read_bytes() == b"onetwo"
    assert not path.exists()


# -- a killed process

FORK = multiprocessing.get_context("fork")


def _add_for_ever(path: Path, started) -> None:
    with Store.open(path).write() as session:
        for number in itertools.count():
            (tokens,) = sentences(1, start=number)
            session.add(tokens, vectors_of(tokens))
            if number == 10:
                started.set()


def test_store_survives_a_dozen_kills_at_random_moments(tmp_path):
    store = create(tmp_path / "store.fs", shard_bytes=256)
    moments = random.Random(0)
    for _ in range(12):
        started = FORK.Event()
        child = FORK.Process(target=_add_for_ever, args=(store.path, started))
        child.start()
        assert started.wait(60)
        time.sleep(moments.uniform(0, 0.03))
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        opened = Store.open(store.path)
        assert [tokens for _, _, tokens in opened.sentences()] == sentences(len(opened))
        assert_holds(opened, sentences(len(opened)))
    assert len(opened) > 0
    assert list(verify(opened)) == []
    opened.write()
    assert leftovers(opened) == []
