"""Sentences with a condition: others than those of the same tokens without it, and kept like any."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import limits
from featurestore.errors import DamagedStoreError, MissingSentencesError
from featurestore.keys import ConditionedSentence, condition_of, sentence_key, sentence_with
from featurestore.recipe import Recipe
from featurestore.store.format.codec import get_codec
from featurestore.store.format.layout import CONDITIONS, Extent
from featurestore.store.format.shard import ShardDraft
from featurestore.store.format.structure import inspect
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit, forge_head
from tests.kit.stores import (
    CONDITIONED_SENTENCES,
    assert_holds,
    create,
    fill,
    sentence,
    sentences,
    shard_path,
    vectors_of,
)

TOKENS = st.sampled_from([("a",), ("a", "b"), ("ab",)]) | st.lists(
    st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=3), min_size=1, max_size=4
)
SENTENCES = st.builds(sentence_with, TOKENS, st.sampled_from([b"", b"1", b"2"]) | st.binary(max_size=30))

MIXED = [sentence(0), *CONDITIONED_SENTENCES, sentence(1), ("the", "cat")]


@pytest.fixture
def store(tmp_path) -> Store:
    """Sentences with and without conditions, three of them of the same tokens, in one shard."""
    return fill(create(tmp_path / "store.fs", shard_bytes=1 << 20), MIXED)


# -- kept


@settings(max_examples=40, deadline=None)
@given(
    st.lists(SENTENCES, min_size=1, max_size=8, unique=True),
    st.sampled_from([1, 100, 1 << 20]),
    st.sampled_from(["mmap", "pread"]),
)
def test_sentences_read_back_with_what_makes_them_special(wanted, shard_bytes, access):
    with tempfile.TemporaryDirectory() as folder:
        fill(create(Path(folder) / "store.fs", shard_bytes=shard_bytes), wanted)
        store = Store.open(Path(folder) / "store.fs", access=access)
        found = [tokens for _, _, tokens in store.sentences()]
        assert found == wanted
        assert list(map(condition_of, found)) == list(map(condition_of, wanted))
        assert list(map(type, found)) == list(map(type, wanted))
        for shard, row, tokens in store.sentences():
            assert store.reader(shard).condition(row) == condition_of(tokens)
            assert store.reader(shard).key(row) == sentence_key(tokens)
        assert_holds(store, wanted)
        assert list(verify(store)) == []


def test_the_same_tokens_in_other_surroundings_have_their_own_vectors(store):
    plain, one, other = ("the", "cat"), *CONDITIONED_SENTENCES[:2]
    assert tuple(one) == tuple(other) == plain
    for tokens in (plain, one, other):
        np.testing.assert_array_equal(store.get(tokens), vectors_of(tokens))
    assert not np.array_equal(store.get(plain), store.get(one))
    assert not np.array_equal(store.get(one), store.get(other))
    np.testing.assert_array_equal(store.get_by_key(sentence_key(one)), vectors_of(one))


def test_other_surroundings_are_not_there(store):
    elsewhere = ConditionedSentence(("the", "cat"), b"elsewhere")
    assert CONDITIONED_SENTENCES[0] in store
    assert elsewhere not in store
    with pytest.raises(MissingSentencesError, match=r"1 of 2 sentences .*\n  the cat\n"):
        store.get_many([("the", "cat"), elsewhere])
    only = tuple(CONDITIONED_SENTENCES[-1])
    assert only not in store
    assert list(only) not in store


def test_iteration_yields_what_get_takes(store):
    listed = [tokens for tokens, _ in store]
    assert listed == MIXED
    for tokens, vectors in store:
        np.testing.assert_array_equal(vectors, store.get(tokens))


def test_a_session_tells_surroundings_apart(tmp_path):
    store = create(tmp_path / "store.fs")
    one, other = CONDITIONED_SENTENCES[:2]
    with store.write() as session:
        assert session.add(("the", "cat"), vectors_of(("the", "cat")))
        assert session.add(one, vectors_of(one))
        assert not session.add(one, vectors_of(one))
        session.flush()
        assert not session.add(one, vectors_of(one))
        assert session.add(other, vectors_of(other))
    assert_holds(store.refreshed(), [("the", "cat"), one, other])


def test_a_commit_leaves_out_only_what_another_brought_in_the_same_surroundings(store):
    ours = [ConditionedSentence(tokens, b"ours") for tokens in MIXED]
    with store.write() as one, store.write() as other:
        for tokens in ours:
            one.add(tokens, vectors_of(tokens))
        for tokens in ours[::2]:
            other.add(tokens, vectors_of(tokens))
        other.flush()
        one.flush()
    store = store.refreshed()
    assert len(store) == len({sentence_key(tokens) for tokens in [*MIXED, *ours]})
    assert_holds(store, [*MIXED, *ours])
    assert list(verify(store)) == []


def test_a_rebuilt_index_finds_them(store):
    for path in (store.path / "index").iterdir():
        path.unlink()
    assert_holds(Store.open(store.path), MIXED)


# -- on disk


def test_plain_h5py_reads_conditions(store):
    with h5py.File(shard_path(store)) as shard:
        edges, text = shard["condition_offsets"][:], bytes(shard["conditions"])
        assert (shard["condition_offsets"].dtype, shard["conditions"].dtype) == ("<u8", "u1")
    found = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert found == [condition_of(tokens) for tokens in MIXED]


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_hdf5_and_the_manifest_agree_on_where_conditions_lie(tmp_path, codec):
    store = fill(create(tmp_path / "store.fs", codec=codec), MIXED)
    for number, entry in enumerate(store.manifest.shards):
        fingerprint, found_codec, extents = inspect(shard_path(store, number))
        assert (fingerprint, found_codec) == (store.fingerprint, codec)
        assert extents == dict(entry.extents)
        has_some = any(store.reader(number).condition(row) for row in range(entry.n_sentences))
        assert set(CONDITIONS) <= set(extents) if has_some else not set(CONDITIONS) & set(extents)


def test_a_subset_without_conditions_is_the_shard_of_plain_sentences():
    draft = ShardDraft(MIXED, dim=8, n_layers=1, codec=get_codec("float16"))
    plain = ShardDraft(sentences(2), dim=8, n_layers=1, codec=get_codec("float16"))
    for position, tokens in enumerate(MIXED):
        draft.put(position, vectors_of(tokens))
    for position, tokens in enumerate(sentences(2)):
        plain.put(position, vectors_of(tokens))
    positions = [MIXED.index(tokens) for tokens in sentences(2)]
    assert draft.subset(positions).seal("f" * 64).head == plain.seal("f" * 64).head
    kept = draft.subset([1, 3])
    assert kept.keys == [sentence_key(MIXED[1]), sentence_key(MIXED[3])]
    assert set(CONDITIONS) <= set(kept.seal("f" * 64).entry.extents)


@pytest.mark.parametrize("dropped", CONDITIONS)
def test_half_of_the_two_datasets_is_no_shard(store, dropped):
    with h5py.File(shard_path(store), "r+") as file:
        del file[dropped]
    with pytest.raises(DamagedStoreError, match=r"datasets .*, expected"):
        inspect(shard_path(store))


# -- damaged, or made by a stranger


@pytest.mark.parametrize("access", ["mmap", "pread"])
@pytest.mark.parametrize("dataset", CONDITIONS)
def test_a_flipped_bit_closes_the_shard_and_is_found(store, dataset, access):
    extent = store.manifest.shards[0].extents[dataset]
    flip_bit(shard_path(store), extent.offset + extent.n_bytes // 2)
    opened = Store.open(store.path, access=access)
    with pytest.raises(DamagedStoreError, match=r"its structure .* is not what was committed"):
        opened.get(sentence(0))
    assert [finding.shard for finding in verify(opened)] == [shard_path(store).name]


@pytest.mark.parametrize("value", [1, 5_000, 10**6, 2**63, 2**64 - 1])
@pytest.mark.parametrize("at", [0, 3, len(MIXED)], ids=["first", "inner", "last"])
def test_offsets_that_lead_nowhere_are_refused_and_found(store, at, value):
    forged = forge_head(store, "condition_offsets", 8 * at, value.to_bytes(8, "little"))
    with pytest.raises(DamagedStoreError, match="/condition_offsets does not ascend from 0 to"):
        forged.reader(0)
    assert any("/condition_offsets does not ascend" in str(finding) for finding in verify(forged))


def test_a_condition_over_the_bound_is_refused(store, monkeypatch):
    longest = max(len(condition_of(tokens)) for tokens in MIXED)
    monkeypatch.setattr(limits, "MAX_CONDITION_BYTES", longest)
    assert_holds(Store.open(store.path), MIXED)
    monkeypatch.setattr(limits, "MAX_CONDITION_BYTES", longest - 1)
    with pytest.raises(DamagedStoreError, match=f"in steps of 0 to {longest - 1:,}"):
        Store.open(store.path).reader(0)


def test_a_condition_that_is_not_the_one_of_the_key_is_found(store):
    (finding,) = verify(forge_head(store, "conditions", 0, b"X"))
    assert (finding.sentence, finding.problem) == (1, "the key is not that of the tokens and condition")
    assert finding.key == sentence_key(MIXED[1]).hex()


def forged_extents(store: Store, **changed: Extent | None) -> Store:
    """Return the store with other extents in its manifest; None leaves one out."""
    entry = store.manifest.shards[0]
    extents = {**entry.extents, **changed}
    forged = replace(entry, extents={name: extent for name, extent in extents.items() if extent})
    return Store(store.path, replace(store.manifest, shards=(forged,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"conditions": None}, r"expected \[.*'conditions'"),
        (lambda e: {"condition_offsets": None}, r"expected \[.*'condition_offsets'"),
        (lambda e: {"conditions": replace(e["conditions"], shape=(0,))}, "/conditions is empty"),
        (lambda e: {"conditions": replace(e["conditions"], shape=())}, r"/conditions is \|u1 \(\)"),
        (
            lambda e: {"conditions": replace(e["conditions"], shape=(e["conditions"].n_bytes, 1))},
            r"/conditions is \|u1 \(\d+, 1\)",
        ),
        (lambda e: {"conditions": replace(e["conditions"], dtype="<u8")}, "/conditions is <u8"),
        (lambda e: {"conditions": replace(e["conditions"], offset=1 << 40)}, "/conditions lies outside"),
        (lambda e: {"conditions": Extent(e["values"].offset, "|u1", (8,))}, "/conditions lies after"),
        (
            lambda e: {"condition_offsets": replace(e["condition_offsets"], shape=(len(MIXED),))},
            "/condition_offsets is <u8",
        ),
    ],
    ids=["no conditions", "no offsets", "empty", "scalar", "two dimensions", "type", "outside",
         "among the values", "too few offsets"],
)  # fmt: skip
def test_a_manifest_that_misplaces_conditions_is_refused(store, change, message):
    extents = dict(store.manifest.shards[0].extents)
    with pytest.raises(DamagedStoreError, match=f"contradicts itself: .*{message}"):
        forged_extents(store, **change(extents)).reader(0)


# -- what a message about missing sentences says


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"depends_on": {"whitespace": True, "context": 64, "language": False}}, "(context, whitespace)"),
        ({"depends_on": {"context": 0}}, None),
        ({"depends_on": ["context"]}, None),
        ({}, None),
    ],
)
def test_missing_sentences_are_explained_where_vectors_depend_on_more(tmp_path, fields, named):
    store = create(tmp_path / "store.fs", recipe=Recipe({"kind": "test", "version": 1, **fields}))
    with pytest.raises(MissingSentencesError) as caught:
        store.get(("the", "cat"))
    message = str(caught.value)
    assert ("depend on more than the tokens" in message) == (named is not None)
    if named:
        assert f"depend on more than the tokens {named}: " in message
        assert "CachedEmbeddings" in message
