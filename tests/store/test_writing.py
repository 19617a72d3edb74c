"""Adding sentences: what is refused, what a session keeps, and several sessions at once."""

from __future__ import annotations

import gc
import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from featurestore import limits
from featurestore.errors import (
    RecipeMismatchError,
    SentenceError,
    StoreError,
    StoreLimitError,
    UsageError,
    VectorError,
)
from featurestore.recipe import Recipe
from featurestore.store.format.codec import get_codec
from featurestore.store.format.shard import ShardDraft
from featurestore.store.format.staging import StagingMemory
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import (
    DIM,
    RECIPE,
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    shard_path,
    vectors_of,
)


@pytest.fixture
def store(tmp_path) -> Store:
    return create(tmp_path / "store.fs")


def stored_sentences(store: Store) -> list[tuple[str, ...]]:
    return [tokens for _, _, tokens in store.refreshed().sentences()]


# -- making a store


def test_create_makes_missing_parents(tmp_path):
    store = create(tmp_path / "a" / "b" / "store.fs")
    assert Store.exists(store.path)
    assert Store.open(store.path).recipe == RECIPE


def test_create_in_an_empty_directory(tmp_path):
    assert len(create(tmp_path)) == 0


def test_create_over_a_store_is_refused_and_changes_nothing(store):
    before = fill(store, sentences(3))
    with pytest.raises(UsageError, match="already a store"):
        create(store.path, recipe=Recipe({"kind": "other", "version": 2}))
    assert Store.open(store.path).manifest == before.manifest


def test_create_beside_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(UsageError, match="something else is there"):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_at_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("important")
    with pytest.raises(UsageError, match="something else is there"):
        create(path)
    assert path.read_text() == "important"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"codec": "int4"}, UsageError),
        ({"dim": 0}, StoreLimitError),
        ({"dim": -8}, StoreLimitError),
        ({"dim": limits.MAX_DIM + 1}, StoreLimitError),
        ({"n_layers": 0}, StoreLimitError),
        ({"n_layers": limits.MAX_LAYERS + 1}, StoreLimitError),
        ({"shard_bytes": 0}, UsageError),
        ({"shard_bytes": limits.MAX_SHARD_BYTES + 1}, UsageError),
    ],
    ids=str,
)
def test_impossible_store_is_refused_before_anything_is_made(tmp_path, options, error):
    with pytest.raises(error):
        create(tmp_path / "store.fs", **options)
    assert not (tmp_path / "store.fs").exists()


# -- adding


def test_sentence_added_twice_keeps_its_first_vectors(store):
    with store.write() as session:
        assert session.add(sentence(2), vectors_of(sentence(2)))
        assert not session.add(list(sentence(2)), np.zeros((3, DIM)))
        session.flush()
        assert not session.add(sentence(2), np.zeros((3, DIM)))
    with store.refreshed().write() as session:
        assert not session.add(sentence(2), np.zeros((3, DIM)))
    assert stored_sentences(store) == [sentence(2)]
    assert_holds(store.refreshed(), [sentence(2)])


def test_session_copies_what_it_is_given(store):
    vectors = vectors_of(sentence(2)).copy()
    with store.write() as session:
        session.add(sentence(2), vectors)
        vectors[...] = 0
    assert_holds(store.refreshed(), [sentence(2)])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_any_float_type_is_taken(store, dtype):
    with store.write() as session:
        session.add(["a"], np.full((1, DIM), 0.5, dtype))
    np.testing.assert_array_equal(store.refreshed().get(["a"]), np.full((1, DIM), 0.5))


def test_full_shard_is_committed_at_once(store):
    session = store.write()
    for tokens in sentences(40):
        session.add(tokens, vectors_of(tokens))
    earlier = store.refreshed()
    assert 0 < len(earlier) < 40
    assert all(shard.n_tokens * DIM * 4 >= 1024 for shard in earlier.manifest.shards)
    session.flush()
    assert len(store.refreshed()) == 40


def test_empty_session_commits_nothing(store):
    with store.write():
        pass
    assert store.refreshed() is store


@pytest.mark.parametrize("shape", [(2, DIM), (3, DIM + 1), (3 * DIM,), (3, 2, DIM), (0, DIM)])
def test_vectors_of_another_shape_are_refused(store, shape):
    with store.write() as session, pytest.raises(StoreError, match=r"expected \(3, 8\), for 's2 the cat'"):
        session.add(sentence(2), np.zeros(shape, np.float32))
    assert stored_sentences(store) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_vector_that_is_not_finite_is_refused_and_its_token_named(tmp_path, codec, value):
    store = create(tmp_path / "store.fs", codec=codec)
    vectors = vectors_of(sentence(2)).copy()
    vectors[1, 3] = value
    with store.write() as session, pytest.raises(StoreError, match=r"NaN or infinity for token 1 \('the'\)"):
        session.add(sentence(2), vectors)
    assert stored_sentences(store) == []


def test_value_too_large_for_half_precision_names_token_and_remedy(tmp_path):
    store = create(tmp_path / "store.fs", codec="float16")
    vectors = vectors_of(sentence(2)).copy()
    vectors[2, 0] = 70_000
    with store.write() as session, pytest.raises(StoreError) as caught:
        session.add(sentence(2), vectors)
    assert "float16 cannot hold 70000 in token 2 ('cat')" in str(caught.value)
    assert "--codec float32" in str(caught.value)


def test_sentence_without_a_key_is_refused(store):
    with store.write() as session:
        for tokens in ("text", [], ["a", ""]):
            with pytest.raises(SentenceError):
                session.add(tokens, np.zeros((1, DIM)))


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n", [5, 3000])  # every token of the first is sampled, few of the second
def test_adding_one_by_one_makes_the_shard_that_a_draft_makes(tmp_path, codec, n):
    one_by_one, at_once = (
        create(tmp_path / name, codec=codec, shard_bytes=1 << 20) for name in ("one by one", "at once")
    )
    corpus = sentences(n)
    with one_by_one.write() as session:
        for tokens in corpus:
            session.add(tokens, vectors_of(tokens))
    with at_once.write() as session:
        draft = session.draft(corpus)
        for position in reversed(range(n)):
            draft.put(position, vectors_of(corpus[position]))
        session.commit(draft)
    (ours,), (theirs,) = one_by_one.refreshed().manifest.shards, at_once.refreshed().manifest.shards
    assert ours.sha256 == theirs.sha256
    assert ours.error.n_tokens == theirs.error.n_tokens
    assert ours.error.relative_l2 == pytest.approx(theirs.error.relative_l2, rel=1e-6)
    assert (ours.error.n_tokens == ours.n_tokens) is (n == 5)
    assert 1024 <= ours.error.n_tokens < 2048 or n == 5


def test_caller_may_use_its_memory_again(store):
    memory = np.empty((5, DIM), np.float32)
    with store.write() as session:
        for tokens in sentences(9):
            vectors = memory[: len(tokens)]
            vectors[:] = vectors_of(tokens)
            session.add(tokens, vectors)
    assert_holds(store.refreshed(), sentences(9))


# -- sessions and exceptions


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_added_before_an_exception_is_committed(store, error):
    def interrupted() -> None:
        with store.write() as session:
            for tokens in sentences(3):
                session.add(tokens, vectors_of(tokens))
            raise error

    with pytest.raises(error):
        interrupted()
    assert_holds(store.refreshed(), sentences(3))


def test_one_bad_vector_does_not_take_its_neighbours_with_it(store):
    def add_bad_one() -> None:
        with store.write() as session:
            session.add(sentence(0), vectors_of(sentence(0)))
            session.add(sentence(1), np.full((2, DIM), np.nan))

    with pytest.raises(StoreError, match="NaN"):
        add_bad_one()
    assert stored_sentences(store) == [sentence(0)]


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


def test_closing_commits_and_a_closed_session_takes_nothing(store):
    session = store.write()
    assert session.add(sentence(1), vectors_of(sentence(1)))
    session.close()
    assert stored_sentences(store) == [sentence(1)]
    with pytest.raises(UsageError, match=r"is closed: store\.write\(\) begins another"):
        session.add(sentence(2), vectors_of(sentence(2)))


def test_what_is_never_committed_is_said(store, caplog):
    session = store.write()
    session.add(sentence(1), vectors_of(sentence(1)))
    del session
    gc.collect()
    assert "1 sentences were added to" in caplog.text
    assert "not committed: close the session" in caplog.text


@pytest.mark.parametrize("vectors", [[[0.0] * DIM], None, np.zeros((1, DIM), int), "vectors"])
def test_what_is_no_array_of_floats_is_refused(store, vectors):
    with store.write() as session, pytest.raises(VectorError, match="expected a NumPy array of floats"):
        session.add(sentence(0), vectors)


def test_another_codec_for_one_session_leaves_the_stores_as_it_is(tmp_path):
    store = create(tmp_path / "store.fs", codec="float16")
    with store.write(codec="int8") as session:
        session.add(sentence(1), vectors_of(sentence(1)))
    store = fill(store.refreshed(), [sentence(2)])
    assert store.manifest.codec == "float16"
    assert [entry.codec for entry in store.manifest.shards] == ["int8", "float16"]


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


# -- commits in two steps


def full_draft(session, wanted):
    draft = session.draft(wanted)
    for position, tokens in enumerate(wanted):
        draft.put(position, vectors_of(tokens))
    return draft


def test_shards_prepared_in_any_order_and_thread_are_published_in_the_order_asked_for(store, tmp_path):
    session = store.write()
    drafts = [full_draft(session, sentences(3, start=3 * number)) for number in range(3)]
    with ExitStack() as prepared, ThreadPoolExecutor(3) as threads:
        entering = [threads.submit(prepared.enter_context, session.prepared(draft)) for draft in drafts[::-1]]
        shards = [future.result() for future in entering][::-1]
        assert list((store.path / "shards").iterdir()) == []
        assert [session.publish(shard, device="test") for shard in shards] == [3, 3, 3]
    assert stored_sentences(store) == sentences(9)
    assert_holds(store.refreshed(), sentences(9))
    assert store.refreshed().manifest.commit.device == "test"
    assert list((store.path / "tmp").iterdir()) == []
    other = fill_in_threes(create(tmp_path / "other.fs"))
    assert [shard.sha256 for shard in store.refreshed().manifest.shards] == other


def fill_in_threes(store) -> list[str]:
    with store.write() as session:
        for number in range(3):
            session.commit(full_draft(session, sentences(3, start=3 * number)))
    return [shard.sha256 for shard in store.refreshed().manifest.shards]


def test_a_shard_prepared_and_not_published_leaves_nothing(store):
    session = store.write()
    with session.prepared(full_draft(session, sentences(3))):
        assert len(list((store.path / "tmp").iterdir())) == 1
    assert list((store.path / "tmp").iterdir()) == list((store.path / "shards").iterdir()) == []
    assert store.refreshed() is store


def test_a_prepared_shard_hinders_no_gc_and_no_session_and_survives_both(store):
    fill(store, sentences(2))
    session = store.write()
    with session.prepared(full_draft(session, sentences(3, start=2))) as shard:
        collect(store.path, keep_last=1, older_than=0)
        store.write()
        assert session.publish(shard) == 3
    assert_holds(store.refreshed(), sentences(5))


def test_a_prepared_shard_is_made_anew_without_what_others_committed_meanwhile(store):
    session = store.write()
    with (
        session.prepared(full_draft(session, sentences(6))) as first,
        session.prepared(full_draft(session, sentences(3, start=6))) as second,
    ):
        fill(store, [sentence(1), *sentences(3, start=6)])
        assert session.publish(first) == 5
        assert session.publish(second) == 0
    assert sorted(stored_sentences(store)) == sorted(sentences(9))
    assert_holds(store.refreshed(), sentences(9))
    assert list(verify(store.refreshed())) == []
    assert list((store.path / "tmp").iterdir()) == []


# -- the vectors of several sentences at once


def draft_of(corpus, codec, memory=None, n_layers=1):
    return ShardDraft(corpus, dim=DIM, n_layers=n_layers, codec=get_codec(codec), memory=memory)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("codec", ["float16", "float32", "int8"])
def test_sentences_put_at_once_make_the_shard_of_sentences_put_one_by_one(codec, dtype, n_layers):
    corpus = sentences(400)
    order = np.random.default_rng(0).permutation(len(corpus)).tolist()
    single, at_once = draft_of(corpus, codec, n_layers=n_layers), draft_of(corpus, codec, n_layers=n_layers)
    for batch in (order[:150], order[150:151], order[151:]):
        vectors = [vectors_of(corpus[position], n_layers=n_layers).astype(dtype) for position in batch]
        for position, array in zip(batch, vectors, strict=True):
            single.put(position, array)
        assert at_once.put_all(batch, np.concatenate(vectors))
    expected, found = single.seal("print"), at_once.seal("print")
    assert found.values.tobytes() == expected.values.tobytes()
    assert (found.head, found.entry) == (expected.head, expected.entry)
    assert found.entry.error.n_tokens > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("codec", ["float16", "float32", "int8"])
def test_what_put_refuses_of_one_is_refused_of_all(codec, dtype):
    corpus = sentences(5)
    vectors = np.concatenate([vectors_of(tokens) for tokens in corpus]).astype(dtype)
    draft = draft_of(corpus, codec)
    assert not draft.put_all(range(5), vectors[1:])
    assert not draft.put_all(range(5), vectors[:, 1:])
    for value in (np.nan, np.inf, -np.inf):
        vectors[-1, 2] = value
        assert not draft.put_all(range(5), vectors)
    assert not draft.filled.any()
    if dtype == np.float32:
        vectors[-1, 2] = 70_000
        assert draft.put_all(range(5), vectors) is (codec != "float16")


def test_the_next_draft_has_the_memory_of_the_last():
    memory = StagingMemory(1 << 16)
    corpus = sentences(4)
    first, beside = draft_of(corpus, "float16", memory), draft_of(corpus[1:], "int8", memory)
    for draft in (first, beside):
        draft.put_all(range(len(draft.sentences)), np.concatenate(list(map(vectors_of, draft.sentences))))
    expected = first.seal("print").values.tobytes()
    first.release()
    again = draft_of(corpus[:2], "float32", memory)
    again.put_all(range(2), np.concatenate(list(map(vectors_of, corpus[:2]))))
    assert beside.seal("print").entry.n_tokens == sum(map(len, corpus[1:]))
    with pytest.raises(StoreError, match="no vectors yet"):
        first.seal("print")
    again.release()
    same = draft_of(corpus, "float16", memory)
    same.put_all(range(4), np.concatenate(list(map(vectors_of, corpus))))
    assert same.seal("print").values.tobytes() == expected


# -- damaged shards that are written again


def test_damaged_file_of_the_same_shard_is_replaced(store, tmp_path):
    twin = fill(create(tmp_path / "twin.fs"), sentences(3))
    orphan = store.path / "shards" / shard_path(twin).name
    orphan.write_bytes(b"half a shard")
    filled = fill(store, sentences(3))
    assert shard_path(filled) == orphan
    assert_holds(filled, sentences(3))
