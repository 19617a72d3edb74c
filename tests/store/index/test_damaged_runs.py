"""Runs of an index that are damaged, stale or cannot be written; and runs in a store."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.store.index.files import run_bytes, run_path
from featurestore.store.index.loading import damaged_files, load_index, stale_files, used_files
from featurestore.store.index.lookup import Index, empty_index
from featurestore.store.index.run import IndexRun
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.snapshot import shard_list
from featurestore.store.store import Store
from tests.kit.damage import flip_bit
from tests.kit.stores import create, fill, sentences
from tests.store.index.runs import (
    KEYS_OF,
    NAMES,
    RANDOM,
    assert_right,
    grown,
    shards,
    spans,
)
from tests.store.index.saved import listed

pytestmark = pytest.mark.usefixtures("nothing_is_small")

# -- damage, and places where nothing can be written


@pytest.mark.parametrize("harmed", range(6))
@pytest.mark.parametrize("noticed", ["in its header", "when it is asked"])
def test_a_damaged_run_is_built_again_and_those_before_it_stay(tmp_path, harmed, noticed):
    grown(tmp_path)
    path = run_path(tmp_path, shards(6), harmed, harmed + 1)
    at = 20 if noticed == "in its header" else path.stat().st_size - 1
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    read = []

    def read_keys(number: int):
        read.append(number)
        return KEYS_OF[number]

    index = load_index(tmp_path, shards(6), read_keys, distrust=noticed == "when it is asked")
    assert read == [harmed]
    assert spans(index) == [(number, number + 1) for number in range(harmed)] + [(harmed, 6)]
    assert_right(index)
    assert (damaged_files(tmp_path, shards(6)) == [path]) == (noticed == "in its header" and harmed == 6)
    assert path.exists() == (noticed == "in its header" or harmed == 5)
    assert spans(load_index(tmp_path, shards(6), read_keys)) == spans(index)


def test_of_an_index_that_cannot_be_written_only_what_is_missing_is_in_memory(tmp_path):
    grown(tmp_path, 3)
    more, read = [*KEYS_OF[:3], RANDOM.integers(0, 256, (700, 16), np.uint8)], []
    these = listed([*NAMES[:3], "f"], list(map(len, more)))
    index = load_index(tmp_path, these, lambda number: read.append(number) or more[number], save=False)
    assert read == [3]
    assert spans(index) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert index.is_right(more.__getitem__)
    assert index.locate(more[3]).found.all()


def test_stale_used_and_damaged_files_are_told_apart(tmp_path):
    grown(tmp_path, 4)
    used = [run_path(tmp_path, shards(4), number, number + 1) for number in range(4)]
    assert used_files(tmp_path, shards(4)) == used
    assert used_files(tmp_path, shards(5)) is None
    assert stale_files(tmp_path, shards(4)) == []
    other = tmp_path / f"{0:016x}.idx"
    other.write_bytes(b"FSINDEX1")
    assert stale_files(tmp_path, shards(4)) == [other]
    used[1].write_bytes(used[1].read_bytes()[:-1] + b"\xff")
    assert damaged_files(tmp_path, shards(4)) == [used[1]]
    assert used[1] in stale_files(tmp_path, shards(4))


@pytest.mark.parametrize("at", [0, 20], ids=["magic", "fields"])
def test_a_single_run_with_a_damaged_header_is_a_damaged_file(tmp_path, at):
    load_index(tmp_path, shards(4), KEYS_OF.__getitem__)
    (path,) = tmp_path.iterdir()
    assert damaged_files(tmp_path, shards(4)) == []
    flip_bit(path, at)
    assert damaged_files(tmp_path, shards(4)) == [path]
    assert_right(load_index(tmp_path, shards(4), KEYS_OF.__getitem__), 4)
    assert damaged_files(tmp_path, shards(4)) == []


def test_runs_that_another_process_removes_meanwhile_are_not_missed(tmp_path):
    grown(tmp_path, 3)
    more = [*KEYS_OF[:3], RANDOM.integers(0, 256, (700, 16), np.uint8)]
    these = listed([*NAMES[:3], "f"], list(map(len, more)))

    def read_keys(number: int):
        for path in tmp_path.glob("*.idx"):
            path.unlink()
        return more[number]

    index = load_index(tmp_path, these, read_keys)
    assert spans(index) == [(0, 4)]
    assert index.is_right(more.__getitem__)
    assert used_files(tmp_path, these) == list(tmp_path.iterdir())


def test_runs_over_shards_of_others_are_not_used(tmp_path):
    grown(tmp_path)
    replaced = [*NAMES[:2], "f" * 32 + ".h5", *NAMES[3:]]
    arrays = [*KEYS_OF[:2], RANDOM.integers(0, 256, (80, 16), np.uint8), *KEYS_OF[3:]]
    read = []
    index = load_index(
        tmp_path,
        listed(replaced, list(map(len, arrays))),
        lambda number: read.append(number) or arrays[number],
    )
    assert read == [2], "one shard was replaced, at its place"
    assert index.locate(arrays[2]).found.all()
    assert not index.locate(KEYS_OF[2]).found.any()
    shifted = [NAMES[0], *NAMES[2:]]
    index = load_index(
        tmp_path,
        listed(shifted, [len(KEYS_OF[0]), *map(len, KEYS_OF[2:])]),
        lambda number: KEYS_OF[number + (number > 0)],
    )
    assert index.locate(KEYS_OF[2]).shard.tolist() == [1] * 80
    assert not index.locate(KEYS_OF[1]).found.any()


# -- in a store


def store_in_runs(path):
    """Return a store of two commits, and an index in two runs."""
    return fill(fill(create(path), sentences(30)).refreshed(), sentences(6, start=50)).refreshed()


def test_a_store_is_found_in_through_several_runs(tmp_path):
    store = store_in_runs(tmp_path / "store.fs")
    assert len(store.index.runs) == 2
    assert len(store.index) == 36
    assert len(store.get_many([*sentences(30), *sentences(6, start=50)])) == 36
    assert ("absent",) not in store
    collect(store.path, keep_last=1, older_than=0)
    assert len(list((store.path / "index").iterdir())) == 2


def test_repair_tells_a_wrong_run_from_a_right_one(tmp_path):
    store = store_in_runs(tmp_path / "store.fs")
    assert repair(store.path).sound
    run = store.index.runs[1]
    records = np.array(run.records)
    records[:, 2] = np.roll(records[:, 2], 1)
    these = shard_list(store.manifest)
    path = run_path(store.path / "index", these, run.first, run.stop)
    path.write_bytes(run_bytes(IndexRun.of([records], run.first, run.stop), these))
    assert repair(store.path, dry_run=True).index_rebuilt
    assert repair(store.path).index_rebuilt
    assert repair(store.path).sound
    assert len(Store.open(store.path).get_many([*sentences(30), *sentences(6, start=50)])) == 36


def test_a_run_without_a_key_that_its_shard_has_is_wrong():
    records = np.array(empty_index().extended(KEYS_OF[:2]).runs[0].records)
    whole, lacking = (IndexRun.of([part], 0, 2) for part in (records, records[1:]))
    more = IndexRun.of([np.append(records, [[7, 7, 1]], axis=0).astype(np.uint64)], 0, 2)
    elsewhere = records.copy()
    elsewhere[np.flatnonzero(records[:, 2] == 1 << 32), 2] = 0
    assert Index((whole,)).is_right(KEYS_OF.__getitem__)
    assert not Index((IndexRun.of([elsewhere], 0, 2),)).is_right(KEYS_OF.__getitem__), "it is not there"
    assert not Index((lacking,)).is_right(KEYS_OF.__getitem__)
    assert not Index((more,)).is_right(KEYS_OF.__getitem__)
