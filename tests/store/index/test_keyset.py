"""The key set against a set, whether its keys are in memory or in files, and on disks that fail."""

from __future__ import annotations

import errno
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.disk.filesystem import FileSystem
from featurestore.errors import StoreError, StoreWriteError
from featurestore.keyarrays import keys_array
from featurestore.store.index.keyset import KeySet
from tests.store.index.keys import KEY_LISTS, KEYS


@given(st.lists(KEY_LISTS, max_size=6), KEY_LISTS, st.sampled_from([0, 3, 1000]))
def test_key_set_is_a_set(tmp_path_factory, additions, asked, most_in_memory):
    keys, model = KeySet(tmp_path_factory.getbasetemp(), most_in_memory=most_in_memory), set()
    for added in additions:
        expected_new = []
        for key in added:
            expected_new.append(key not in model)
            model.add(key)
        assert keys.add(keys_array(added)).tolist() == expected_new
        assert len(keys) == len(model)
    wanted = [*asked, *model]
    assert keys.contains(keys_array(wanted)).tolist() == [key in model for key in wanted]


@given(st.lists(KEYS, unique=True, min_size=1, max_size=4), st.integers(100, 700))
def test_many_keys_that_begin_alike_are_told_apart(tmp_path_factory, others, n):
    # Over several blocks of a file, which are known by the first word of their first key.
    alike = [b"\x80" * 8 + number.to_bytes(8, "big") for number in range(n)]
    keys = KeySet(tmp_path_factory.getbasetemp(), most_in_memory=0)
    keys.add(keys_array([*others, *alike]))
    missing = [b"\x80" * 8 + number.to_bytes(8, "big") for number in range(n, n + 50)]
    assert keys.contains(keys_array([*alike, *others])).all()
    assert keys.contains(keys_array(missing)).tolist() == [key in others for key in missing]


def random_keys(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 16), np.uint8)


def test_what_outgrows_memory_is_found_in_files_that_have_no_name(tmp_path):
    keys = KeySet(tmp_path, most_in_memory=1000)
    there = random_keys(100_000)
    for start in range(0, len(there), 700):
        assert keys.add(there[start : start + 700]).all()
    assert len(keys) == len(there)
    assert keys.contains(there).all()
    assert not keys.contains(random_keys(100_000, seed=1)).any()
    assert not keys.add(there[::-7]).any()
    assert list(tmp_path.iterdir()) == []


def test_few_keys_write_nothing(tmp_path):
    keys = KeySet(tmp_path / "not there")
    keys.add(random_keys(5000))
    assert keys.contains(random_keys(5000)).all()


def test_the_files_go_with_the_set(tmp_path):
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open()
    keys = KeySet(tmp_path, most_in_memory=10)
    keys.add(random_keys(500))
    assert n_open() > before
    del keys
    gc.collect()
    assert n_open() == before


def test_one_thread_asks_while_another_adds(tmp_path):
    keys, there, failed = KeySet(tmp_path, most_in_memory=500), random_keys(60_000), []
    keys.add(there[:3000])

    def ask() -> None:
        while not done.is_set():
            if not keys.contains(there[:3000:7]).all():
                failed.append(True)

    done = threading.Event()
    thread = threading.Thread(target=ask)
    thread.start()
    for start in range(3000, len(there), 400):
        keys.add(there[start : start + 400])
    done.set()
    thread.join()
    assert not failed


def test_a_full_disk_is_said_to_be_one(tmp_path):
    class Full(FileSystem):
        def operate(self, operation, call, *arguments):
            raise OSError(errno.ENOSPC, "no space left on device")

    keys = KeySet(tmp_path, most_in_memory=10, filesystem=Full())
    with pytest.raises(StoreWriteError, match="no space left"):
        keys.add(random_keys(500))


@pytest.fixture
def spilled(tmp_path) -> tuple[KeySet, list[int]]:
    """A set whose keys are on the disk, and the descriptors of its files there."""
    keys = KeySet(tmp_path, most_in_memory=10)
    keys.add(random_keys(500))
    opened = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    files = [int(entry.name) for entry in opened if os.readlink(entry).startswith(f"{tmp_path}/")]
    assert files
    return keys, files


def test_a_disk_that_loses_what_was_written_to_it_is_said_to(spilled):
    keys, files = spilled
    for descriptor in files:
        os.ftruncate(descriptor, 0)
    with pytest.raises(StoreError, match=r"a temporary file gave 0 bytes of [\d,]+: see to the disk"):
        keys.contains(random_keys(500))


def test_a_disk_that_cannot_be_read_is_said_to_be_none_to_use(spilled, tmp_path):
    keys, files = spilled
    folder = os.open(tmp_path, os.O_RDONLY)  # reading a folder fails, as a file does whose disk went away
    for descriptor in files:
        os.dup2(folder, descriptor)
    os.close(folder)
    with pytest.raises(StoreError, match=r"a temporary file cannot be read back: .*See to the disk"):
        keys.contains(random_keys(500))
