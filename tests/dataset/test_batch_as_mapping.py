"""A batch as frameworks take it: a mapping of its tensors that torch moves, pins, copies and collates."""

from __future__ import annotations

import copy
import pickle
from collections.abc import MutableMapping

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate, default_convert

from featurestore import FeatureDataset, feature_loader
from featurestore.dataset.batch import FeatureBatch
from featurestore.errors import UsageError

KEYS = ["lengths", "features", "mask", "labels", "indices"]


@pytest.fixture(scope="module")
def batch(example_store, examples) -> FeatureBatch:
    return next(iter(feature_loader(FeatureDataset(example_store, examples), max_sentences=7)))


@pytest.fixture(scope="module")
def unlabelled(example_store, examples) -> FeatureBatch:
    return next(iter(feature_loader(FeatureDataset(example_store, [list(e.tokens) for e in examples]))))


def same(one: FeatureBatch, other: FeatureBatch) -> bool:
    assert type(one) is type(other) is FeatureBatch
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def test_its_tensors_are_its_values(batch):
    assert isinstance(batch, MutableMapping)
    assert list(batch) == list(batch.keys()) == KEYS
    assert all(batch[key] is getattr(batch, key) for key in KEYS)
    assert list(map(id, batch.values())) == [id(batch[key]) for key in KEYS]
    assert {**batch}.keys() == dict(batch).keys() == dict(batch.items()).keys() == set(KEYS)


def test_its_length_is_that_of_sentences_and_of_its_keys_that_of_keys(batch):
    assert len(batch) == len(batch.lengths) == 7
    assert len(batch.keys()) == len(batch.values()) == len(batch.items()) == len(KEYS)


def test_labels_that_are_none_are_no_key(unlabelled):
    assert "labels" not in unlabelled
    assert "labels" not in dict(unlabelled)
    assert unlabelled.get("labels") is unlabelled.labels is None
    with pytest.raises(KeyError, match="labels: this batch has lengths, features, mask, indices"):
        unlabelled["labels"]


def test_what_it_has_can_be_changed_and_labels_taken_out(batch):
    changed = copy.copy(batch)
    changed["features"] = batch.features * 2
    assert torch.equal(changed.features, 2 * batch.features)
    assert changed.pop("labels") is batch.labels
    assert changed.labels is None
    assert batch.labels is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch.pop("indices"), "indices: only labels can be taken out.*dict"),
        (lambda batch: batch.update(extra=1), "extra: a batch has lengths, .*dict"),
        (lambda batch: batch["feature"], "feature: this batch has lengths, features"),
        (lambda batch: batch["to"], "to: this batch has"),
    ],
)
def test_other_keys_are_refused(batch, change, message):
    with pytest.raises(KeyError, match=message):
        change(copy.copy(batch))
    assert list(batch) == KEYS


def test_it_is_made_anew_from_a_mapping(batch, unlabelled):
    assert same(FeatureBatch({key: value.clone() for key, value in batch.items()}), batch)
    assert same(FeatureBatch(unlabelled), unlabelled)
    by_position = FeatureBatch(batch.features, batch.lengths, batch.mask, batch.labels, batch.indices)
    assert same(by_position, batch)
    with pytest.raises(UsageError, match="expected features, lengths, mask and indices"):
        FeatureBatch({"features": batch.features})
    with pytest.raises(UsageError, match="expected features, lengths, mask and indices"):
        FeatureBatch(batch.features)


def test_torch_takes_it_for_a_mapping(batch):
    assert same(default_convert(batch), batch)
    assert same(pickle.loads(pickle.dumps(batch)), batch)
    pair = default_collate([batch, batch])
    assert torch.equal(pair["features"], torch.stack([batch.features] * 2))
    assert same(batch.to("cpu"), batch)


def test_a_packed_batch_is_one_too(batch):
    packed = batch.packed()
    assert list(packed) == KEYS
    assert isinstance(packed["features"], PackedSequence)
    assert len(next(iter(packed.values()))) == len(batch)
