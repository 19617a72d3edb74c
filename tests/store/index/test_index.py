"""The index against a dictionary, keys with equal beginnings included."""

from __future__ import annotations

import errno
import gc
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featurestore
from featurestore.disk.temporary import temporary_name
from featurestore.keyarrays import keys_array
from featurestore.keys import sentence_key
from featurestore.store.index import loading
from featurestore.store.index.buckets import bucket_check
from featurestore.store.index.filerows import DamagedIndexError, FileRows
from featurestore.store.index.loading import (
    SUPERSEDED_SECONDS,
    index_bytes,
    index_path,
    load_index,
    stale_files,
)
from featurestore.store.index.lookup import Index, empty_index
from featurestore.store.maintenance.gc import collect
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentences
from tests.store.index.keys import KEY_LISTS, KEYS


@given(st.lists(st.lists(KEYS, unique=True, max_size=8), max_size=5), KEY_LISTS)
def test_index_is_a_dictionary_in_which_the_first_place_stays(shards, asked):
    model: dict[bytes, tuple[int, int]] = {}
    for shard, keys in enumerate(shards):
        for row, key in enumerate(keys):
            model.setdefault(key, (shard, row))
    index = empty_index().extended([keys_array(keys) for keys in shards])
    wanted = [*asked, *model]
    found = index.locate(keys_array(wanted))
    places = list(zip(found.shard.tolist(), found.row.tolist(), strict=True))
    assert places == [model.get(key, (-1, -1)) for key in wanted]
    assert found.found.tolist() == [key in model for key in wanted]


@given(st.lists(st.lists(KEYS, unique=True, max_size=5), min_size=1, max_size=6), st.data())
def test_extending_an_index_equals_building_it_at_once(shards, data):
    arrays = [keys_array(keys) for keys in shards]
    cut = data.draw(st.integers(0, len(arrays)))
    whole = empty_index().extended(arrays)
    stepwise = empty_index().extended(arrays[:cut]).extended(arrays[cut:])
    for name in ("high", "low", "shard", "row"):
        np.testing.assert_array_equal(getattr(stepwise, name), getattr(whole, name))
    assert stepwise.n_shards == whole.n_shards == len(arrays)


@given(st.lists(KEYS, unique=True, max_size=20), st.integers(1, 16), st.data())
def test_prefix_finds_every_key_that_begins_so(keys, n_digits, data):
    prefix = data.draw(st.sampled_from(keys) if keys else st.binary(min_size=16, max_size=16)).hex()[
        :n_digits
    ]
    index = empty_index().extended([keys_array(keys)])
    found = {keys[row] for _, row in index.with_prefix(prefix)}
    assert found == {key for key in keys if key.hex().startswith(prefix)}


def test_prefix_finds_stored_sentences(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(20))
    key = sentence_key(sentences(20)[11])
    ((shard, row),) = store.index.with_prefix(key.hex())
    assert store.reader(shard).key(row) == key


@given(KEY_LISTS.filter(bool))
def test_saved_index_is_loaded_without_reading_shards(tmp_path_factory, keys):
    directory = tmp_path_factory.mktemp("index")
    built = load_index(directory, ["a"], lambda number: keys_array(dict.fromkeys(keys)))

    def fail(number: int):
        raise AssertionError(f"read shard {number}")

    loaded = load_index(directory, ["a"], fail)
    np.testing.assert_array_equal(loaded.high, built.high)
    np.testing.assert_array_equal(loaded.row, built.row)


@given(st.lists(st.lists(KEYS, unique=True, min_size=1, max_size=8), min_size=1, max_size=5), st.data())
def test_index_merged_on_disk_has_the_bytes_of_one_built_in_memory(tmp_path_factory, shards, data):
    arrays = [keys_array(keys) for keys in shards]
    names, sizes = [str(number) for number in range(len(arrays))], list(map(len, arrays))
    cut = data.draw(st.integers(0, len(arrays)))
    written = []
    for most_in_memory in (1000, 0):
        directory = tmp_path_factory.mktemp("index")
        for n in (cut, len(arrays)):
            load_index(
                directory, names[:n], arrays.__getitem__, sizes=sizes[:n], most_in_memory=most_in_memory
            )
        written.append(index_path(directory, names).read_bytes())
    assert written[0] == written[1]


def test_large_index_is_merged_of_several_parts(tmp_path):
    random = np.random.default_rng(0)
    shards = [random.integers(0, 256, (150_000, 16), np.uint8) for _ in range(8)]
    shards[7][:1000] = shards[2][:1000]  # found twice: the first place stays
    names, sizes = list("abcdefgh"), [150_000] * 8
    load_index(tmp_path, names[:3], shards.__getitem__, sizes=sizes[:3])
    index = load_index(tmp_path, names, shards.__getitem__, sizes=sizes)
    assert not index.records.flags.writeable, "it lies in the file"
    assert len(index.high) == 8 * 150_000 - 1000
    for number in (0, 2, 5):
        found = index.locate(shards[number])
        assert (found.shard == number).all()
        assert (found.row == np.arange(150_000)).all()
    assert (index.locate(shards[7][:1000]).shard == 2).all()
    assert {path.suffix for path in tmp_path.iterdir()} == {".idx"}


def test_large_index_is_kept_in_memory_where_none_can_be_written(tmp_path):
    (tmp_path / "index").write_text("a file in its place")
    keys = keys_array([bytes([number]) * 16 for number in range(9)])
    index = load_index(tmp_path / "index", ["a"], lambda number: keys, sizes=[9], most_in_memory=0)
    assert index.locate(keys).row.tolist() == list(range(9))


def test_only_new_shards_are_read_to_extend_an_index(tmp_path):
    shards = [keys_array([bytes([number]) * 16]) for number in range(4)]
    load_index(tmp_path, ["a", "b"], shards.__getitem__)
    read: list[int] = []

    def read_keys(number: int):
        read.append(number)
        return shards[number]

    index = load_index(tmp_path, ["a", "b", "c", "d"], read_keys)
    assert read == [2, 3]
    assert index.locate(np.concatenate(shards)).shard.tolist() == [0, 1, 2, 3]


def grown(directory, n: int) -> list[Path]:
    """Extend an index by a shard at a time; return where each lies."""
    shards = [keys_array([bytes([number]) * 16]) for number in range(n)]
    names = [str(number) for number in range(n)]
    for end in range(1, n + 1):
        load_index(directory, names[:end], shards.__getitem__)
    return [index_path(directory, names[:end]) for end in range(1, n + 1)]


def test_an_index_stays_for_a_day_after_a_larger_one_was_written(tmp_path):
    """A reader on another computer may have it mapped, and sees that it is removed."""
    first, second = grown(tmp_path, 2)
    assert first.exists()
    long_ago = time.time() - SUPERSEDED_SECONDS - 60
    os.utime(first, (long_ago, long_ago))
    grown(tmp_path, 3)
    assert first.exists(), "written long ago, but the one that followed it is new"
    os.utime(second, (long_ago, long_ago))
    grown(tmp_path, 4)
    assert not first.exists()
    assert second.exists()


def test_indexes_that_stay_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_MOST_SUPERSEDED", 3)
    paths = grown(tmp_path, 9)
    assert sorted(tmp_path.iterdir()) == sorted(paths[-4:])


def test_leftover_of_a_killed_index_writer_is_removed(tmp_path):
    (tmp_path / f".x.idx.{temporary_name('.tmp')}").write_bytes(b"half")
    load_index(tmp_path, ["a"], lambda number: keys_array([bytes(16)]))
    assert [path.suffix for path in tmp_path.iterdir()] == [".idx"]


@pytest.mark.parametrize("order", [1, -1])
def test_locate_keeps_the_order_of_questions(tmp_path, order):
    store = fill(create(tmp_path / "store.fs"), sentences(12))
    wanted = sentences(12)[::order]
    found = store.locate([sentence_key(tokens) for tokens in wanted])
    assert store.lengths(found).tolist() == [len(tokens) for tokens in wanted]


def test_length_of_a_missing_sentence_is_zero(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    assert store.lengths(store.locate([bytes(16), sentence_key(sentences(3)[2])])).tolist() == [0, 3]


def test_reading_works_where_no_index_can_be_written(tmp_path):
    path = fill(create(tmp_path / "store.fs"), sentences(6)).path
    for index in (path / "index").iterdir():
        index.unlink()
    (path / "index").rmdir()
    (path / "index").write_text("a file in its place")
    assert sentences(6)[2] in Store.open(path)


# -- damage: no sentence may be hidden, none invented, and the file is made whole


@pytest.fixture
def many_keys():
    """Four hundred keys, in every bucket some."""
    return np.random.default_rng(0).integers(0, 256, (400, 16), np.uint8)


NAMES, ABSENT = ["a"], np.random.default_rng(1).integers(0, 256, (2000, 16), np.uint8)


def saved_index(directory, keys):
    load_index(directory, NAMES, lambda number: keys, sizes=[len(keys)])
    (path,) = directory.iterdir()
    return path


def reading(directory, keys, **options):
    return load_index(directory, NAMES, lambda number: keys, sizes=[len(keys)], **options)


def answers(index, keys):
    return index.locate(np.concatenate([keys, ABSENT])).row.tolist()


def one_by_one(index, keys):
    """Ask for each key alone, which is another way through the index."""
    found = [index.locate(keys[at : at + 1]) for at in range(len(keys))]
    return [(int(place.shard[0]), int(place.row[0])) for place in found]


def assert_noticed(directory, keys):
    """Assert that a damaged index is rebuilt, or refuses to answer."""
    built = []
    index = load_index(directory, NAMES, lambda number: built.append(number) or keys, sizes=[len(keys)])
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
    assert stale_files(directory, NAMES, [len(keys)]) == list(directory.iterdir())


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
    assert isinstance(index.records, FileRows)
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
        tmp_path, ["a", "b"], [many_keys, more].__getitem__, sizes=[len(many_keys), 1], access="pread",
        most_in_memory=most_in_memory,
    )  # fmt: skip
    assert isinstance(index.records, FileRows)
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
    opened._index = replace(opened.index, _map=Stale())
    assert all(tokens in opened for tokens in sentences(20))
    assert len(opened.get_many(sentences(20))) == 20


def test_an_index_read_where_it_is_asked_that_another_computer_removed_is_built_again(tmp_path, monkeypatch):
    opened = Store.open(fill(create(tmp_path / "store.fs"), sentences(20)).path, access="pread")
    assert sentences(1)[0] in opened
    removed, pread = opened.index.records._file._descriptor, os.pread

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
    index = load_index(tmp_path, ["a", "b"], shards.__getitem__, sizes=[len(many_keys), 1])
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
    path.write_bytes(index_bytes(forged, NAMES))
    assert_noticed(tmp_path, many_keys)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 5000])
def test_buckets_hold_a_few_keys_each_and_every_key_is_found(tmp_path, n):
    keys = np.random.default_rng(100 + n).integers(0, 256, (n, 16), np.uint8)
    saved_index(tmp_path, keys)
    index = reading(tmp_path, keys)
    assert len(index) == n
    assert answers(index, keys) == [*range(n), *[-1] * len(ABSENT)]
    assert n < 8 or 4 <= n / (1 << index.bits) < 8
    assert index.largest < 40
    index.verify()


@pytest.mark.parametrize("n", [1, 7, 400, 5000])
def test_a_key_alone_is_found_where_it_is_among_others(n):
    keys = np.random.default_rng(100 + n).integers(0, 256, (n, 16), np.uint8)
    keys[1:4, :8] = keys[0, :8]  # only the last eight bytes differ
    index = empty_index().extended([keys[: n // 2], keys[n // 2 :]])
    together = index.locate(np.concatenate([keys, ABSENT]))
    places = list(zip(together.shard.tolist(), together.row.tolist(), strict=True))
    assert one_by_one(index, np.concatenate([keys, ABSENT])) == places
    assert (-1, -1) in places
    assert (1, 0) in places


def test_keys_that_all_fall_into_one_bucket_are_found(tmp_path):
    keys = np.zeros((3000, 16), np.uint8)
    keys[:, 8:] = np.arange(3000, dtype=">u8").view(np.uint8).reshape(-1, 8)
    saved_index(tmp_path, keys)
    index = reading(tmp_path, keys)
    assert index.largest == 3000
    assert answers(index, keys) == [*range(3000), *[-1] * len(ABSENT)]


def test_an_index_of_zeros_and_no_keys_is_an_index(tmp_path):
    assert empty_index().locate(ABSENT).found.sum() == 0
    assert empty_index().locate(keys_array([])).row.tolist() == []
    assert empty_index().with_prefix("ab") == []


def test_check_of_a_bucket_is_the_one_that_the_format_states():
    text = Path(featurestore.__file__).with_name("FORMAT.md").read_text()
    (stated,) = re.findall(r"^C = (.*?)   \(hexadecimal\)$", text, flags=re.M)
    c = [int(number, 16) for number in stated.split(", ")]

    def mix(word: int) -> int:
        word %= 2**64
        word = (word ^ word >> 32) * c[0] % 2**64
        return word ^ word >> 29

    records = np.random.default_rng(0).integers(0, 2**63, (5, 3)).tolist()
    bucket, start, stop = 77, 1000, 1005
    expected = mix(bucket * c[4] + start * c[3] + stop * c[2] + c[1])
    for number, (high, low, place) in enumerate(records, start):
        expected += mix(high * c[0] + low * c[1] + place * c[2] + number * c[3])
    assert bucket_check(bucket, start, stop, records) == expected % 2**64
