"""Saved indexes: damaged, cut or removed under their readers, and noticed."""

from __future__ import annotations

import errno
import gc
import os
from dataclasses import replace

import numpy as np
import pytest

from featurestore.disk.opening import open_for_reading
from featurestore.keyarrays import keys_array
from featurestore.store.index.filerows import DamagedIndexError, FileRows, OpenFile
from featurestore.store.index.files import run_bytes
from featurestore.store.index.loading import load_index, stale_files
from featurestore.store.index.lookup import Index
from featurestore.store.index.sorting import RowsInMemory, merge, sort_rows
from featurestore.store.maintenance.gc import collect
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentences
from tests.store.index.saved import ABSENT, NAMES, answers, listed, one_by_one, reading, saved_index

# -- damage: no sentence may be hidden, none invented, and the file is made whole


@pytest.fixture
def many_keys():
    """Four hundred keys, in every bucket some."""
    return np.random.default_rng(0).integers(0, 256, (400, 16), np.uint8)


def assert_noticed(directory, keys):
    """Assert that a damaged index is rebuilt, or refuses to answer."""
    built = []
    index = load_index(directory, listed(NAMES, [len(keys)]), lambda number: built.append(number) or keys)
    if built:
        assert answers(index, keys) == [*range(len(keys)), *[-1] * len(ABSENT)]
        return
    with pytest.raises(DamagedIndexError):
        answers(index, keys)
    with pytest.raises(DamagedIndexError):
        one_by_one(index, np.concatenate([keys, ABSENT[:50]]))
    with pytest.raises(DamagedIndexError):
        index.verify()
    with pytest.raises(DamagedIndexError):
        index.with_prefix("")
    assert stale_files(directory, listed(NAMES, [len(keys)])) == list(directory.iterdir())


def test_a_flipped_bit_anywhere_is_noticed(tmp_path, many_keys):
    keys = many_keys[:40]
    path = saved_index(tmp_path, keys)
    sound = path.read_bytes()
    for offset in range(len(sound)):
        data = bytearray(sound)
        data[offset] ^= 1 << offset % 8
        path.write_bytes(data)
        assert_noticed(tmp_path, keys)
        if offset % 100 == 0:
            gc.collect()  # what was raised holds the maps, and each holds a descriptor


def swapped(data, one, other, size):
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


TABLE, RECORDS = 128, -400 * 24


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: swapped(data, len(data) + RECORDS, len(data) + RECORDS + 24, 24),
        lambda data: swapped(data, len(data) + RECORDS, len(data) - 24, 24),
        lambda data: swapped(data, TABLE + 16, TABLE + 32, 16),
        lambda data: swapped(data, len(data) - 2048, len(data) - 1024, 1024),
        lambda data: data.__setitem__(slice(-512, None), bytes(512)),
        lambda data: data.__setitem__(slice(TABLE, TABLE + 512), bytes(512)),
        lambda data: data.__setitem__(slice(TABLE, TABLE + 512), b"\xff" * 512),
        lambda data: data.__delitem__(slice(-24, None)),
        lambda data: data.extend(bytes(24)),
        lambda data: data.__delitem__(slice(100, None)),
        lambda data: data.__setitem__(slice(0, 8), b"FSINDEX1"),
    ],
    ids=["neighbours swapped", "records swapped", "buckets swapped", "sectors swapped", "records zeroed",
         "table zeroed", "table of ones", "cut", "grown", "header cut", "an earlier format"],
)  # fmt: skip
def test_damage_of_every_kind_is_noticed(tmp_path, many_keys, harm):
    path = saved_index(tmp_path, many_keys)
    data = bytearray(path.read_bytes())
    harm(data)
    path.write_bytes(data)
    assert_noticed(tmp_path, many_keys)


@pytest.mark.parametrize("n", [0, 1, 7, 400, 5000])
def test_an_index_read_where_it_is_asked_answers_as_a_mapped_one(tmp_path, n):
    keys = np.random.default_rng(100 + n).integers(0, 256, (n, 16), np.uint8)
    keys[1:4, :8] = keys[:1, :8]
    saved_index(tmp_path, keys)
    mapped, index = reading(tmp_path, keys), reading(tmp_path, keys, access="pread")
    assert isinstance(index.runs[0].records, FileRows)
    assert answers(index, keys) == answers(mapped, keys) == [*range(n), *[-1] * len(ABSENT)]
    assert one_by_one(index, np.concatenate([keys, ABSENT[:50]])) == one_by_one(
        mapped, np.concatenate([keys, ABSENT[:50]])
    )
    for digits in ("", "3", "3f", "3f7"):
        assert index.with_prefix(digits) == mapped.with_prefix(digits)
    index.verify()
    for name in ("high", "low", "shard", "row"):
        np.testing.assert_array_equal(getattr(index, name), getattr(mapped, name))


@pytest.mark.parametrize("most_in_memory", [1000_000, 0])
def test_an_index_read_where_it_is_asked_is_built_on(tmp_path, many_keys, most_in_memory):
    saved_index(tmp_path, many_keys)
    more = keys_array([bytes(16)])
    index = load_index(
        tmp_path, listed(["a", "b"], [len(many_keys), 1]), [many_keys, more].__getitem__, access="pread",
        most_in_memory=most_in_memory,
    )  # fmt: skip
    assert isinstance(index.runs[0].records, FileRows)
    assert answers(index, many_keys) == [*range(len(many_keys)), *[-1] * len(ABSENT)]
    assert index.locate(more).shard.tolist() == [1]


def test_a_damaged_index_is_noticed_where_it_is_read_when_asked(tmp_path, many_keys):
    path = saved_index(tmp_path, many_keys)
    path.write_bytes(path.read_bytes()[:-24] + bytes(24))
    index = reading(tmp_path, many_keys, access="pread")
    with pytest.raises(DamagedIndexError):
        answers(index, many_keys)


class Stale:
    """A map of a file that another computer removed, as NFS shows it."""

    def size(self) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_mapped_index_that_another_computer_removed_is_built_again(tmp_path):
    opened = Store.open(fill(create(tmp_path / "store.fs"), sentences(20)).path)
    assert sentences(1)[0] in opened
    opened._index = Index((replace(opened.index.runs[0], _map=Stale()),))
    assert all(tokens in opened for tokens in sentences(20))
    assert len(opened.get_many(sentences(20))) == 20


def test_an_index_read_where_it_is_asked_that_another_computer_removed_is_built_again(tmp_path, monkeypatch):
    opened = Store.open(fill(create(tmp_path / "store.fs"), sentences(20)).path, access="pread")
    assert sentences(1)[0] in opened
    removed, pread = opened.index.runs[0].records._file.descriptor, os.pread

    def stale(descriptor: int, n_bytes: int, offset: int) -> bytes:
        if descriptor == removed:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return pread(descriptor, n_bytes, offset)

    monkeypatch.setattr(os, "pread", stale)
    with pytest.raises(DamagedIndexError, match="Stale"):
        opened.index.locate(ABSENT)
    assert all(tokens in opened for tokens in sentences(20))
    assert len(opened.get_many(sentences(20))) == 20


@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_an_index_cut_under_a_reader_is_built_again(tmp_path, access):
    store = fill(create(tmp_path / "store.fs"), sentences(20))
    opened = Store.open(store.path, access=access)
    assert sentences(1)[0] in opened
    (path,) = (store.path / "index").iterdir()
    path.write_bytes(b"")
    assert len(opened.get_many(sentences(20))) == 20


def test_commits_elsewhere_leave_the_index_that_a_reader_has_open(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(9))
    opened = Store.open(store.path, access="pread")
    assert sentences(1)[0] in opened
    before = set((store.path / "index").iterdir())
    fill(store, sentences(20))
    collect(store.path)
    assert before < set((store.path / "index").iterdir())
    assert len(opened.get_many(sentences(9))) == 9


def test_an_index_that_is_cut_while_it_is_open_is_noticed(tmp_path, many_keys):
    path = saved_index(tmp_path, many_keys)
    index = reading(tmp_path, many_keys)
    assert answers(index, many_keys)
    path.write_bytes(b"")
    with pytest.raises(DamagedIndexError, match="cut"):
        answers(index, many_keys)


def test_a_store_makes_its_damaged_index_whole(tmp_path, caplog):
    store = fill(create(tmp_path / "store.fs"), sentences(20))
    (path,) = (store.path / "index").iterdir()
    sound = path.read_bytes()
    path.write_bytes(sound[:-24] + bytes(24))
    opened = Store.open(store.path)
    assert all(tokens in opened for tokens in sentences(20))
    assert "damaged" in caplog.text
    assert "building it again" in caplog.text
    assert path.read_bytes() == sound
    path.write_bytes(sound[:-24] + bytes(24))
    assert len(Store.open(store.path).with_prefix("")) == 20
    assert path.read_bytes() == sound


def test_nothing_is_built_on_a_damaged_index(tmp_path, many_keys, caplog):
    path = saved_index(tmp_path, many_keys)
    path.write_bytes(path.read_bytes()[:-24] + bytes(24))
    more = keys_array([bytes(16)])
    shards = [many_keys, more]
    index = load_index(tmp_path, listed(["a", "b"], [len(many_keys), 1]), shards.__getitem__)
    assert answers(index, many_keys) == [*range(len(many_keys)), *[-1] * len(ABSENT)]
    assert index.locate(more).shard.tolist() == [1]
    assert [kept.stem != path.stem for kept in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize("outside", ["row", "shard"])
def test_places_that_are_not_there_are_noticed(tmp_path, many_keys, outside):
    path = saved_index(tmp_path, many_keys)
    index = reading(tmp_path, many_keys)
    places = {"shard": index.shard, "row": index.row}
    places[outside] = places[outside] + np.uint32(len(many_keys))
    forged = Index.of(index.high, index.low, places["shard"], places["row"], 1)
    path.write_bytes(run_bytes(forged.runs[0], listed(NAMES)))
    assert_noticed(tmp_path, many_keys)


def test_rows_in_files_and_in_memory_are_merged_part_by_part(tmp_path):
    rows = np.random.default_rng(2).integers(0, 1 << 64, (400, 3), np.uint64, endpoint=False)
    first, second = sort_rows(rows[:300]), sort_rows(rows[300:])
    path = tmp_path / "rows"
    path.write_bytes(b"head" * 4 + first.astype("<u8").tobytes())
    in_file = FileRows(OpenFile(open_for_reading(path)), 16, 300, 3)
    parts = list(merge([in_file, RowsInMemory(second)], 40))
    assert len(parts) > 5
    assert np.array_equal(np.concatenate(parts), sort_rows(rows))
