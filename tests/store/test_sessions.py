"""Several sessions at once, and a store replaced, rolled back, repaired or cleaned under one."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest

from featurestore.errors import (
    DamagedStoreError,
    NotAStoreError,
    RecipeMismatchError,
    StoreError,
)
from featurestore.recipe import Recipe
from featurestore.store.format.codec import CodecError
from featurestore.store.format.directory import manifest_path
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import (
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    shard_path,
    stored_sentences,
    vectors_of,
)


def test_session_refuses_a_store_replaced_by_another_recipe(store, tmp_path):
    session = store.write()
    session.add(sentence(1), vectors_of(sentence(1)))
    other = fill(create(tmp_path / "other.fs", recipe=Recipe({"kind": "test", "version": 2})), sentences(3))
    store.path.rename(tmp_path / "away")
    other.path.rename(store.path)
    with pytest.raises(RecipeMismatchError, match=r"version: 2 in store .*, 1 asked for"):
        session.flush()


@pytest.mark.parametrize("in_front", [0, 1])
def test_session_refuses_a_store_replaced_by_a_copy_of_itself(tmp_path, in_front):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    shutil.copytree(store.path, tmp_path / "copy.fs")
    for _ in range(in_front):
        fill(Store.open(tmp_path / "copy.fs"), [sentence(9)])
    session = store.write()
    session.add(sentence(5), vectors_of(sentence(5)))
    store.path.rename(tmp_path / "away")
    (tmp_path / "copy.fs").rename(store.path)
    files = sorted(store.path.rglob("*"))
    with pytest.raises(StoreError, match="was replaced by another while this process added to it"):
        session.flush()
    assert [path for path in sorted(store.path.rglob("*")) if path.is_file()] == [
        path for path in files if path.is_file()
    ]
    assert len(store.refreshed()) == 3 + in_front


def roll_back(path: Path, saved: Path) -> None:
    """Restore what a directory held, file by file into the same inodes, as a volume's snapshot does."""
    for file in [file for file in path.rglob("*") if file.is_file()]:
        kept = saved / file.relative_to(path)
        if kept.exists():
            file.write_bytes(kept.read_bytes())
        else:
            file.unlink()


@pytest.fixture
def rolled_back(tmp_path):
    """A session that committed twice, whose store is then rolled back to before that."""
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    session = store.write()
    saved = tmp_path / "saved"
    shutil.copytree(store.path, saved)
    for number in (5, 6):
        session.add(sentence(number), vectors_of(sentence(number)))
        session.flush()
    roll_back(store.path, saved)
    return session


@pytest.mark.parametrize("n_others", [0, 1, 2, 3])
def test_session_refuses_a_store_rolled_back_under_it(rolled_back, n_others):
    """Others may have committed since, up to the number of the commit that is gone and beyond."""
    path = rolled_back.store.path
    for number in range(n_others):
        fill(Store.open(path), [sentence(20 + number)])
    rolled_back.add(sentence(9), vectors_of(sentence(9)))
    with pytest.raises(
        StoreError, match=r"snapshot \d+ is gone, and 2 of its sentences with it.*run the same"
    ):
        rolled_back.flush()
    after = Store.open(path)
    assert list(verify(after)) == []
    assert {tokens for _, _, tokens in after.sentences()} == {
        *sentences(3), *(sentence(20 + number) for number in range(n_others)),
    }  # fmt: skip


@pytest.mark.parametrize("n_others", [0, 1, 2, 3])
def test_sentences_that_are_gone_are_not_said_to_be_stored(rolled_back, n_others):
    for number in range(n_others):
        fill(Store.open(rolled_back.store.path), [sentence(20 + number)])
    with pytest.raises(StoreError, match="is gone"):
        rolled_back.add(sentence(5), vectors_of(sentence(5)))


def test_a_reader_refreshes_to_what_replaced_its_commit(rolled_back):
    path = rolled_back.store.path
    for number in (20, 21):
        fill(Store.open(path), [sentence(number)])
    latest = Store.open(path)
    stale = Store(path, rolled_back.manifest)
    assert stale.snapshot == latest.snapshot
    assert stale.refreshed().manifest == latest.manifest


def test_a_restored_store_that_lost_nothing_is_written_to(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    session = store.write()
    session.add(sentence(5), vectors_of(sentence(5)))
    session.flush()
    shutil.copytree(store.path, tmp_path / "saved")
    roll_back(store.path, tmp_path / "saved")
    assert not session.add(sentence(5), vectors_of(sentence(5)))
    assert session.add(sentence(6), vectors_of(sentence(6)))
    session.close()
    assert stored_sentences(store) == [*sentences(3), sentence(5), sentence(6)]


def test_sentences_that_repair_took_out_are_not_said_to_be_stored(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    session = store.write()
    session.add(sentence(5), vectors_of(sentence(5)))
    session.flush()
    shard_path(Store.open(store.path), -1).write_bytes(b"")
    repair(store.path)
    assert session.add(sentence(5), vectors_of(sentence(5)))
    assert not session.add(sentence(1), vectors_of(sentence(1)))
    session.close()
    assert list(verify(Store.open(store.path))) == []
    assert stored_sentences(store) == [*sentences(3), sentence(5)]


def test_after_a_repair_whose_traces_gc_removed_a_session_writes_nothing(tmp_path):
    """Nothing tells then that the sentences were taken out rather than the store rolled back."""
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    session = store.write()
    session.add(sentence(5), vectors_of(sentence(5)))
    session.flush()
    shard_path(Store.open(store.path), -1).write_bytes(b"")
    repair(store.path)
    collect(store.path, keep_last=1, older_than=0)
    session.add(sentence(6), vectors_of(sentence(6)))
    with pytest.raises(StoreError, match="snapshot 3 is gone, and 1 of its sentences with it"):
        session.flush()
    assert stored_sentences(store) == sentences(3)


@pytest.mark.parametrize("is_sound", [True, False], ids=["by another version", "by a failing disk"])
def test_a_manifest_that_is_spelled_otherwise_is_still_that_commit(store, is_sound):
    session = store.write()
    session.add(sentence(5), vectors_of(sentence(5)))
    session.flush()
    path = manifest_path(store.path, 2)
    path.write_text(path.read_text().replace("\n ", "\n  ") if is_sound else "{}")
    if is_sound:
        assert not session.add(sentence(5), vectors_of(sentence(5)))
        session.close()
        assert stored_sentences(store) == [sentence(5)]
    else:
        with pytest.raises(DamagedStoreError, match=r"manifest .* is damaged"):
            session.add(sentence(5), vectors_of(sentence(5)))


def test_a_store_whose_manifests_are_gone_is_said_to_be_none(store):
    session = fill(store, sentences(3)).write()
    shutil.rmtree(store.path / "manifests")
    with pytest.raises(NotAStoreError):
        session.add(sentence(1), vectors_of(sentence(1)))


def test_a_session_goes_on_after_gc_removed_the_commit_it_made(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    session = store.write()
    session.add(sentence(5), vectors_of(sentence(5)))
    session.flush()
    fill(Store.open(store.path), [sentence(6)])
    collect(store.path, keep_last=1, older_than=0)
    assert not session.add(sentence(5), vectors_of(sentence(5)))
    assert not session.add(sentence(6), vectors_of(sentence(6)))
    session.close()


# -- several writers


def test_interleaved_sessions_lose_nothing_and_store_nothing_twice(store):
    one, other = store.write(), store.write()
    for number in range(24):
        session = one if number % 2 else other
        for tokens in (sentence(number), sentence(number + 1)):
            session.add(tokens, vectors_of(tokens))
        if number % 5 == 0:
            session.flush()
    one.flush()
    other.flush()
    assert sorted(stored_sentences(store)) == sorted(sentences(25))
    assert_holds(store.refreshed(), sentences(25))
    assert list(verify(store.refreshed())) == []


def test_commit_leaves_out_what_others_committed_meanwhile(store):
    one, other = store.write(), store.write()
    draft = one.draft(sentences(6))
    for position, tokens in enumerate(sentences(6)):
        draft.put(position, vectors_of(tokens))
    for tokens in sentences(4):
        other.add(tokens, vectors_of(tokens))
    other.flush()
    assert one.commit(draft, device="test") == 2
    assert stored_sentences(store) == sentences(6)
    assert store.refreshed().manifest.commit.device == "test"
    assert one.commit(draft) == 0
    assert store.refreshed().snapshot == 3


def test_what_others_leave_of_a_draft_may_have_no_measured_token(store):
    long = tuple(f"w{number}" for number in range(2047))  # every second token of the draft is measured
    one, other = store.write(), store.write()
    draft = one.draft([long, ("short",)])
    draft.put(0, vectors_of(long))
    draft.put(1, vectors_of(("short",)))
    other.add(long, vectors_of(long))
    other.flush()
    assert one.commit(draft) == 1
    after = store.refreshed()
    assert [shard.error.n_tokens for shard in after.manifest.shards] == [2047, 0]
    assert after.manifest.shards[1].error == CodecError()
    assert_holds(after, [long, ("short",)])


def test_session_on_an_earlier_snapshot_follows_the_latest(store):
    fill(store, sentences(6))
    earlier = Store.open(store.path, snapshot=1)
    fill(earlier, sentences(9))
    assert stored_sentences(store) == sentences(9)


def test_same_shard_from_two_sessions_is_committed_once(store):
    one, other = store.write(), store.write()
    for session in (one, other):
        for tokens in sentences(3):
            session.add(tokens, vectors_of(tokens))
    one.flush()
    other.flush()
    assert stored_sentences(store) == sentences(3)
    assert len(list((store.path / "shards").iterdir())) == 1


def _add_range(path: Path, start: int, barrier) -> None:
    barrier.wait(60)
    store = Store.open(path)
    for first in range(start, start + 40, 8):
        # A session each, so that new sessions begin while others are writing.
        with store.refreshed().write() as session:
            for tokens in sentences(8, start=first):
                session.add(tokens, vectors_of(tokens))


def test_four_processes_add_overlapping_sentences(store):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    children = [
        context.Process(target=_add_range, args=(store.path, start, barrier)) for start in (0, 20, 40, 10)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    assert sorted(stored_sentences(store)) == sorted(sentences(80))
    assert_holds(store.refreshed(), sentences(80))
    assert list(verify(store.refreshed())) == []
    assert list((store.path / "tmp").iterdir()) == []
