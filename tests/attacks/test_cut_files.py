"""Shards cut or exchanged, also under their readers; in processes of their own, which a signal may end."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.errors import DamagedStoreError, StoreError
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import RECIPE, assert_holds, create, fill, sentence, sentences, shard_path

FORK = multiprocessing.get_context("fork")
N = 400


@pytest.fixture(params=["mmap", "pread"])
def access(request) -> str:
    return request.param


@pytest.fixture
def store(tmp_path) -> Store:
    """One shard of many pages."""
    return fill(create(tmp_path / "store.fs", shard_bytes=1 << 30, dim=64), sentences(N))


def in_a_process(use: Callable[[], object]) -> int | None:
    """Return the exit status: 0, or 1 for an error, or minus a signal."""
    child = FORK.Process(target=use)
    child.start()
    child.join(60)
    return child.exitcode


def cut_under_a_reader(path: Path, access: str, check: str) -> None:
    opened = Store.open(path, access=access, check=check)
    opened.get(sentence(0))
    shard = shard_path(opened)
    os.truncate(shard, opened.manifest.shards[0].extents["values"].offset + 4096)
    for number in (N - 1, N // 2):
        with pytest.raises(DamagedStoreError, match=shard.name):
            opened.get(sentence(number))
    if access == "pread":
        # What the cut left is still what was committed.
        assert_holds(opened, [sentence(0)])
    else:
        with pytest.raises(DamagedStoreError, match="it was cut"):
            opened.get(sentence(0))
    assert list(verify(opened))


@pytest.mark.parametrize("check", ["first", "always", "never"])
def test_shard_cut_under_its_reader_is_an_error_and_no_signal(store, access, check):
    assert in_a_process(lambda: cut_under_a_reader(store.path, access, check)) == 0


def cut_to_nothing(path: Path, access: str) -> None:
    opened = Store.open(path, access=access)
    _ = opened.index
    reader = opened.reader(0)
    os.truncate(reader.path, 0)
    with pytest.raises(DamagedStoreError):
        reader.verify_row(7)


def test_a_first_reading_looks_before_it_touches(store, access):
    assert in_a_process(lambda: cut_to_nothing(store.path, access)) == 0


def test_what_the_check_prevents_is_a_signal(store):
    """Were this to change, the tests above would show nothing."""

    def touch() -> None:
        faulthandler.disable()
        reader = Store.open(store.path).reader(0)
        os.truncate(reader.path, 0)
        assert reader.values is not None
        reader.values.sum()

    assert in_a_process(touch) == -7


def test_another_stores_shard_under_this_name_is_refused(tmp_path, store, access):
    other = fill(create(tmp_path / "other.fs", shard_bytes=1 << 30, dim=64), sentences(N, start=N))
    # Of another recipe, and otherwise the same: as large, with the same sentences.
    foreign = type(RECIPE)({"kind": "test", "version": 2})
    twin = fill(create(tmp_path / "twin.fs", shard_bytes=1 << 30, dim=64, recipe=foreign), sentences(N))
    assert shard_path(twin).stat().st_size == shard_path(store).stat().st_size
    for source in (other, twin):
        shutil.copy(shard_path(source), shard_path(store))
        with pytest.raises(DamagedStoreError):
            Store.open(store.path, access=access).get(sentence(0))
        assert [finding.shard for finding in verify(store)] == [shard_path(store).name]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def read_with_few_files(path: Path, access: str, soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + soft, open_files() + hard))
    opened = Store.open(path, access=access)
    assert len(opened.manifest.shards) == 30
    try:
        assert_holds(opened, sentences(30))
    finally:
        opened.close_shards()  # coverage writes files when this process ends


def test_a_store_may_have_more_shards_than_a_process_may_open_files(tmp_path, access):
    store = fill(create(tmp_path / "many.fs", shard_bytes=1), sentences(30))
    assert in_a_process(lambda: read_with_few_files(store.path, access, 10, 200)) == 0

    def hard() -> None:
        with pytest.raises(StoreError, match=r"ulimit -n|Too many open files") as caught:
            read_with_few_files(store.path, access, 10, 10)
        assert not isinstance(caught.value, DamagedStoreError)

    assert in_a_process(hard) == 0
