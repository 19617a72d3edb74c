"""A FeatureDataset over sentences of which only the surroundings tell some apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore import Example, FeatureDataset, Recipe, Store, collate
from featurestore.errors import AlignmentError, MissingSentencesError
from featurestore.keys import ConditionedSentence, condition_of, sentence_key
from featurestore.store.format.shard import ShardDraft

DIM = 4
TOKENS = ("the", "cat")
LEFT, RIGHT = (
    ConditionedSentence(TOKENS, condition) for condition in (b'{"left":["a"]}', b'{"right":["b"]}')
)
OTHER = ConditionedSentence(("one", "more", "cat"), b'{"left":["a"]}')
STORED = [TOKENS, LEFT, RIGHT, OTHER]


def vectors_of(tokens) -> np.ndarray:
    return np.full((len(tokens), DIM), 1 + STORED.index(tokens), np.float32)


@pytest.fixture
def store(tmp_path) -> Store:
    recipe = Recipe({"kind": "test", "version": 1, "depends_on": {"context": 8}})
    store = Store.create(tmp_path / "store", recipe=recipe, dim=DIM, codec="float32")
    with store.write() as session:
        for tokens in STORED:
            session.add(tokens, vectors_of(tokens))
    return store.refreshed()


@pytest.mark.parametrize("made", [Example, lambda tokens: tokens], ids=["examples", "sentences"])
def test_each_example_has_the_vectors_of_its_surroundings(store, made):
    order = [3, 1, 0, 2, 1]
    dataset = FeatureDataset(store, [made(STORED[i]) for i in order])
    for position, i in enumerate(order):
        assert torch.equal(dataset[position].features, torch.from_numpy(vectors_of(STORED[i])))
        assert dataset.tokens(position) == STORED[i]
        assert condition_of(dataset.tokens(position)) == condition_of(STORED[i])
    batch = collate(dataset.__getitems__(range(len(order))))
    assert batch.features[:, 0, 0].tolist() == [1 + i for i in order]


def test_other_surroundings_are_missing_and_the_message_says_how_to_ask(store):
    elsewhere = Example(ConditionedSentence(TOKENS, b"elsewhere"), path="corpus.txt", line=3)
    with pytest.raises(MissingSentencesError) as caught:
        FeatureDataset(store, [Example(LEFT), elsewhere, Example(tuple(OTHER))])
    message = str(caught.value)
    assert "2 of 3 sentences are not in" in message
    assert "corpus.txt, line 3: the cat" in message
    assert message.count("depend on more than the tokens (context)") == 1
    assert "CachedEmbeddings" in message


def test_missing_ones_given_zeros_keep_their_condition(store):
    elsewhere = ConditionedSentence(TOKENS, b"elsewhere")
    dataset = FeatureDataset(store, [elsewhere], on_missing="zeros")
    assert dataset.tokens(0) == elsewhere
    assert not dataset[0].features.any()


@pytest.mark.parametrize(("asked", "stored"), [(LEFT, RIGHT), (LEFT, TOKENS), (TOKENS, RIGHT)])
def test_another_condition_under_a_sentences_key_is_an_alignment_error(monkeypatch, tmp_path, asked, stored):
    seal = ShardDraft.seal

    def mislabelled(draft, fingerprint):
        draft.keys = [sentence_key(asked) if s == stored else sentence_key(s) for s in draft.sentences]
        return seal(draft, fingerprint)

    monkeypatch.setattr(ShardDraft, "seal", mislabelled)
    store = Store.create(tmp_path / "s", recipe=Recipe({"kind": "test", "version": 1}), dim=DIM)
    with store.write() as session:
        session.add(OTHER, vectors_of(OTHER))
        session.add(stored, vectors_of(stored))
    with pytest.raises(AlignmentError) as caught:
        FeatureDataset(store.path, [Example(OTHER), Example(asked, path="corpus.txt", line=5)])
    message = str(caught.value)
    assert message.startswith(f"corpus.txt, line 5: the condition is {condition_of(asked)!r} in the corpus")
    assert f"but {condition_of(stored)!r} in the store" in message
    assert "featurestore verify" in message
