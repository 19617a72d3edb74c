"""feature_loader and its sampler: epochs, budgets, padding, and worker processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Subset, random_split

from featurestore import (
    BucketBatchSampler,
    Example,
    FeatureDataset,
    Store,
    collate,
    feature_loader,
    open_corpus,
)
from featurestore.errors import UsageError
from tests.dataset.workers import START_METHODS, run_epochs

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
        assert (len(last) + 1) * max(lengths[i] for i in last) <= budget
        assert max_sentences is None or len(last) < max_sentences


def test_drop_last_does_leave_out_a_short_batch():
    sampler = BucketBatchSampler([4] * 11, token_budget=16, shuffle=False, drop_last=True)
    assert [len(batch) for batch in sampler] == [4, 4]
    assert len(sampler) == 2


def test_drop_last_leaves_out_the_only_batch_too_and_says_so(caplog):
    assert list(BucketBatchSampler([4] * 10, max_sentences=32, drop_last=True)) == []
    assert list(BucketBatchSampler([4] * 10, token_budget=100, drop_last=True)) == []
    assert "10 sentences give no batch (drop_last=True" in caplog.text


@pytest.mark.parametrize("options", [{"token_budget": 54}, {"max_sentences": 10}, {"token_budget": 1}])
def test_drop_last_leaves_out_nothing_that_is_full(options):
    lengths = [4] * 9 + [5]
    every = list(BucketBatchSampler(lengths, **options, shuffle=False))
    assert sum(map(len, every)) == 10
    options["token_budget"] = options.get("token_budget", 2048)
    assert list(BucketBatchSampler(lengths, **options, shuffle=False, drop_last=True)) == every


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


@pytest.mark.parametrize("wrong", [0, -3, 8.0, None, "8"])
@pytest.mark.parametrize("name", ["token_budget", "max_sentences", "num_replicas"])
def test_sizes_that_hold_nothing_are_usage_errors(name, wrong):
    if (name, wrong) != ("max_sentences", None):
        with pytest.raises(UsageError, match=f"{name}={wrong!r}: must be at least 1, an integer"):
            BucketBatchSampler([1, 2], **{name: wrong})


@pytest.mark.parametrize("wrong", [-1, 1.5, None])
def test_seeds_and_epochs_are_counted_from_zero(dataset, wrong):
    with pytest.raises(UsageError, match=f"seed={wrong}: must be at least 0, an integer"):
        feature_loader(dataset, seed=wrong)
    loader = feature_loader(dataset, seed=np.int64(3))
    with pytest.raises(UsageError, match=f"epoch={wrong}: must be at least 0, an integer"):
        loader.batch_sampler.set_epoch(wrong)
    assert order_of(loader) == order_of(feature_loader(dataset, seed=3))


def ranks_of(n: int, make) -> list[list[list[int]]]:
    return [list(make(num_replicas=n, rank=rank)) for rank in range(n)]


@given(many_lengths, budgets, most, st.booleans(), st.integers(1, 9))
def test_ranks_share_an_epoch_and_get_as_many_batches(lengths, budget, max_sentences, shuffle, n_ranks):
    def make(**options):
        return BucketBatchSampler(
            lengths, token_budget=budget, max_sentences=max_sentences, shuffle=shuffle, seed=4, **options
        )

    if 0 < len(lengths) < n_ranks:
        with pytest.raises(UsageError, match=f"{n_ranks} processes cannot share {len(lengths)} sentences"):
            ranks_of(n_ranks, make)
        return
    ranks = ranks_of(n_ranks, make)
    assert len({len(batches) for batches in ranks}) == 1
    seen = sorted(i for batches in ranks for batch in batches for i in batch)
    assert len(set(seen)) == len(seen)
    alone = list(make())
    if len(lengths) >= -(-len(alone) // n_ranks) * n_ranks:
        assert len(seen) == len(lengths)
    for batch in (batch for batches in ranks for batch in batches):
        assert any(set(batch) <= set(whole) for whole in alone)
    dropping = ranks_of(n_ranks, lambda **options: make(drop_last=True, **options))
    full = list(make(drop_last=True))
    together = sorted(batch for step in zip(*dropping, strict=True) for batch in step)
    assert len(together) == len(full) - len(full) % n_ranks
    assert [batch for batch in sorted(full) if batch in together] == together


def test_a_rank_is_one_of_the_replicas():
    for rank in (2, 3):
        with pytest.raises(UsageError, match=f"rank={rank}: must be less than num_replicas=2"):
            BucketBatchSampler([1, 2], num_replicas=2, rank=rank)
    with pytest.raises(UsageError, match="rank=-1: must be at least 0"):
        BucketBatchSampler([1, 2], num_replicas=2, rank=-1)


@pytest.mark.parametrize("window", [None, 1 << 20])
def test_the_loaders_of_all_ranks_give_every_example_once_an_epoch(dataset, window):
    options = {"token_budget": 40, "seed": 3, "window": window}
    loaders = [feature_loader(dataset, num_replicas=3, rank=rank, **options) for rank in range(3)]
    epochs = []
    for _ in range(2):
        orders = [order_of(loader) for loader in loaders]
        assert len(orders[0]) == len(orders[1]) == len(orders[2])
        assert sorted(i for order in orders for batch in order for i in batch) == list(range(60))
        epochs.append(orders)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("resident", [None, "cpu"])
@pytest.mark.parametrize("window", ["auto", 1 << 20])
def test_a_subset_is_loaded_as_what_it_is_of(store, examples, window, resident):
    if resident and window != "auto":
        return
    dataset = FeatureDataset(store, examples, resident=resident)
    train, dev = random_split(dataset, [45, 15], generator=torch.Generator().manual_seed(1))
    inner = Subset(train, torch.tensor([3, -1, 7, 20]))
    parts = {n: (s, [dataset[i].position for i in i_s]) for n, s, i_s in (
        ("train", train, train.indices), ("dev", dev, dev.indices),
        ("inner", inner, [train.indices[i] for i in (3, -1, 7, 20)]),
        ("array", Subset(dataset, np.array([5, 9])), [5, 9]), ("empty", Subset(dataset, []), []),
    )}  # fmt: skip
    for subset, positions in parts.values():
        loader = feature_loader(subset, token_budget=40, window=window)
        assert loader.dataset is subset
        batches = list(loader)
        assert sorted(i for batch in batches for i in batch.indices.tolist()) == sorted(positions)
        for batch in batches:
            whole = dataset.gather(batch.indices)
            assert torch.equal(batch.features, whole.features)
            assert torch.equal(batch.labels, whole.labels)
            assert len(batch) == 1 or batch.mask.numel() <= 40


def test_other_datasets_are_refused_with_what_to_do(dataset):
    for other in (ConcatDataset([dataset, dataset]), [dataset[0]], Subset(ConcatDataset([dataset]), [0])):
        with pytest.raises(UsageError, match=r"takes a FeatureDataset or .*Subset of one, not a (Conc|list)"):
            feature_loader(other)


@pytest.mark.parametrize(
    ("option", "says"),
    [("batch_size", "max_sentences="), ("sampler", "sampler=..., coll"), ("batch_sampler", "batch_sampler=")],
)
def test_options_that_make_batches_are_refused_with_what_there_is_instead(dataset, option, says):
    with pytest.raises(UsageError, match=f"takes no {option}: .*{says}"):
        feature_loader(dataset, **{option: 32})


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


class Doubled(FeatureDataset):
    """A dataset of one's own, which changes its items."""

    def __getitems__(self, indices):
        items = [self[i] for i in indices]
        for item in items:
            item.features.mul_(2)
        return items


@pytest.mark.parametrize("options", [{}, {"packed": True}, {"jagged": True}], ids=str)
def test_items_that_a_dataset_of_ones_own_changes_are_what_is_served(store, examples, options):
    loader = feature_loader(Doubled(store, examples), token_budget=40, **options)
    plain = feature_loader(FeatureDataset(store, examples), token_budget=40, **options)
    for changed, batch in zip(loader, plain, strict=True):
        if not options:
            assert torch.equal(changed.features, 2 * batch.features)
        else:
            values = [one.features.data if "packed" in options else one.features.values()
                      for one in (changed, batch)]  # fmt: skip
            assert torch.equal(values[0], 2 * values[1])
        assert torch.equal(changed.indices, batch.indices)


def test_windows_are_of_what_is_stored_and_say_so(store, examples):
    loader = feature_loader(Doubled(store, examples), token_budget=40, window=1 << 20)
    with pytest.raises(UsageError, match="makes items of its own: leave window= out"):
        next(iter(loader))


def test_what_only_our_batches_have_is_said_of_others(dataset):
    loader = feature_loader(dataset, token_budget=40)
    assert loader.repeats == 0
    others = type(loader)(dataset, batch_size=4, collate_fn=collate)
    with pytest.raises(UsageError, match="made by a BatchSampler, which has no epochs and no state"):
        others.set_epoch(1)
