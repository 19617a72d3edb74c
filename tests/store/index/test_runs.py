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
from featurestore.store.index.loading import load_index
from featurestore.store.index.lookup import Index, empty_index
from featurestore.store.index.run import IndexRun
from tests.store.index.keys import KEY_LISTS, KEYS
from tests.store.index.runs import (
    KEYS_OF,
    NAMES,
    RANDOM,
    assert_right,
    grown,
    shards,
    spans,
)
from tests.store.index.saved import ABSENT, listed

pytestmark = pytest.mark.usefixtures("nothing_is_small")

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
