"""An index in several runs: extended, merged, damaged in part, and asked with and without compiled code."""

from __future__ import annotations

import math
import random
import struct
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.keyarrays import keys_array
from featurestore.native import SWITCH
from featurestore.store.index import compiled, covering
from featurestore.store.index.covering import cover, n_kept
from featurestore.store.index.filerows import DamagedIndexError
from featurestore.store.index.files import run_bytes, run_path
from featurestore.store.index.loading import damaged_files, load_index, stale_files, used_files
from featurestore.store.index.lookup import Index, empty_index
from featurestore.store.index.run import IndexRun
from featurestore.store.index.shardlist import ShardList
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.snapshot import shard_list
from featurestore.store.store import Store
from tests.kit.damage import flip_bit
from tests.kit.stores import create, fill, sentences
from tests.store.index.keys import KEY_LISTS, KEYS
from tests.store.index.saved import ABSENT, listed

RANDOM = np.random.default_rng(0)
KEYS_OF = [RANDOM.integers(0, 256, (n, 16), np.uint8) for n in (400, 180, 80, 35, 12, 5)]
"""Of shards that get a run each: none has as many keys as those after it together."""
NAMES = [f"{number:032x}.h5" for number in range(len(KEYS_OF))]


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(covering, "SMALL", 0)


def shards(n: int) -> ShardList:
    return listed(NAMES[:n], [len(keys) for keys in KEYS_OF[:n]])


def grown(directory, n: int = len(KEYS_OF), **options) -> Index:
    """Extend an index by a shard at a time."""
    for stop in range(1, n + 1):
        index = load_index(directory, shards(stop), KEYS_OF.__getitem__, **options)
    return index


def spans(index: Index) -> list[tuple[int, int]]:
    return [(run.first, run.stop) for run in index.runs]


def assert_right(index: Index, n: int = len(KEYS_OF)) -> None:
    for number, keys in enumerate(KEYS_OF[:n]):
        found = index.locate(keys)
        assert (found.shard == number).all()
        assert found.row.tolist() == list(range(len(keys)))
        assert index.locate(keys[3:4]).row.tolist() == [3]
    assert not index.locate(ABSENT).found.any()
    assert not index.locate(ABSENT[:1]).found.any()
    assert index.is_right(KEYS_OF.__getitem__)


# -- which runs there are


@dataclass
class Span:
    first: int
    stop: int
    n_keys: int


@pytest.mark.parametrize(
    "sizes", [[1] * 1000, list(range(500, 0, -1)), list(range(500))], ids=["equal", "falling", "rising"]
)
@pytest.mark.parametrize("shuffled", [False, True], ids=["", "shuffled"])
def test_runs_are_few_and_a_key_is_written_again_seldom(sizes, shuffled):
    if shuffled:
        random.Random(0).shuffle(sizes)
    files: list[Span] = []
    written = np.zeros(len(sizes), int)
    for stop in range(1, len(sizes) + 1):
        these = listed(["x"] * stop, sizes[:stop])
        pieces = cover(files, these)
        kept = pieces[: n_kept(pieces)]
        first = kept[-1].stop if kept else 0
        files = [piece.file for piece in kept] + [Span(first, stop, sum(sizes[first:stop]))]
        written[first:stop] += 1
        most = math.log2(max(2, sum(sizes[:stop])))
        assert len(files) <= most + 1
    assert written.max() <= most + 2


def test_a_shard_is_covered_once_and_by_as_few_files_as_can_be():
    these = listed(["x"] * 10, [5] * 10)
    files = [Span(0, 4, 20), Span(0, 6, 30), Span(4, 10, 30), Span(6, 8, 10), Span(8, 9, 5), Span(2, 9, 35)]
    assert [(piece.first, piece.stop) for piece in cover(files, these)] == [(0, 4), (4, 10)]
    pieces = cover([files[1], files[4]], these)
    assert [(piece.first, piece.stop, piece.file is None) for piece in pieces] == [
        (0, 6, False), (6, 8, True), (8, 9, False), (9, 10, True),
    ]  # fmt: skip
    assert n_kept(pieces) == 1, "what follows a gap is written with it"
    # The files overlap: what is left behind the first one lies between two edges, and is one piece.
    (_, left) = cover([Span(0, 2, 10), Span(1, 3, 10)], listed(["x"] * 4, [9, 5, 5, 5]))
    assert (left.first, left.stop, left.n_keys, left.file) == (2, 4, 10, None)
    assert cover([], listed([])) == []
    assert [(piece.first, piece.stop) for piece in cover([], these)] == [(0, 10)]


@settings(max_examples=40)
@given(st.lists(st.lists(KEYS, unique=True, max_size=8), max_size=6), KEY_LISTS, st.data())
def test_an_index_on_disk_that_grows_is_a_dictionary(tmp_path_factory, found, asked, data):
    directory, arrays = tmp_path_factory.mktemp("index"), [keys_array(keys) for keys in found]
    model: dict[bytes, tuple[int, int]] = {}
    for shard, keys in enumerate(found):
        for row, key in enumerate(keys):
            model.setdefault(key, (shard, row))
        these = listed(NAMES[: shard + 1], list(map(len, arrays[: shard + 1])))
        index = load_index(
            directory, these, arrays.__getitem__, most_in_memory=data.draw(st.sampled_from([0, 1000])),
            access=data.draw(st.sampled_from(["mmap", "pread"])),
        )  # fmt: skip
        located = index.locate(keys_array([*asked, *model]))
        places = list(zip(located.shard.tolist(), located.row.tolist(), strict=True))
        assert places == [model.get(key, (-1, -1)) for key in (*asked, *model)]
        assert sorted(index.with_prefix("")) == sorted(model.values())
        assert len(index) == len(model)
        assert index.is_right(arrays.__getitem__)


def test_an_extension_writes_its_shard_and_leaves_the_rest(tmp_path):
    grown(tmp_path, 2)
    before = {path: path.stat() for path in tmp_path.iterdir()}
    read = []
    index = load_index(tmp_path, shards(3), lambda number: read.append(number) or KEYS_OF[number])
    assert read == [2]
    assert spans(index) == [(0, 1), (1, 2), (2, 3)]
    after = {path: path.stat() for path in tmp_path.iterdir()}
    assert {path: after[path] for path in before} == before
    (new,) = set(after) - set(before)
    assert after[new].st_size < 4000


def test_an_extension_does_not_read_the_runs_that_stay(tmp_path, monkeypatch):
    grown(tmp_path, 2)
    verified = []
    verify = IndexRun.verify
    monkeypatch.setattr(IndexRun, "verify", lambda run: verified.append((run.first, run.stop)) or verify(run))
    assert_right(grown(tmp_path, 5), 5)
    assert (0, 1) not in verified[: -len(KEYS_OF)]


@pytest.mark.parametrize("access", ["mmap", "pread"])
@pytest.mark.parametrize("most_in_memory", [0, 1 << 18])
def test_runs_of_every_kind_answer(tmp_path, access, most_in_memory):
    index = grown(tmp_path, access=access, most_in_memory=most_in_memory)
    assert spans(index) == [(number, number + 1) for number in range(6)]
    assert_right(index)
    assert_right(load_index(tmp_path, shards(6), KEYS_OF.__getitem__, access=access))
    # As many keys at once as those of the runs take them all in.
    more = [*KEYS_OF, RANDOM.integers(0, 256, (712, 16), np.uint8)]
    these = listed([*NAMES, "ff"], list(map(len, more)))
    index = load_index(tmp_path, these, more.__getitem__, access=access, most_in_memory=most_in_memory)
    assert spans(index) == [(0, 7)]
    assert index.is_right(more.__getitem__)
    assert index.locate(more[6]).row.tolist() == list(range(712))


def test_runs_that_are_small_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(covering, "SMALL", 100)
    assert spans(grown(tmp_path)) == [(0, 1), (1, 2), (2, 4), (4, 6)]


def test_an_index_of_an_earlier_version_is_read_and_built_on(tmp_path):
    """It lacks the first shard, which was always 0."""
    run = empty_index().extended(KEYS_OF[:2]).runs[0]
    new, these = run_bytes(run, shards(2)), shards(2)
    fields = struct.pack("<8sQQQQ32s", b"FSINDEX2", len(run), 2, run.bits, run.largest, these.digest(0, 2))
    header = (fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little")).ljust(128, b"\0")
    path = run_path(tmp_path, these, 0, 2)
    path.write_bytes(header + new[128:])

    def fail(number: int):
        raise AssertionError(f"read shard {number}")

    assert_right(load_index(tmp_path, these, fail), 2)
    index = grown(tmp_path, 3)
    assert spans(index) == [(0, 2), (2, 3)]
    assert_right(index, 3)
    assert path.read_bytes() == header + new[128:]


# -- with and without compiled code


@pytest.mark.parametrize("n", [0, 1, 7, 5000])
def test_compiled_code_answers_as_numpy_does(monkeypatch, n):
    arrays = [np.random.default_rng(seed).integers(0, 256, (n, 16), np.uint8) for seed in range(5)]
    for number, keys in enumerate(arrays):
        keys[1:4, :8] = keys[:1, :8]
        keys[4:6] = arrays[number - 1][4:6]  # in the run before too
    index = empty_index()
    for keys in arrays:
        index = index.extended([keys])
    if compiled.compiled_lookup(index.runs) is None:
        pytest.skip("lookup.c was not compiled here")
    asked = np.concatenate([*arrays, ABSENT])
    asked = asked[np.random.default_rng(9).permutation(len(asked))]
    ours = index.locate(asked)
    monkeypatch.setenv(SWITCH, "0")
    by_numpy = Index(index.runs)
    assert by_numpy._compiled is None
    theirs = by_numpy.locate(asked)
    np.testing.assert_array_equal(ours.shard, theirs.shard)
    np.testing.assert_array_equal(ours.row, theirs.row)
    for key in asked[:40]:
        one = by_numpy.locate(key[None])
        assert (one.shard.tolist(), one.row.tolist()) == tuple(
            map(np.ndarray.tolist, vars(index.locate(key[None])).values())
        )
    assert n == 0 or ours.found.sum() >= 5 * n


HARMS = {
    "check": lambda run: run.table[:-1, 1].__iadd__(np.uint64(1)),
    "edge behind": lambda run: run.table[1:-1, 0].__iadd__(np.uint64(1)),
    "edge beyond": lambda run: run.table[1:, 0].__iadd__(np.uint64(10**6)),
    "edge far beyond": lambda run: run.table[1:, 0].__iadd__(np.uint64(1 << 63)),
    "records": lambda run: run.records.__setitem__(slice(None), run.records[::-1].copy()),
    "no records": lambda run: run.records.__setitem__(slice(None), 0),
}


@pytest.mark.parametrize("harm", [pytest.param(harm, id=name) for name, harm in HARMS.items()])
@pytest.mark.parametrize("switch", ["1", "0"])
def test_damage_is_noticed_by_both(monkeypatch, harm, switch):
    monkeypatch.setenv(SWITCH, switch)
    index = empty_index().extended([KEYS_OF[0]]).extended([KEYS_OF[1]])
    harm(index.runs[1])
    damaged = Index(index.runs)
    assert damaged.locate(KEYS_OF[0]).found.all(), "found in the run before"
    with pytest.raises(DamagedIndexError):
        damaged.locate(np.concatenate([KEYS_OF[1], ABSENT]))
    with pytest.raises(DamagedIndexError):
        deque((damaged.locate(key[None]) for key in KEYS_OF[1]), maxlen=0)


@pytest.mark.parametrize("switch", ["1", "0"])
@pytest.mark.parametrize("place", [0, 2 << 32, (1 << 32) + 180])
def test_places_outside_the_run_are_noticed_by_both(monkeypatch, switch, place):
    monkeypatch.setenv(SWITCH, switch)
    sound = empty_index().extended([KEYS_OF[0]]).extended([KEYS_OF[1]]).runs
    records = sound[1].records.copy()
    records[:, 2] = place
    forged = IndexRun.of([records], 1, 2, shards(2).sizes)
    index = Index((replace(sound[0], sizes=shards(2).sizes), forged))
    with pytest.raises(DamagedIndexError, match="points"):
        index.locate(KEYS_OF[1])
    with pytest.raises(DamagedIndexError, match="points"):
        index.locate(KEYS_OF[1][:1])
    assert not index.is_right(KEYS_OF.__getitem__)


def test_keys_that_all_fall_into_one_bucket_are_left_to_numpy():
    keys = np.zeros((3000, 16), np.uint8)
    keys[:, 8:] = np.arange(3000, dtype=">u8").view(np.uint8).reshape(-1, 8)
    index = empty_index().extended([keys])
    assert index._compiled is None
    assert index.locate(keys).row.tolist() == list(range(3000))
    assert index.locate(keys[7:8]).row.tolist() == [7]
    absent = np.full((1, 16), 255, np.uint8)
    absent[:, :8] = 0
    assert not index.locate(absent).found.any()


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
