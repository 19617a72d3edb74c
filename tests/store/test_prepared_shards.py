"""Shards prepared in any order and thread, and drafts that take sentences at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from featurestore.errors import (
    StoreError,
)
from featurestore.store.format.codec import get_codec
from featurestore.store.format.shard import ShardDraft
from featurestore.store.format.staging import StagingMemory
from featurestore.store.maintenance.gc import collect
from featurestore.store.verification import verify
from tests.kit.stores import (
    DIM,
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    stored_sentences,
    vectors_of,
)

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
