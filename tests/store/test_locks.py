"""Waiting for a store's lock: said once, given up when asked, and ended by Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.errors import StoreWriteError
from featurestore.store import locks
from featurestore.store.locks import committing, unused
from featurestore.store.store import Store
from tests.kit.stores import assert_holds, create, fill, sentences, vectors_of
from tests.kit.users import open_to_all, ordinary_user


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "_TRIES_IN_SILENCE", 3)


@pytest.fixture
def locked(tmp_path) -> Iterator[Path]:
    """A store that gc in another process seems to clean up."""
    path = fill(create(tmp_path / "store.fs"), sentences(2)).path
    descriptor = os.open(path / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield path
    os.close(descriptor)


def interrupt_soon() -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_a_writer_that_waits_for_the_lock_hears_ctrl_c(locked, caplog):
    session = Store.open(locked).write()
    session.add(sentences(3)[2], vectors_of(sentences(3)[2]))
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        session.flush()
    assert "waiting for" in caplog.text
    assert_holds(Store.open(locked), sentences(2))


def test_a_thread_that_waits_for_the_lock_gives_up_when_it_is_told(locked):
    session, met = Store.open(locked).write(), []
    session.add(sentences(3)[2], vectors_of(sentences(3)[2]))

    def flush() -> None:
        try:
            session.flush()
        except StoreWriteError as error:
            met.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    session.stop_waiting()
    thread.join(30)
    assert not thread.is_alive()
    assert "held by another process" in str(met[0])
    assert met[0].path == locked / "lock"


def test_a_lock_that_is_free_is_taken_also_after_giving_up(tmp_path):
    store = create(tmp_path / "store.fs")
    told = threading.Event()
    told.set()
    with committing(store.path, told):
        pass


def test_a_file_of_another_user_is_locked_for_reading(tmp_path):
    path = tmp_path / "file"
    path.touch(0o644)
    open_to_all(tmp_path)
    with ordinary_user(), unused(path) as alone:
        assert alone
        with unused(path) as again:
            assert not again


def test_a_lock_file_that_cannot_be_opened_is_named(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(2))
    (store.path / "lock").unlink()
    (store.path / "lock").mkdir()
    with pytest.raises(StoreWriteError, match="lock file") as caught:
        fill(store, sentences(4))
    assert caught.value.path == store.path / "lock"
    assert_holds(Store.open(store.path), sentences(2))
