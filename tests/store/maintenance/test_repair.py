"""repair: what is damaged is set aside, what is sound stays, and nothing is deleted."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurestore.disk.filesystem import LOCAL
from featurestore.errors import DamagedStoreError, NotAStoreError, StoreWriteError
from featurestore.recipe import Recipe
from featurestore.store.format.directory import list_numbers, manifest_path, publish
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit, forge_index, index_path, value_offset
from tests.kit.faulty import InterruptedFileSystem, Stopping
from tests.kit.stores import (
    CONDITIONED_SENTENCES,
    ODD_SENTENCES,
    assert_holds,
    create,
    fill,
    sentences,
    shard_path,
    vectors_of,
)

N = 24
EVERY = 1 if os.environ.get("FEATURESTORE_LONG_TESTS") else 3
"""Operations from one stop of a repair to the next."""


@pytest.fixture
def store(tmp_path) -> Store:
    """A store of at least four shards, one snapshot each."""
    store = fill(create(tmp_path / "store.fs", shard_bytes=500), sentences(N))
    assert len(store.manifest.shards) >= 4
    return store


def rows_of(store: Store, shard: int) -> list[tuple[str, ...]]:
    return [tokens for number, _, tokens in store.sentences() if number == shard]


def damage_vector(store: Store, shard: int) -> None:
    flip_bit(shard_path(store, shard), value_offset(store, shard, 0))


def everything(path: Path) -> set[bytes]:
    """Return the content of every manifest and shard in a store, wherever it lies."""
    return {file.read_bytes() for file in path.rglob("*") if file.suffix in (".h5", ".json")}


def assert_sound(path: Path) -> Store:
    opened = Store.open(path)
    assert list(verify(opened)) == []
    assert repair(path).sound
    return opened


# -- shards


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_head(path: Path) -> None:
    os.truncate(path, 100)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def link_elsewhere(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "readable"),
    [
        (cut, True),
        (grow, True),
        (cut_head, False),
        (lambda path: flip_bit(path, path.stat().st_size - 1), True),
        (lambda path: flip_bit(path, 4000), False),
        (lambda path: path.write_bytes(b""), False),
        (Path.unlink, False),
        (link_elsewhere, False),
        (make_folder, False),
    ],
    ids=["cut", "grown", "cut in the head", "vector", "head", "empty", "missing", "link", "folder"],
)
def test_damaged_shard_is_set_aside_and_the_rest_stays(store, harm, readable):
    path, lost = shard_path(store, 1), rows_of(store, 1)
    kept = [tokens for tokens in sentences(N) if tokens not in lost]
    harm(path)
    missing = not os.path.lexists(path)
    done = repair(store.path)
    assert [damaged.name for damaged in done.shards] == [f"shards/{path.name}"]
    assert (done.unreferenced, done.manifests, done.adopted) == ([], [], [])
    assert not os.path.lexists(path)
    assert os.path.lexists(store.path / "damaged" / path.name) == (not missing)
    assert list(done.lost_sentences()) == (lost if readable else [])
    assert sum(shard.entry.n_sentences for shard in done.unreadable()) == (0 if readable else len(lost))
    opened = assert_sound(store.path)
    assert opened.snapshot == store.snapshot + 1
    assert [tokens for _, _, tokens in opened.sentences()] == kept
    assert_holds(opened, kept)
    healed = fill(opened, sentences(N))
    assert_holds(healed, sentences(N))
    assert {shard.name for shard in healed.manifest.shards} == {shard.name for shard in store.manifest.shards}


def test_sound_store_is_left_alone(store):
    before = list_numbers(store.path)
    done = repair(store.path)
    assert done.sound
    assert list(done.lost_sentences()) == []
    assert list_numbers(store.path) == before
    assert not (store.path / "damaged").exists()


def test_dry_run_finds_the_same_and_changes_nothing(store):
    damage_vector(store, 1)
    shard_path(store, 2).unlink()
    manifest_path(store.path, store.snapshot).write_bytes(b"{}")
    before = {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    planned = repair(store.path, dry_run=True)
    assert {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()} == before
    lost = list(planned.lost_sentences())
    done = repair(store.path)
    assert list(done.lost_sentences()) == lost
    assert (done.shards, done.manifests, done.adopted) == (planned.shards, planned.manifests, planned.adopted)
    assert done.result.shards == planned.result.shards


def test_file_set_aside_before_is_not_overwritten(store):
    path, contents = shard_path(store, 1), []
    for byte in (1, 5, 9):
        flip_bit(path, path.stat().st_size - byte)
        contents.append(path.read_bytes())
        repair(store.path)
        assert_holds(fill(Store.open(store.path), sentences(N)), sentences(N))
        assert path.exists()
    assert sorted(file.read_bytes() for file in (store.path / "damaged").iterdir()) == sorted(contents)


def test_nothing_is_ever_deleted(store, tmp_path):
    damage_vector(store, 0)
    cut_head(shard_path(store, 1))
    manifest_path(store.path, 3).write_bytes(b"no manifest")
    (store.path / "shards" / ("0" * 32 + ".h5")).write_bytes(b"no shard")
    before = everything(store.path)
    repair(store.path)
    assert before <= everything(store.path)


def test_shard_of_another_recipe_is_set_aside(tmp_path, store):
    other = fill(
        create(tmp_path / "o.fs", recipe=Recipe({"kind": "test", "version": 2})), sentences(4, start=90)
    )
    shutil.copy(shard_path(other), store.path / "shards")
    done = repair(store.path)
    (stray,) = done.unreferenced
    assert "holds vectors of recipe" in stray.problem
    assert len(Store.open(store.path)) == N


def test_shard_of_another_shape_is_not_adopted(tmp_path, store):
    other = fill(create(tmp_path / "other.fs", dim=4), sentences(4, start=90))
    shutil.copy(shard_path(other), store.path / "shards")
    (stray,) = repair(store.path).unreferenced
    assert "shape" in stray.problem
    assert_sound(store.path)


# -- what is to be extracted again


def test_lost_sentences_keep_odd_tokens_and_conditions(tmp_path):
    wanted = [*ODD_SENTENCES, *CONDITIONED_SENTENCES]
    store = fill(create(tmp_path / "store.fs", shard_bytes=1 << 20), wanted)
    damage_vector(store, 0)
    assert list(repair(store.path).lost_sentences()) == wanted


def test_what_a_killed_repair_left_is_lost_only_until_it_is_stored_again(store):
    path, lost = shard_path(store, 0), rows_of(store, 0)
    damage_vector(store, 0)
    repair(store.path)
    aside = store.path / "damaged" / path.name
    aside.rename(path)  # as if the repair had been killed between its snapshot and this file
    assert list(repair(store.path).lost_sentences()) == lost
    fill(Store.open(store.path), reversed(lost))  # into another shard
    aside.rename(path)
    done = repair(store.path)
    assert [stray.name for stray in done.unreferenced] == [f"shards/{path.name}"]
    assert done.stray is done.unreferenced  # its old name
    assert list(done.lost_sentences()) == []
    assert_holds(assert_sound(store.path), sentences(N))


# -- manifests


def test_damaged_last_manifest_costs_nothing_whose_shard_is_sound(store):
    manifest_path(store.path, store.snapshot).write_bytes(b"{}")
    with pytest.raises(DamagedStoreError):
        Store.open(store.path)
    done = repair(store.path)
    assert [damaged.name for damaged in done.manifests] == [f"manifests/{store.snapshot:08d}.json"]
    assert [entry.name for entry in done.adopted] == [store.manifest.shards[-1].name]
    opened = assert_sound(store.path)
    assert opened.snapshot == store.snapshot + 1
    assert_holds(opened, sentences(N))
    assert len(opened) == N
    entry = opened.manifest.shards[-1]
    assert (entry.head_sha256, entry.n_tokens, entry.extents) == (
        store.manifest.shards[-1].head_sha256,
        store.manifest.shards[-1].n_tokens,
        store.manifest.shards[-1].extents,
    )


def test_all_manifests_but_the_first_damaged(store):
    for number in range(2, store.snapshot + 1):
        manifest_path(store.path, number).write_bytes(b"")
    done = repair(store.path)
    assert len(done.adopted) == len(store.manifest.shards)
    assert_holds(assert_sound(store.path), sentences(N))


def test_number_of_a_damaged_manifest_is_not_used_again(store):
    manifest_path(store.path, store.snapshot).write_bytes(b"{}")
    repair(store.path)
    assert list_numbers(store.path)[-1] == store.snapshot + 1
    assert store.snapshot not in list_numbers(store.path)


def test_damaged_earlier_manifest_is_set_aside_without_a_new_snapshot(store):
    manifest_path(store.path, 2).write_bytes(b"{}")
    assert [damaged.name for damaged in repair(store.path).manifests] == ["manifests/00000002.json"]
    assert list_numbers(store.path)[-1] == store.snapshot
    assert_holds(assert_sound(store.path), sentences(N))


def test_store_without_any_sound_manifest_is_left_as_it_is(store):
    for number in list_numbers(store.path):
        manifest_path(store.path, number).write_bytes(b"{}")
    before = {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    with pytest.raises(DamagedStoreError, match=r"no manifest of .* is sound"):
        repair(store.path)
    assert {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()} == before


def test_store_that_gc_left_survives_a_damaged_manifest(store):
    path = store.path
    del store
    collect(path, older_than=0)
    manifest_path(path, list_numbers(path)[-1]).write_bytes(b"{}")
    repair(path)
    assert_holds(assert_sound(path), sentences(N))


# -- shards of killed writers


def test_shard_of_a_killed_writer_is_taken_in(tmp_path, store):
    other = fill(create(tmp_path / "other.fs"), sentences(4, start=90))
    shutil.copy(shard_path(other), store.path / "shards")
    assert [entry.name for entry in repair(store.path).adopted] == [shard_path(other).name]
    assert_holds(assert_sound(store.path), [*sentences(N), *sentences(4, start=90)])


def test_shard_of_a_killed_writer_that_repeats_sentences_is_left_to_gc(tmp_path, store):
    other = fill(create(tmp_path / "other.fs"), sentences(4, start=N - 1))
    shutil.copy(shard_path(other), store.path / "shards")
    assert repair(store.path).sound
    assert len(Store.open(store.path)) == N


def test_shard_that_repeats_sentences_is_taken_in_where_it_may_have_been_committed(tmp_path, store):
    other = fill(create(tmp_path / "other.fs"), sentences(4, start=N - 1))
    shutil.copy(shard_path(other), store.path / "shards")
    manifest_path(store.path, store.snapshot + 1).write_bytes(b"{}")
    repair(store.path)
    assert_holds(Store.open(store.path), sentences(N + 3))


# -- the index


@pytest.mark.parametrize("forge", ["rows", "missing", "damaged"])
def test_index_is_built_again(store, forge):
    path = index_path(store)
    if forge == "rows":
        forge_index(store, row=np.zeros_like(store.index.row))
    elif forge == "missing":
        path.unlink()
    else:
        flip_bit(path, 80)
    assert repair(store.path, dry_run=True).index_rebuilt
    assert repair(store.path).index_rebuilt
    assert_holds(assert_sound(store.path), sentences(N))


# -- interrupted, and at the same time as others


def test_repair_stopped_at_any_operation_goes_on(store):
    lost = rows_of(store, 1)
    kept = [tokens for tokens in sentences(N) if tokens not in lost]
    damage_vector(store, 1)
    manifest_path(store.path, store.snapshot).write_bytes(b"{}")
    before = everything(store.path)
    for step in itertools.count(0, EVERY):
        path = store.path.with_name(f"{step}.fs")
        shutil.copytree(store.path, path)
        stopping = Stopping(step)
        with contextlib.suppress(StoreWriteError):
            repair(path, filesystem=stopping)
        repair(path)
        assert before <= everything(path)
        opened = Store.open(path)
        assert list(verify(opened)) == []
        assert [tokens for _, _, tokens in opened.sentences()] == kept
        assert_holds(opened, kept)
        if stopping.n_steps <= step:
            break
    assert step > 15


def test_writer_goes_on_through_a_repair(store):
    session = Store.open(store.path).write()
    lost = rows_of(store, 1)
    damage_vector(store, 1)
    repair(store.path)
    for tokens in sentences(6, start=300):
        session.add(tokens, vectors_of(tokens))
    session.flush()
    session.close()
    opened = assert_sound(store.path)
    kept = [tokens for tokens in sentences(N) if tokens not in lost]
    assert_holds(opened, [*kept, *sentences(6, start=300)])
    assert len(opened) == len(kept) + 6


def test_a_commit_from_where_locks_do_not_reach_stops_a_repair(store):
    damage_vector(store, 0)
    shards = sorted((store.path / "shards").iterdir())

    def commit_elsewhere() -> None:
        assert publish(store.path, replace(store.manifest, number=store.snapshot + 1))

    overtaken = InterruptedFileSystem(
        LOCAL,
        lambda operation: operation.kind == "link" and operation.path.parent.name == "manifests",
        commit_elsewhere,
    )
    with pytest.raises(StoreWriteError, match=r"another writer committed to .* meanwhile"):
        repair(store.path, filesystem=overtaken)
    assert sorted((store.path / "shards").iterdir()) == shards
    assert not repair(store.path).sound
    assert_sound(store.path)


def test_what_is_no_store_is_left_alone(tmp_path):
    with pytest.raises(NotAStoreError):
        repair(tmp_path)
    assert list(tmp_path.iterdir()) == []
