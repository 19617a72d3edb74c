"""A FeatureDataset over a store that lacks sentences, holds other tokens, or is damaged."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch

from featurestore import Example, FeatureDataset, Store, extract, feature_loader, sentence_key
from featurestore.errors import AlignmentError, DamagedStoreError, MissingSentencesError, UsageError
from featurestore.store.format.shard import ShardDraft
from tests.kit.damage import forge_index


def tensor_of(store: Store, example: Example) -> torch.Tensor:
    return torch.from_numpy(store.get(example.tokens))


@pytest.fixture
def store(example_store) -> Store:
    return Store.open(example_store)


@pytest.fixture
def with_strangers(examples) -> list[Example]:
    """Five examples, of which the first, the third and the last are in no store."""
    strangers = [
        Example(("never", "seen", str(n)), ("VERB", "NOUN", "NOUN"), f"{'ab'[n % 2]}.conll", n + 1)
        for n in range(3)
    ]
    return [strangers[0], examples[0], strangers[1], examples[1], strangers[2]]


def test_missing_sentences_are_counted_and_the_command_that_adds_them_given(store, with_strangers):
    with pytest.raises(MissingSentencesError) as caught:
        FeatureDataset(store, with_strangers)
    message = str(caught.value)
    assert f"3 of 5 sentences are not in the store {store.path}" in message
    assert "a.conll, line 1: never seen 0\n  b.conll, line 2: never seen 1\n  a.conll, line 3" in message
    assert f"featurestore extract a.conll b.conll --store {store.path}" in message


def test_only_the_first_few_missing_sentences_are_shown(store):
    with pytest.raises(MissingSentencesError) as caught:
        FeatureDataset(store, [["never", str(n)] for n in range(500)])
    assert "500 of 500" in str(caught.value)
    assert "never 2" in str(caught.value)
    assert "never 3" not in str(caught.value)
    assert "featurestore extract CORPUS --store" in str(caught.value)


def test_missing_sentences_can_be_left_out(store, with_strangers, examples, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = FeatureDataset(store, with_strangers, on_missing="skip")
    assert (len(dataset), dataset.n_missing) == (2, 3)
    assert [dataset.tokens(i) for i in range(2)] == [e.tokens for e in examples[:2]]
    assert [dataset.gold(i) for i in range(2)] == [e.labels for e in examples[:2]]
    assert "3 sentences are not in" in caplog.text


def test_missing_sentences_can_be_zeros_with_their_labels(store, with_strangers):
    dataset = FeatureDataset(store, with_strangers, on_missing="zeros")
    assert (len(dataset), dataset.n_missing) == (5, 3)
    for position, example in enumerate(with_strangers):
        expected = torch.zeros(3, 32) if "never" in example.tokens else tensor_of(store, example)
        assert torch.equal(dataset[position].features, expected)
        assert dataset.tokens(position) == example.tokens
        assert dataset.gold(position) == example.labels
    batch = dataset.gather([0, 1])
    assert torch.all(batch.features[0] == 0)
    assert batch.mask[0].sum() == 3


def test_an_unknown_policy_is_a_usage_error(store, examples):
    with pytest.raises(UsageError, match="on_missing is 'ignore', expected error, skip or zeros"):
        FeatureDataset(store, examples, on_missing="ignore")


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (("w", "x", "OTHER"), "token 2 is 'y' in the corpus but 'OTHER' in the store"),
        (("w", "x"), "token 2 is 'y' in the corpus but None in the store"),
        (("w", "x", "y", "z"), "token 3 is None in the corpus but 'z' in the store"),
    ],
)
def test_other_tokens_under_a_sentences_key_are_an_alignment_error(
    monkeypatch, tmp_path, tiny_elmo, stored, says
):
    ours = ("w", "x", "y")
    seal = ShardDraft.seal

    def mislabelled(draft, fingerprint):
        draft.keys = [sentence_key(ours) if s == stored else sentence_key(s) for s in draft.sentences]
        return seal(draft, fingerprint)

    monkeypatch.setattr(ShardDraft, "seal", mislabelled)
    extract([("a",), stored], tiny_elmo, tmp_path / "store", progress=False)
    good, bad = Example(("a",), path="corpus.txt", line=4), Example(ours, path="corpus.txt", line=5)
    FeatureDataset(tmp_path / "store", [good])
    with pytest.raises(AlignmentError) as caught:
        FeatureDataset(tmp_path / "store", [good, bad])
    message = str(caught.value)
    assert message.startswith(f"corpus.txt, line 5: {says}")
    assert f"(3 and {len(stored)} tokens)" in message
    assert "featurestore verify" in message


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_damaged_vectors_stop_the_loader(tmp_path, example_store, examples, access, num_workers):
    shutil.copytree(example_store, tmp_path / "store")
    store = Store.open(tmp_path / "store", access=access)
    entry = store.manifest.shards[-1]
    path = tmp_path / "store" / "shards" / entry.name
    data = bytearray(path.read_bytes())
    data[entry.extents["values"].offset + 5] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(data)
    dataset = FeatureDataset(store, examples)
    loader = feature_loader(dataset, shuffle=False, token_budget=50, num_workers=num_workers)
    with pytest.raises(DamagedStoreError, match=entry.name):
        list(loader)


@pytest.mark.parametrize(
    "rows", [lambda row: np.roll(row, 1), lambda row: row + 10**6], ids=["others", "none"]
)
def test_an_index_that_points_elsewhere_never_gives_another_sentence(example_store, examples, tmp_path, rows):
    store = Store.open(shutil.copytree(example_store, tmp_path / "forged"))
    forge_index(store, row=rows(np.array(store.index.row)))
    # What points outside the shards is rebuilt; what points to another sentence is noticed there.
    try:
        dataset = FeatureDataset(store.path, examples)
    except DamagedStoreError as error:
        assert "points to the wrong sentence" in str(error)  # noqa: PT017
    else:
        sound = Store.open(example_store)
        for i, example in enumerate(examples):
            np.testing.assert_array_equal(dataset[i].features, sound.get(example.tokens))
