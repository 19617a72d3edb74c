"""Lists of shards: what is in them reads back, stays small, and is found when it is damaged."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest

from featurestore.errors import DamagedStoreError, StoreError, StoreWriteError
from featurestore.store.format.directory import list_numbers, manifest_path, read_manifest
from featurestore.store.format.layout import Extent
from featurestore.store.listing import shards as shards_module
from featurestore.store.listing.files import Kind, list_file
from featurestore.store.listing.rows import ROW, contradictory, entry_of, intact, problem_of, rows_of
from featurestore.store.listing.shards import MOST_INLINE, Part, Shards
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.maintenance.replacing import compact, remove
from featurestore.store.maintenance.selection import select
from featurestore.store.maintenance.snapshots import read_snapshots
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit
from tests.kit.faulty import Stopping
from tests.kit.stores import (
    CONDITIONED_SENTENCES,
    assert_holds,
    create,
    fill,
    sentences,
    stored_sentences,
    vectors_of,
)
from tests.store.listing.conftest import N_SHARDS, WANTED, commit_each


def list_paths(store: Store) -> list:
    """Return the files of the lists that the latest manifest names, the longest first."""
    return [store.path / "lists" / each.name for each in store.refreshed().manifest.shards.references]


# -- rows


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_row_says_what_its_entry_says(tmp_path, codec, n_layers):
    store = create(tmp_path / "store.fs", codec=codec, n_layers=n_layers)
    entries = tuple(fill(store, [*sentences(9), *CONDITIONED_SENTENCES]).manifest.shards)
    rows = rows_of(entries, store.token_shape)
    assert ROW.itemsize == 184
    assert [entry_of(row, store.token_shape) for row in rows] == list(entries)
    assert intact(rows).all()
    assert not problem_of(rows)
    assert not contradictory(rows, store.token_shape).any()
    for byte in range(ROW.itemsize):
        harmed = bytearray(rows[0].tobytes())
        harmed[byte] ^= 1
        assert not intact(np.frombuffer(bytes(harmed), ROW)).any(), byte


def test_an_entry_that_no_row_can_hold_is_refused(store):
    entry = fill(store, sentences(2)).manifest.shards[0]
    for odd in (
        replace(entry, extents={**entry.extents, "keys": Extent(0, "|u1", (7, 16))}),
        replace(
            entry, extents={**entry.extents, "keys": Extent(1 << 40, "|u1", entry.extents["keys"].shape)}
        ),
        replace(entry, extents={"values": entry.extents["values"]}),
    ):
        with pytest.raises(StoreError, match=entry.name):
            rows_of([odd], store.token_shape)


# -- what a commit writes


def test_a_manifest_holds_the_newest_entries_and_names_few_lists(tmp_path):
    store, sizes = create(tmp_path / "store.fs"), []
    with store.write() as session:
        for number, tokens in enumerate(sentences(100)):
            session.add(tokens, vectors_of(tokens))
            session.flush()
            shards = session.manifest.shards
            lengths = [each.n_shards for each in shards.references]
            assert sum(lengths) + len(shards.inline) == len(shards) == number + 1
            assert len(shards.inline) <= MOST_INLINE
            assert all(one >= 2 * other for one, other in itertools.pairwise(lengths))
            sizes.append(manifest_path(store.path, session.manifest.number).stat().st_size)
    # Ten times the shards, and no larger: one of version 1 would be of 100 kB.
    assert max(sizes[50:]) < 1.2 * max(sizes[:10])
    written = sum(path.stat().st_size for path in (store.path / "lists").iterdir())
    assert written < 100 * ROW.itemsize * 7
    assert stored_sentences(store) == sentences(100)
    assert_holds(store.refreshed(), sentences(100))


def test_many_shards_are_committed_by_one_manifest(tmp_path, listed):
    entries = tuple(listed.manifest.shards)
    target = create(tmp_path / "target.fs")
    shutil.copytree(listed.path / "shards", target.path / "shards", dirs_exist_ok=True)
    session = target.write()
    keys = np.concatenate([listed.keys_of(number) for number in range(N_SHARDS)])
    assert session.commit_placed(entries, keys, "float32")
    assert session.manifest == read_manifest(target.path)
    assert [each.n_shards for each in session.manifest.shards.references] == [N_SHARDS]
    session.close()
    assert stored_sentences(target) == WANTED


def test_lists_grow_no_longer_than_a_list_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module.limits, "MAX_LIST_SHARDS", 20)
    store = commit_each(create(tmp_path / "store.fs"), sentences(70))
    assert [each.n_shards for each in store.manifest.shards.references] == [18, 18, 18, 9]
    assert stored_sentences(store) == sentences(70)


def test_writers_of_lists_follow_each_other(listed):
    one, other = listed.write(), listed.refreshed().write()
    for number in range(100, 130):
        session = (one, other)[number % 2]
        tokens = sentences(1, start=number)[0]
        assert session.add(tokens, vectors_of(tokens))
        session.flush()
    one.close()
    other.close()
    assert stored_sentences(listed) == [*WANTED, *sentences(30, start=100)]
    assert list(verify(listed.refreshed())) == []


# -- what is read


def test_shards_of_lists_are_a_sequence(listed):
    shards = listed.manifest.shards
    entries = tuple(shards)
    assert len(entries) == len(shards) == N_SHARDS > len(shards.inline) > 0
    assert [shards[i] for i in range(-N_SHARDS, N_SHARDS)] == [*entries, *entries]
    assert shards[3:-2:4] == entries[3:-2:4]
    with pytest.raises(IndexError):
        shards[N_SHARDS]
    assert shards == entries == Shards(entries)
    assert shards != entries[:-1]
    assert shards != list(entries)
    assert repr(shards) == f"Shards({N_SHARDS}: {len(shards.parts)} lists, {len(shards.inline)} entries)"
    shards.require_distinct()
    with pytest.raises(ValueError, match="twice"):
        Shards([*entries, entries[3]]).require_distinct()
    assert shards.sizes.tolist() == [entry.n_sentences for entry in entries]
    assert shards.file_bytes.tolist() == [entry.n_bytes for entry in entries]
    assert shards.names() == [entry.name for entry in entries]
    assert shards.joined_names(4, 7).decode().split("\n") == shards.names()[4:7]
    assert shards.codecs() == {"float32": N_SHARDS}
    assert (shards.n_sentences, shards.n_tokens, shards.n_bytes) == (
        N_SHARDS, sum(map(len, WANTED)), sum(entry.n_bytes for entry in entries),
    )  # fmt: skip
    assert shards.error() == sum((entry.error for entry in entries[1:]), entries[0].error)
    assert shards.positions([entries[5].name, "0" * 32 + ".h5", entries[-1].name]).tolist() == [5, -1, 23]
    fewer = Shards(entries[:7])
    assert shards.besides(fewer).tolist() == list(range(7, N_SHARDS))
    assert fewer.besides(shards).tolist() == []
    assert shards.besides(Shards(entries[5:9])).tolist() == [*range(5), *range(9, N_SHARDS)]


def test_shards_whose_hashes_begin_alike_are_told_apart(listed):
    # Hashes that somebody made up: their first eight bytes, by which shards are looked up, are the same.
    entry = listed.manifest.shards[0]
    alike = Shards([replace(entry, sha256="ab" * 8 + f"{number:016x}" + "0" * 32) for number in range(3)])
    other = replace(entry, sha256="ab" * 8 + "f" * 48)
    alike.require_distinct()
    assert alike.positions([alike[2].name, alike[0].name, entry.name]).tolist() == [2, 0, -1]
    assert alike.besides(Shards([alike[1], other])).tolist() == [0, 2]


def test_a_quick_check_of_lists_names_every_shard_that_is_not_as_committed(listed):
    shards = listed.manifest.shards
    assert list(verify(listed, quick=True)) == []
    gone, cut, head, folder, link, values, last = (
        listed.path / "shards" / shards[number].name for number in (0, 1, 2, 3, 4, 5, -1)
    )
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    flip_bit(head, 100)
    folder.unlink()
    folder.mkdir()
    link.rename(link.with_suffix(".moved"))
    link.symlink_to(link.with_suffix(".moved"))
    flip_bit(values, values.stat().st_size - 1)
    flip_bit(last, 100)
    checked = []
    found = list(verify(listed, quick=True, progress=checked.append))
    assert [finding.shard for finding in found] == [
        path.name for path in (gone, cut, head, folder, link, last)
    ]
    assert [finding.is_gone for finding in found] == [True] + [False] * 5
    assert sum(checked) == shards.n_bytes
    assert values.name in {finding.shard for finding in verify(listed)}


def test_a_store_of_lists_is_pickled_without_them(listed):
    again = pickle.loads(pickle.dumps(listed))
    assert len(pickle.dumps(again.manifest.shards.parts)) < 2000
    assert_holds(again, WANTED)
    assert again.manifest == listed.manifest


def test_earlier_snapshots_keep_the_lists_that_were(listed):
    for number in list_numbers(listed.path):
        assert [t for _, _, t in Store.open(listed.path, snapshot=number).sentences()] == WANTED[: number - 1]


# -- what changes shards


def test_removed_and_joined_shards_leave_their_lists(listed):
    unwanted = select(listed, text="^s[0-9]*[05]( |$)")
    left = [tokens for i, tokens in enumerate(WANTED) if not len(unwanted.rows[i])]
    assert 2 < unwanted.n_sentences == N_SHARDS - len(left)
    remove(listed, unwanted)
    assert stored_sentences(listed) == left
    before = [part.reference for part in listed.refreshed().manifest.shards.parts]
    done = compact(listed.refreshed())
    assert done.n_after == len(listed.refreshed().manifest.shards) < 5
    assert before != [part.reference for part in listed.refreshed().manifest.shards.parts]
    assert set(stored_sentences(listed)) == set(left)
    assert list(verify(listed.refreshed())) == []


def test_a_list_without_changes_is_named_again(tmp_path):
    store = commit_each(create(tmp_path / "store.fs"), sentences(60))
    first, *others = store.manifest.shards.references
    assert others
    last = store.manifest.shards[first.n_shards + 1].name
    changed = store.manifest.shards.replaced({last: None})
    assert changed.references[0] == first
    assert len(changed) == 59


def test_gc_removes_the_lists_that_no_snapshot_names(listed):
    named = set(list_paths(listed))
    assert named < set((listed.path / "lists").iterdir())
    kept = collect(listed.path)  # all are younger than a day
    assert not [garbage for garbage in kept.removed if garbage.kind == "list"]
    done = collect(listed.path, keep_last=1, older_than=0)
    assert {garbage.kind for garbage in done.removed} >= {"manifest", "list"}
    assert set((listed.path / "lists").iterdir()) == named
    assert_holds(Store.open(listed.path), WANTED)


def test_gc_keeps_the_lists_of_an_open_snapshot(listed):
    held = Store.open(listed.path, snapshot=5)
    collect(listed.path, keep_last=1, older_than=0)
    assert_holds(pickle.loads(pickle.dumps(held)), WANTED[:4])


# -- damage


@pytest.mark.parametrize("harm", ["flipped", "missing", "cut", "longer", "another"])
def test_a_damaged_list_is_named_and_made_again(listed, harm):
    path = list_paths(listed)[0]
    entries = tuple(listed.manifest.shards)
    content = path.read_bytes()
    n_rows = listed.manifest.shards.references[0].n_shards
    if harm == "flipped":
        flip_bit(path, 64 + 3 * ROW.itemsize + 140)
    elif harm == "missing":
        path.unlink()
    else:
        other = list_paths(listed)[-1].with_name(f"{'0' * 32}.list")
        harmed = {"cut": content[:-100], "longer": content + b"x", "another": b"?" * len(content)}
        other.write_bytes(harmed[harm])
        other.replace(path)
    with pytest.raises(DamagedStoreError, match=path.name) as caught:
        Store.open(listed.path)
    assert caught.value.exit_code == 3
    assert not caught.value.is_gone
    assert f"lists/{path.name}" in {finding.shard for finding in verify(listed)}
    with pytest.raises(DamagedStoreError, match="featurestore repair"):
        collect(listed.path, keep_last=1, older_than=0)
    planned = repair(listed.path, dry_run=True)
    done = repair(listed.path)
    assert [each.name for each in planned.lists] == [f"lists/{path.name}"]
    assert done.lists == planned.lists
    assert f"manifests/{listed.snapshot:08d}.json" in {each.name for each in done.manifests}
    healed = Store.open(listed.path)
    assert len(stored_sentences(healed)) == N_SHARDS
    assert_holds(healed, WANTED)
    assert list(verify(healed)) == []
    assert repair(listed.path).sound
    collect(listed.path, keep_last=1, older_than=0)
    assert_holds(Store.open(listed.path), WANTED)
    # Rows that are sound keep what was measured when their shards were written, and their places.
    kept = {"flipped": n_rows - 1, "cut": n_rows - 1, "longer": n_rows}.get(harm, 0)
    by_name = {entry.name: entry for entry in entries}
    measured = [entry for entry in healed.manifest.shards if entry == by_name[entry.name]]
    n_inline = N_SHARDS - n_rows
    assert len(measured) >= kept + n_inline
    if kept == n_rows:
        assert healed.manifest.shards == entries


def test_making_a_list_again_goes_on_wherever_it_was_stopped(listed, tmp_path):
    flip_bit(list_paths(listed)[0], 64 + 3 * ROW.itemsize + 140)
    for step in itertools.count(0, 11):
        path = shutil.copytree(listed.path, tmp_path / f"{step}.fs")
        stopping = Stopping(step)
        with contextlib.suppress(StoreWriteError):
            repair(path, filesystem=stopping)
        repair(path)
        assert_holds(Store.open(path), WANTED)
        assert list(verify(Store.open(path))) == []
        if stopping.n_steps <= step:
            break
    assert step > 12


def test_a_damaged_list_of_an_earlier_snapshot_costs_that_snapshot_alone(listed):
    first = Store.open(listed.path, snapshot=11).manifest.shards.references[0]
    assert first not in listed.manifest.shards.references
    flip_bit(listed.path / "lists" / first.name, 70)
    assert_holds(Store.open(listed.path), WANTED)
    done = repair(listed.path)
    assert done.result.number == listed.snapshot
    assert {each.name for each in done.lists} == {f"lists/{first.name}"}
    with pytest.raises(Exception, match="no snapshot 11"):
        Store.open(listed.path, snapshot=11)
    assert repair(listed.path).sound


def test_entries_are_found_in_the_snapshots_that_gc_left_meanwhile(listed):
    found, shards = read_snapshots(listed.path), listed.manifest.shards
    wanted = {number: shards[number] for number in (0, 9, -1)}
    *earlier, last = list_numbers(listed.path)
    for number in earlier:
        manifest_path(listed.path, number).unlink()
    names = {entry.name for entry in wanted.values()}
    assert found.entries({*names, "0" * 32 + ".h5"}) == {entry.name: entry for entry in wanted.values()}
    flip_bit(manifest_path(listed.path, last), 100)
    with pytest.raises(DamagedStoreError, match="manifest"):
        found.entries(names)


def test_a_damaged_list_of_a_killed_writer_is_replaced(listed, tmp_path):
    twin = Store.open(shutil.copytree(listed.path, tmp_path / "twin.fs"))
    extra = sentences(MOST_INLINE + 1, start=100)
    added = set(list_paths(commit_each(twin, extra))) - set(list_paths(twin.refreshed())[:0])
    new = [path.name for path in added if not (listed.path / "lists" / path.name).exists()]
    assert new
    for name in new:
        (listed.path / "lists" / name).write_bytes(b"half a list")
    commit_each(listed, extra)
    assert_holds(Store.open(listed.path), [*WANTED, *extra])


def test_a_shard_of_a_list_is_read_as_its_row_says(listed):
    kind = listed.manifest.kind
    rows = rows_of(tuple(listed.manifest.shards), listed.token_shape)
    reference, parts = list_file(rows, kind)
    assert reference.file_bytes == len(b"".join(parts))
    part = Part(kind, rows)
    assert Shards((), [part]) == tuple(listed.manifest.shards)
    assert part.totals == (reference.n_sentences, reference.n_tokens, reference.n_bytes)
    with pytest.raises(ValueError, match="needs the list"):
        _ = Part(kind, reference=reference).rows
    assert Kind(kind.fingerprint, (3, 8)).header(5) != kind.header(5)
