"""What goes into a store comes out: by every codec, in any order, from any process and snapshot."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import MissingSentencesError, SentenceError, UsageError, VectorError
from featurestore.keys import sentence_key
from featurestore.store.format.codec import get_codec
from featurestore.store.store import Store
from tests.kit.stores import ODD_SENTENCES, assert_holds, create, fill, sentence, sentences, vectors_of

CODECS = ("float32", "float16", "int8")


def relative_error(found, expected) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture
def store(tmp_path) -> Store:
    """Thirty sentences in several shards."""
    return fill(create(tmp_path / "store.fs"), sentences(30))


@pytest.mark.parametrize("access", ["mmap", "pread"])
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("codec", CODECS)
def test_vectors_read_back_as_the_codec_promises(tmp_path, codec, n_layers, access):
    stored = fill(create(tmp_path / "store.fs", codec=codec, n_layers=n_layers), sentences(40))
    reopened = Store.open(stored.path, access=access)
    assert len(reopened) == 40
    assert len(reopened.manifest.shards) > 1
    found = reopened.get(sentence(4))
    assert found.dtype == np.float32
    assert found.shape == ((5, 8) if n_layers == 1 else (5, 3, 8))
    assert_holds(reopened, sentences(40))


@pytest.mark.parametrize("codec", CODECS)
def test_a_store_of_one_tiny_sentence_reads_back(tmp_path, codec):
    store = create(tmp_path / "store.fs", codec=codec, dim=1)
    with store.write() as session:
        session.add(["a"], np.full((1, 1), 3.0, np.float32))
    np.testing.assert_allclose(store.refreshed().get(["a"]), [[3.0]], rtol=1e-6)


def test_float16_rounds_each_value_to_the_nearest_half(store, tmp_path):
    halves = fill(create(tmp_path / "half.fs", codec="float16"), sentences(5))
    for tokens in sentences(5):
        expected = vectors_of(tokens).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(halves.get(tokens), expected)


def test_int8_loses_little_of_gaussian_vectors(tmp_path):
    store = create(tmp_path / "store.fs", codec="int8", dim=64, shard_bytes=1 << 20)
    store = fill(store, sentences(60))
    found = np.concatenate([store.get(tokens) for tokens in sentences(60)])
    expected = np.concatenate([vectors_of(tokens, dim=64) for tokens in sentences(60)])
    assert 0 < relative_error(found, expected) < 1.2e-2
    assert store.codec_error.relative_l2 == pytest.approx(relative_error(found, expected), rel=0.2)


def test_int8_keeps_small_dimensions_beside_large_ones(tmp_path):
    dim = 32
    sizes = np.logspace(-3, 2, dim).astype(np.float32)
    random = np.random.default_rng(0)
    expected = (random.normal(size=(200, dim)) * sizes).astype(np.float32)
    store = create(tmp_path / "store.fs", codec="int8", dim=dim, shard_bytes=1 << 20)
    with store.write() as session:
        session.add([f"t{i}" for i in range(200)], expected)
    found = store.refreshed().get([f"t{i}" for i in range(200)])
    scale = np.abs(expected).max(axis=1, keepdims=True) / 127
    per_token_only = np.rint(expected / scale) * scale

    def error_per_dimension(decoded) -> np.ndarray:
        return np.linalg.norm(decoded - expected, axis=0) / np.linalg.norm(expected, axis=0)

    assert error_per_dimension(found).max() < 2e-2
    assert error_per_dimension(per_token_only).max() > 0.5


def test_int8_keeps_zero_vectors_and_zero_dimensions_zero(tmp_path):
    vectors = np.zeros((3, 8), np.float32)
    vectors[1, :4] = [1, -1, 0.5, 0.25]
    store = create(tmp_path / "store.fs", codec="int8")
    with store.write() as session:
        session.add(["a", "b", "c"], vectors)
    found = store.refreshed().get(["a", "b", "c"])
    assert not found[[0, 2]].any()
    assert not found[:, 4:].any()
    np.testing.assert_allclose(found[1, :4], vectors[1, :4], atol=1e-2)


def test_int8_refuses_a_token_that_vanishes_and_takes_zeros(tmp_path):
    vectors = np.ones((100, 8), np.float32)
    tokens = [f"t{i}" for i in range(100)]
    vectors[7] = 1.8e-43
    store = create(tmp_path / "store.fs", codec="int8", shard_bytes=1 << 20)
    with store.write() as session:
        with pytest.raises(VectorError, match=r"int8 cannot hold .* token 7 \('t7'\)"):
            session.add(tokens, vectors)
        vectors[7] = 0
        session.add(tokens, vectors)
    np.testing.assert_allclose(store.refreshed().get(tokens), vectors, atol=1e-2)
    assert not store.refreshed().get(tokens)[7].any()


def test_unknown_codec_is_refused_with_the_choices():
    with pytest.raises(UsageError, match="'int4': expected one of float32, float16, int8"):
        get_codec("int4")


def test_odd_tokens_read_back_exactly(tmp_path):
    store = fill(create(tmp_path / "store.fs"), ODD_SENTENCES)
    reopened = Store.open(store.path)
    assert [tokens for _, _, tokens in reopened.sentences()] == ODD_SENTENCES
    assert_holds(reopened, ODD_SENTENCES)


def test_get_many_keeps_order_and_repeats(store):
    wanted = [sentence(number) for number in (29, 0, 7, 29, 3, 0)]
    for tokens, found in zip(wanted, store.get_many(wanted), strict=True):
        np.testing.assert_array_equal(found, vectors_of(tokens))
    assert store.get_many([]) == []


def test_vectors_are_the_callers_own(store):
    store.get(sentence(1))[...] = 99
    np.testing.assert_array_equal(store.get(sentence(1)), vectors_of(sentence(1)))


def test_list_of_tokens_and_tuple_of_tokens_are_the_same_sentence(store):
    np.testing.assert_array_equal(store.get(list(sentence(3))), store.get(sentence(3)))


def test_get_by_key(store):
    np.testing.assert_array_equal(store.get_by_key(sentence_key(sentence(3))), vectors_of(sentence(3)))
    with pytest.raises(MissingSentencesError, match="no sentence with key 00000000"):
        store.get_by_key(bytes(16))


def test_missing_sentences_are_counted_shown_and_the_command_named(store):
    with pytest.raises(MissingSentencesError) as caught:
        store.get_many([sentence(1), ("absent", "one"), ("two",), ("three",), ("four",)])
    message = str(caught.value)
    assert "4 of 5 sentences are not in" in message
    assert all(text in message for text in ("absent one", "two", "three"))
    assert "four" not in message
    assert f"featurestore extract CORPUS --store {store.path}" in message


@pytest.mark.parametrize("tokens", ["s1", [], ["a", ""], [1], b"ab"])
def test_what_is_no_sentence_is_refused(store, tokens):
    with pytest.raises(SentenceError):
        store.get(tokens)


def test_contains(store):
    assert sentence(3) in store
    assert list(sentence(3)) in store
    assert ("absent",) not in store


def test_iteration_is_in_stored_order(store):
    assert [tokens for tokens, _ in store] == sentences(30)
    for tokens, found in store:
        np.testing.assert_array_equal(found, vectors_of(tokens))


def test_counts(store):
    assert len(store) == 30
    assert store.n_tokens == sum(map(len, sentences(30)))
    assert store.n_bytes == sum(path.stat().st_size for path in (store.path / "shards").iterdir())
    assert (store.dim, store.n_layers) == (8, 1)


def test_empty_store_holds_nothing(tmp_path):
    store = create(tmp_path / "store.fs")
    assert len(Store.open(store.path)) == 0
    assert list(store) == []
    assert sentence(1) not in store


def test_reader_keeps_its_snapshot_while_a_writer_commits(store):
    earlier = Store.open(store.path)
    fill(store, sentences(5, start=100))
    assert len(earlier) == 30
    assert sentence(100) not in earlier
    assert [tokens for tokens, _ in earlier] == sentences(30)
    assert sentence(100) in earlier.refreshed()
    assert_holds(earlier.refreshed(), sentences(30) + sentences(5, start=100))


def test_refreshed_is_the_same_store_when_nothing_was_committed(store):
    assert store.refreshed() is store


def test_earlier_snapshot_can_be_opened(store):
    assert len(Store.open(store.path, snapshot=1)) == 0
    second = Store.open(store.path, snapshot=2)
    assert 0 < len(second) < 30
    assert_holds(second, [tokens for _, _, tokens in second.sentences()])
    with pytest.raises(UsageError, match="no snapshot 99; it has 1 to"):
        Store.open(store.path, snapshot=99)


@pytest.mark.parametrize("option", [{"check": "sometimes"}, {"access": "telepathy"}])
def test_unknown_reading_option_is_refused(store, option):
    with pytest.raises(UsageError, match="expected one of"):
        Store.open(store.path, **option)


def test_shards_of_several_codecs_live_in_one_store(tmp_path):
    store = fill(create(tmp_path / "store.fs"), sentences(3))
    with store.write(codec="int8") as session:
        for tokens in sentences(3, start=3):
            session.add(tokens, vectors_of(tokens))
    store = store.refreshed()
    assert {shard.codec for shard in store.manifest.shards} == {"float32", "int8"}
    np.testing.assert_array_equal(store.get(sentence(1)), vectors_of(sentence(1)))
    assert relative_error(store.get(sentence(4)), vectors_of(sentence(4))) < 2e-2


def test_pickled_store_reads_the_same(store):
    store.get(sentence(0))
    again = pickle.loads(pickle.dumps(store))
    assert again.snapshot == store.snapshot
    assert_holds(again, sentences(30))


def _check_in_child(store: Store) -> None:
    assert_holds(store, sentences(30))


@pytest.mark.parametrize("access", ["mmap", "pread"])
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_store_is_read_in_another_process(store, method, access):
    opened = Store.open(store.path, access=access)
    assert_holds(opened, sentences(3))
    child = multiprocessing.get_context(method).Process(target=_check_in_child, args=(opened,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert_holds(opened, sentences(30))


def test_relative_and_text_paths_are_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(create(Path("store.fs")), sentences(3))
    assert_holds(Store.open("store.fs"), sentences(3))
