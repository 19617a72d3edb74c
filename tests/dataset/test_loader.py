"""feature_loader and its sampler: epochs, budgets, padding, and worker processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from workers import START_METHODS, run_epochs

from featurestore import BucketBatchSampler, Example, FeatureDataset, Store, feature_loader, open_corpus
from featurestore.errors import UsageError

many_lengths = st.lists(st.integers(1, 50), max_size=120)
budgets = st.integers(1, 120)
most = st.none() | st.integers(1, 9)


@pytest.fixture
def store(example_store) -> Store:
    return Store.open(example_store)


@pytest.fixture
def dataset(store, examples) -> FeatureDataset:
    return FeatureDataset(store, examples)


def order_of(loader) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader]


@given(many_lengths, budgets, most, st.booleans(), st.integers(0, 3))
def test_an_epoch_has_every_sentence_once(lengths, budget, max_sentences, shuffle, seed):
    sampler = BucketBatchSampler(
        lengths, token_budget=budget, max_sentences=max_sentences, shuffle=shuffle, seed=seed
    )
    for _ in range(2):
        assert sorted(i for batch in sampler for i in batch) == list(range(len(lengths)))


@given(many_lengths, budgets, most, st.booleans())
def test_batches_keep_the_budget_of_padded_tokens_and_of_sentences(lengths, budget, max_sentences, shuffle):
    sampler = BucketBatchSampler(lengths, token_budget=budget, max_sentences=max_sentences, shuffle=shuffle)
    for batch in sampler:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        assert max_sentences is None or len(batch) <= max_sentences


@given(many_lengths, budgets, most)
def test_drop_last_leaves_out_only_a_batch_that_could_have_held_more(lengths, budget, max_sentences):
    options = {"token_budget": budget, "max_sentences": max_sentences, "shuffle": False}
    whole = list(BucketBatchSampler(lengths, **options))
    kept = list(BucketBatchSampler(lengths, **options, drop_last=True))
    assert kept == whole[: len(kept)]
    assert len(whole) - len(kept) <= 1
    if len(kept) < len(whole):
        last = whole[-1]
        assert len(last) * max(lengths[i] for i in last) < budget
        assert max_sentences is None or len(last) < max_sentences
    if whole:
        assert kept


def test_drop_last_does_leave_out_a_short_batch():
    sampler = BucketBatchSampler([4] * 11, token_budget=16, shuffle=False, drop_last=True)
    assert [len(batch) for batch in sampler] == [4, 4]
    assert len(sampler) == 2


def test_a_sentence_over_the_budget_is_alone():
    batches = sorted(map(sorted, BucketBatchSampler([3, 90, 4, 80], token_budget=10)))
    assert batches == [[0, 2], [1], [3]]


def test_without_shuffling_batches_ascend_in_length():
    batches = list(BucketBatchSampler([5, 1, 3, 1], token_budget=4, shuffle=False))
    assert batches == [[1, 3], [2], [0]]


def test_epochs_differ_and_come_back_with_their_number():
    lengths = np.random.default_rng(0).integers(1, 30, 300)
    sampler = BucketBatchSampler(lengths, token_budget=100, seed=5)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert list(BucketBatchSampler(lengths, token_budget=100, seed=5)) == first
    assert list(BucketBatchSampler(lengths, token_budget=100, seed=6)) != first
    sampler.set_epoch(1)
    assert list(sampler) == second
    assert sampler.epoch == 2
    sampler.set_epoch(0)
    assert (len(sampler), list(sampler)) == (len(first), first)


@pytest.mark.parametrize("sizes", [{"token_budget": 0}, {"max_sentences": 0}, {"token_budget": -3}])
def test_sizes_that_hold_nothing_are_usage_errors(sizes):
    with pytest.raises(UsageError, match="must be at least 1"):
        BucketBatchSampler([1, 2], **sizes)


@pytest.mark.shared
def test_realistic_lengths_hardly_pad(shared):
    lengths = [len(e.tokens) for e in open_corpus(shared("corpora/ud-ewt/en_ewt-ud-train.conllu"))]
    sampler = BucketBatchSampler(lengths, token_budget=1024)
    assert sampler.padding() < 0.03
    random_order = np.random.default_rng(0).permutation(lengths)
    padded = sum(chunk.max() * len(chunk) for chunk in np.array_split(random_order, len(sampler)))
    assert sampler.padding() < 0.1 * (padded / sum(lengths) - 1)


def test_padding_is_counted_per_token():
    sampler = BucketBatchSampler([2, 4], token_budget=8, shuffle=False)
    assert sampler.padding() == pytest.approx(2 / 6)
    assert BucketBatchSampler([]).padding() == 0


def test_the_loader_yields_every_example_once_an_epoch_in_another_order_each(dataset):
    loader = feature_loader(dataset, token_budget=40, seed=3)
    first, second = order_of(loader), order_of(loader)
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch) == list(range(60))
    assert first != second
    assert len(loader) == len(second)
    assert order_of(feature_loader(dataset, token_budget=40, seed=3)) == first
    loader.batch_sampler.set_epoch(1)
    assert order_of(loader) == second


def test_the_loader_keeps_its_budget_of_padded_tokens(dataset):
    for batch in feature_loader(dataset, token_budget=40, max_sentences=5):
        n_sentences, longest, dim = batch.features.shape
        assert dim == 32
        assert n_sentences <= 5
        assert n_sentences == 1 or n_sentences * longest <= 40


def test_the_loader_packs_on_request(dataset):
    padded = list(feature_loader(dataset, token_budget=40, seed=1))
    packed = list(feature_loader(dataset, token_budget=40, seed=1, packed=True))
    for one, other in zip(padded, packed, strict=True):
        assert torch.equal(one.packed().features.data, other.features.data)
        assert torch.equal(one.packed().labels, other.labels)


@pytest.mark.parametrize("method", START_METHODS)
def test_workers_give_the_same_batches_to_the_bit_in_no_more_memory(dataset, method):
    found = run_epochs(dataset, method, n_epochs=5)
    assert found.different == []
    assert found.n_batches > 5
    assert found.growth < 0.05


def test_workers_read_missing_sentences_as_zeros_too(store, examples):
    mixed = [*examples[:5], Example(("never", "seen"), ("NOUN", "VERB"))]
    dataset = FeatureDataset(store, mixed, on_missing="zeros")
    loader = feature_loader(dataset, token_budget=20, num_workers=1)
    found = {
        i: row for batch in loader for i, row in zip(batch.indices.tolist(), batch.features, strict=True)
    }
    assert len(found) == 6
    assert torch.all(found[5] == 0)
    assert all(torch.any(found[i] != 0) for i in range(5))
