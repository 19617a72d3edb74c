"""Adding sentences: what is refused, what a session keeps, and several sessions at once."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from featurestore import limits
from featurestore.errors import (
    SentenceError,
    StoreError,
    StoreLimitError,
    UsageError,
    VectorError,
)
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.kit.stores import (
    DIM,
    RECIPE,
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    shard_path,
    stored_sentences,
    vectors_of,
)

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


# -- damaged shards that are written again


def test_damaged_file_of_the_same_shard_is_replaced(store, tmp_path):
    twin = fill(create(tmp_path / "twin.fs"), sentences(3))
    orphan = store.path / "shards" / shard_path(twin).name
    orphan.write_bytes(b"half a shard")
    filled = fill(store, sentences(3))
    assert shard_path(filled) == orphan
    assert_holds(filled, sentences(3))


@pytest.mark.parametrize(("bound", "most"), [("MAX_SHARD_SENTENCES", 3), ("MAX_SHARD_BYTES", 4096)])
def test_a_shard_over_a_bound_of_the_format_is_refused(store, monkeypatch, bound, most):
    session = store.write()
    for tokens in sentences(4):
        session.add(tokens, vectors_of(tokens))
    monkeypatch.setattr(limits, bound, most)
    with pytest.raises(StoreLimitError, match=r"a shard of [\d,]+ (sentences|bytes) exceeds"):
        session.flush()
    assert len(store.refreshed()) == 0
