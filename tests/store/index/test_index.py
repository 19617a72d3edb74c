"""The index against a dictionary, keys with equal beginnings included."""

from __future__ import annotations

import os
import re
import time
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
from featurestore.store.index.files import run_path
from featurestore.store.index.loading import SUPERSEDED_SECONDS, load_index
from featurestore.store.index.lookup import empty_index
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentences
from tests.store.index.keys import KEY_LISTS, KEYS
from tests.store.index.saved import ABSENT, answers, grown, listed, one_by_one, reading, saved_index


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
    built = load_index(directory, listed(["a"]), lambda number: keys_array(dict.fromkeys(keys)))

    def fail(number: int):
        raise AssertionError(f"read shard {number}")

    loaded = load_index(directory, listed(["a"]), fail)
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
            shard_list = listed(names[:n], sizes[:n])
            load_index(directory, shard_list, arrays.__getitem__, most_in_memory=most_in_memory)
        written.append(run_path(directory, shard_list, 0, len(arrays)).read_bytes())
    assert written[0] == written[1]


def test_large_index_is_merged_of_several_parts(tmp_path):
    random = np.random.default_rng(0)
    shards = [random.integers(0, 256, (150_000, 16), np.uint8) for _ in range(8)]
    shards[7][:1000] = shards[2][:1000]  # found twice: the first place stays
    names, sizes = list("abcdefgh"), [150_000] * 8
    load_index(tmp_path, listed(names[:3], sizes[:3]), shards.__getitem__)
    index = load_index(tmp_path, listed(names, sizes), shards.__getitem__)
    assert not index.runs[0].records.flags.writeable, "it lies in the file"
    assert len(index) == len(index.high) == 8 * 150_000 - 1000
    for number in (0, 2, 5):
        found = index.locate(shards[number])
        assert (found.shard == number).all()
        assert (found.row == np.arange(150_000)).all()
    assert (index.locate(shards[7][:1000]).shard == 2).all()
    assert {path.suffix for path in tmp_path.iterdir()} == {".idx"}


def test_large_index_is_kept_in_memory_where_none_can_be_written(tmp_path):
    (tmp_path / "index").write_text("a file in its place")
    keys = keys_array([bytes([number]) * 16 for number in range(9)])
    index = load_index(tmp_path / "index", listed(["a"], [9]), lambda number: keys, most_in_memory=0)
    assert index.locate(keys).row.tolist() == list(range(9))


def test_only_new_shards_are_read_to_extend_an_index(tmp_path):
    shards = [keys_array([bytes([number]) * 16]) for number in range(4)]
    load_index(tmp_path, listed(["a", "b"]), shards.__getitem__)
    read: list[int] = []

    def read_keys(number: int):
        read.append(number)
        return shards[number]

    index = load_index(tmp_path, listed(["a", "b", "c", "d"]), read_keys)
    assert read == [2, 3]
    assert index.locate(np.concatenate(shards)).shard.tolist() == [0, 1, 2, 3]


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
    load_index(tmp_path, listed(["a"]), lambda number: keys_array([bytes(16)]))
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


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 5000])
def test_buckets_hold_a_few_keys_each_and_every_key_is_found(tmp_path, n):
    keys = np.random.default_rng(100 + n).integers(0, 256, (n, 16), np.uint8)
    saved_index(tmp_path, keys)
    index = reading(tmp_path, keys)
    assert len(index) == n
    assert answers(index, keys) == [*range(n), *[-1] * len(ABSENT)]
    assert n < 8 or 4 <= n / (1 << index.runs[0].bits) < 8
    assert index.runs[0].largest < 40
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
    assert index.runs[0].largest == 3000
    assert answers(index, keys) == [*range(3000), *[-1] * len(ABSENT)]


def test_an_index_of_zeros_and_no_keys_is_an_index(tmp_path):
    assert empty_index().locate(ABSENT).found.sum() == 0
    assert empty_index().locate(keys_array([])).row.tolist() == []
    assert empty_index().with_prefix("ab") == []


def test_check_of_a_bucket_is_the_one_that_the_format_states():
    text = (Path(featurestore.__file__).parent / "store/FORMAT.md").read_text()
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
