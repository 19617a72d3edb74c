"""Damage of every kind is an error that names the thing, never a wrong vector."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from featurestore.errors import DamagedStoreError
from featurestore.keys import sentence_key
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit, forge_head, forge_index, index_path, value_offset
from tests.kit.stores import (
    ODD_SENTENCES,
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    shard_path,
    vectors_of,
)

N = 30


@pytest.fixture(params=["mmap", "pread"])
def access(request) -> str:
    return request.param


@pytest.fixture
def store(tmp_path) -> Store:
    """Thirty sentences in shards of a few, sound."""
    store = fill(create(tmp_path / "store.fs", shard_bytes=512), sentences(N))
    assert list(verify(store)) == []
    return store


def damaged_row(store: Store) -> tuple[int, int]:
    """Return (shard, row) of sentence 7, whose damage the tests below look for."""
    locations = store.locate([sentence_key(sentence(7))])
    return int(locations.shard[0]), int(locations.row[0])


# -- vectors


def test_flipped_bit_of_a_vector_is_named(store, access):
    shard, row = damaged_row(store)
    flip_bit(shard_path(store, shard), value_offset(store, shard, row) + 5)
    opened = Store.open(store.path, access=access)
    with pytest.raises(DamagedStoreError) as caught:
        opened.get(sentence(7))
    message = str(caught.value)
    assert str(shard_path(store, shard)) in message
    assert f"sentence {row} (key {sentence_key(sentence(7)).hex()}, 's7 the cat')" in message
    assert_holds(opened, [tokens for tokens in sentences(N) if tokens != sentence(7)])
    with pytest.raises(DamagedStoreError):
        opened.get(sentence(7))


def test_flipped_bit_passes_only_where_checking_was_switched_off(store, access):
    shard, row = damaged_row(store)
    flip_bit(shard_path(store, shard), value_offset(store, shard, row))
    found = Store.open(store.path, check="never", access=access).get(sentence(7))
    assert (found != vectors_of(sentence(7))).sum() == 1


def test_damage_after_the_first_reading_is_found_when_always_checking(store, access):
    shard, row = damaged_row(store)
    always = Store.open(store.path, check="always", access=access)
    always.get(sentence(7))
    flip_bit(shard_path(store, shard), value_offset(store, shard, row))
    with pytest.raises(DamagedStoreError):
        always.get(sentence(7))


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_every_byte_of_a_sentence_is_covered(tmp_path, codec):
    store = fill(create(tmp_path / "store.fs", codec=codec), [sentence(2)])
    path, start = shard_path(store), value_offset(store, 0, 0)
    for offset in range(start, path.stat().st_size, 3):
        flip_bit(path, offset, offset % 8)
        with pytest.raises(DamagedStoreError):
            Store.open(store.path).get(sentence(2))
        flip_bit(path, offset, offset % 8)
    assert_holds(Store.open(store.path), [sentence(2)])


# -- structure


@pytest.mark.parametrize("dataset", ["keys", "offsets", "checksums", "token_offsets", "tokens"])
def test_flipped_bit_of_the_structure_closes_the_shard(store, dataset, access):
    shard, _ = damaged_row(store)
    extent = store.manifest.shards[shard].extents[dataset]
    flip_bit(shard_path(store, shard), extent.offset + extent.n_bytes // 2)
    with pytest.raises(DamagedStoreError, match=r"its structure .* is not what was committed"):
        Store.open(store.path, access=access).get(sentence(7))


def test_any_flipped_bit_of_the_head_closes_the_shard(store):
    path = shard_path(store, 0)
    for offset in range(0, store.manifest.shards[0].extents["values"].offset, 499):
        flip_bit(path, offset, offset % 8)
        with pytest.raises(DamagedStoreError):
            Store.open(store.path).reader(0)
        flip_bit(path, offset, offset % 8)


def test_int8_scales_and_norms_are_covered(tmp_path):
    store = fill(create(tmp_path / "store.fs", codec="int8"), sentences(4))
    for dataset in ("scales", "norms"):
        offset = store.manifest.shards[0].extents[dataset].offset
        flip_bit(shard_path(store), offset)
        with pytest.raises(DamagedStoreError):
            Store.open(store.path).get(sentence(1))
        flip_bit(shard_path(store), offset)


# -- files


def cut(path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def link_elsewhere(path) -> None:
    copy = path.with_name("copy")
    path.rename(copy)
    path.symlink_to(copy)


def make_pipe(path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, "expected .*: it was cut or overwritten"),
        (grow, "expected .*: it was cut or overwritten"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
        (lambda path: path.unlink(), "is missing .* sentences.: restore"),
        (link_elsewhere, "cannot be opened"),
        (make_pipe, "cannot be opened"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is damaged"),
    ],
    ids=["cut", "grown", "empty", "missing", "link", "pipe", "zeroed"],
)
def test_shard_that_is_not_the_committed_file_is_refused_and_found(store, access, harm, message):
    shard, _ = damaged_row(store)
    path = shard_path(store, shard)
    harm(path)
    opened = Store.open(store.path, access=access)
    with pytest.raises(DamagedStoreError, match=message):
        opened.get(sentence(7))
    for quick in (False, True):
        assert [finding.shard for finding in verify(opened, quick=quick)] == [path.name]


def test_swapped_shards_are_refused(tmp_path):
    store = fill(create(tmp_path / "store.fs", shard_bytes=1), [("aa", "b"), ("cc", "d")])
    one, other = shard_path(store, 0), shard_path(store, 1)
    assert one.stat().st_size == other.stat().st_size
    swap = store.path / "swap"
    one.rename(swap)
    other.rename(one)
    swap.rename(other)
    opened = Store.open(store.path)
    for tokens in (("aa", "b"), ("cc", "d")):
        with pytest.raises(DamagedStoreError):
            opened.get(tokens)
    assert {finding.shard for finding in verify(opened)} == {one.name, other.name}


def test_shard_of_another_recipe_is_found(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    other_recipe = type(store.recipe)({"kind": "other", "version": 1})
    other = fill(create(tmp_path / "other.fs", recipe=other_recipe), sentences(3))
    shutil.copy(shard_path(other), store.path / "shards")
    mixed = Store(
        store.path, type(store.manifest)(**{**vars(store.manifest), "shards": other.manifest.shards})
    )
    assert any("holds vectors of recipe" in str(finding) for finding in verify(mixed, quick=True))


# -- the index


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: flip_bit(path, 70),
        lambda path: flip_bit(path, 3),
        lambda path: flip_bit(path, path.stat().st_size - 1),
        lambda path: flip_bit(path, 16),
        lambda path: flip_bit(path, 8),
        cut,
        grow,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"FSINDEX1" + bytes(56)),
        link_elsewhere,
        make_pipe,
        lambda path: shutil.rmtree(path.parent),
    ],
    ids=["deleted", "key", "magic", "row", "n_shards", "n_keys", "cut", "grown", "empty", "zeroed", "link",
         "pipe", "no directory"],
)  # fmt: skip
def test_damaged_index_is_rebuilt(store, harm):
    harm(index_path(store))
    assert_holds(Store.open(store.path), sentences(N))
    assert ("absent",) not in Store.open(store.path)


def test_index_of_an_earlier_commit_is_extended(store):
    earlier = index_path(store).read_bytes()
    path = index_path(store)
    store = fill(store, sentences(10, start=100))
    shutil.rmtree(store.path / "index")
    path.parent.mkdir()
    path.write_bytes(earlier)
    assert_holds(Store.open(store.path), sentences(N) + sentences(10, start=100))


def test_index_of_another_store_is_not_believed(store, tmp_path):
    other = fill(create(tmp_path / "other.fs", shard_bytes=512), reversed(sentences(N)))
    path = index_path(store)
    path.write_bytes(index_path(other).read_bytes())
    assert_holds(Store.open(store.path), sentences(N))


@pytest.mark.parametrize("forge", ["rows", "shards", "rows outside", "shards outside"])
def test_index_that_points_elsewhere_never_yields_a_wrong_vector(store, forge):
    shard, row = np.array(store.index.shard), np.array(store.index.row)
    if forge == "rows":
        row = np.roll(row, 1)
    elif forge == "shards":
        shard = np.roll(shard, 1)
    elif forge == "rows outside":
        row += 10**6
    else:
        shard += 10**6
    forge_index(store, shard=shard, row=row)
    opened = Store.open(store.path)
    n_refused = 0
    for tokens in sentences(N):
        try:
            np.testing.assert_array_equal(opened.get(tokens), vectors_of(tokens))
        except DamagedStoreError:
            n_refused += 1
    # What points outside a shard is noticed when the index is read, and the index built again.
    assert n_refused > N // 2 if forge in ("rows", "shards") else n_refused == 0


# -- what only a stranger would write: hashes that fit, contents that do not make sense


@pytest.mark.parametrize("value", [0, 2**63, 2**64 - 1, 10**6])
@pytest.mark.parametrize("dataset", ["offsets", "token_offsets"])
def test_offsets_that_lead_nowhere_are_refused(store, dataset, value):
    forged = forge_head(store, dataset, 8, value.to_bytes(8, "little"))
    with pytest.raises(DamagedStoreError, match=f"/{dataset} does not ascend"):
        forged.reader(0)


def test_tokens_that_are_not_text_are_refused_and_found(store):
    forged = forge_head(store, "tokens", 0, b"\xff")
    with pytest.raises(DamagedStoreError, match="not UTF-8"):
        list(forged.sentences())
    assert any("not UTF-8" in str(finding) for finding in verify(forged))


def test_key_of_other_tokens_is_found(store):
    (finding,) = verify(forge_head(store, "keys", 16, bytes(16)))
    assert (finding.sentence, finding.problem) == (1, "the key is not that of the tokens")


# -- verify


def test_verify_names_shard_and_sentence_of_a_damaged_vector(store):
    shard, row = damaged_row(store)
    flip_bit(shard_path(store, shard), value_offset(store, shard, row))
    (finding,) = verify(store)
    assert (finding.shard, finding.sentence) == (shard_path(store, shard).name, row)
    assert finding.key == sentence_key(sentence(7)).hex()
    assert "'s7 the cat'" in str(finding)


def test_verify_finds_every_damaged_sentence(store):
    for shard in (0, 2):
        for row in range(len(store.reader(shard))):
            flip_bit(shard_path(store, shard), value_offset(store, shard, row))
    found = {(finding.shard, finding.sentence) for finding in verify(store)}
    assert found == {
        (shard_path(store, shard).name, row) for shard in (0, 2) for row in range(len(store.reader(shard)))
    }


def test_quick_verify_reads_no_vectors(store):
    shard, row = damaged_row(store)
    flip_bit(shard_path(store, shard), value_offset(store, shard, row))
    assert list(verify(store, quick=True)) == []


def test_verify_finds_a_manifest_damaged_since_it_was_opened(store):
    path = store.path / "manifests" / f"{store.snapshot:08d}.json"
    flip_bit(path, path.read_bytes().index(b'"codec"') + 12)
    assert [finding.shard for finding in verify(store)] == [""]


def test_verify_reports_progress_in_bytes(store):
    seen: list[int] = []
    list(verify(store, progress=seen.append))
    assert sum(seen) == store.n_bytes


@pytest.mark.parametrize("arguments", [[], ["--quick"], ["--json"]])
def test_verify_command_exits_with_3(store, arguments):
    shard, _ = damaged_row(store)
    cut(shard_path(store, shard))
    command = [sys.executable, "-m", "featurestore", "verify", str(store.path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert shard_path(store, shard).name in done.stdout


def test_odd_tokens_are_verified_too(tmp_path):
    store = fill(create(tmp_path / "store.fs"), ODD_SENTENCES)
    assert list(verify(store)) == []


def test_verify_finds_a_damaged_manifest_of_an_earlier_snapshot(store):
    store = fill(store, [sentence(90)])
    flip_bit(store.path / "manifests" / f"{store.snapshot - 1:08d}.json", 40)
    [found] = verify(store)
    assert f"{store.snapshot - 1:08d}.json" in found.problem
    assert list(verify(store, quick=True)) == []
