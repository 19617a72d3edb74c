"""Results in corpus order: batches in that order, and batches in any order put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from featurestore import BucketBatchSampler, Example, FeatureDataset, Store, feature_loader
from featurestore.errors import UsageError

LOADING = [
    {},
    {"shuffle": False},
    {"order": "corpus"},
    {"token_budget": 20, "seed": 3},
    {"num_workers": 1, "multiprocessing_context": "fork"},
]


@pytest.fixture
def store(example_store) -> Store:
    return Store.open(example_store)


def labelled(examples, kind):
    label = {"token": lambda tokens: tuple(tokens), "sentence": lambda tokens: " ".join(tokens)}[kind]
    return [Example(e.tokens, label(e.tokens)) for e in examples]


@given(st.lists(st.integers(1, 50), max_size=120), st.integers(1, 120), st.none() | st.integers(1, 9))
def test_batches_in_corpus_order_hold_each_sentence_once_under_the_budget(lengths, budget, most):
    sampler = BucketBatchSampler(lengths, token_budget=budget, max_sentences=most, order="corpus")
    batches = list(sampler)
    assert [i for batch in batches for i in batch] == list(range(len(lengths)))
    for batch, after in zip(batches, [*batches[1:], None], strict=False):
        padded = len(batch) * max(lengths[i] for i in batch)
        assert len(batch) == 1 or padded <= budget
        assert most is None or len(batch) <= most
        if after is not None:  # and none is shorter than it must be
            one_more = (len(batch) + 1) * max(lengths[i] for i in [*batch, after[0]])
            assert one_more > budget or len(batch) == most
    assert list(sampler) == batches


def test_corpus_order_is_that_of_the_dataset_and_of_a_subset(store, examples):
    dataset = FeatureDataset(store, examples)
    loader = feature_loader(dataset, order="corpus", token_budget=30)
    assert len(loader) > 3
    assert [i for batch in loader for i in batch.indices.tolist()] == list(range(len(dataset)))
    some = [7, 2, 5, 11, 0]
    loader = feature_loader(Subset(dataset, some), order="corpus", token_budget=30)
    assert [i for batch in loader for i in batch.indices.tolist()] == some


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": "corpus", "shuffle": True}, "order='corpus' is the order of the corpus"),
        ({"order": "corpus", "window": 1 << 24}, "leave out window or order='corpus'"),
        ({"order": "random"}, "order='random': expected 'length' or 'corpus'"),
    ],
)
def test_orders_that_cannot_be_are_refused(store, examples, options, says):
    with pytest.raises(UsageError, match=says):
        feature_loader(FeatureDataset(store, examples), **options)


@pytest.mark.parametrize("kind", ["token", "sentence"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", LOADING, ids=str)
def test_restored_labels_are_those_of_the_corpus(store, examples, kind, packed, options):
    dataset = FeatureDataset(store, labelled(examples, kind))
    found = {}
    for batch in feature_loader(dataset, packed=packed, **options):
        found.update(batch.restore(batch.labels, per=kind if packed else None))
    assert sorted(found) == list(range(len(dataset)))
    for position, labels in found.items():
        ids = labels.tolist()
        names = dataset.label_names
        assert (tuple(names[i] for i in ids) if kind == "token" else names[ids]) == dataset.gold(position)


def test_results_of_tokens_come_in_every_form_a_model_gives_them(store, examples):
    dataset = FeatureDataset(store, labelled(examples, "token"))
    for batch in feature_loader(dataset, token_budget=40):
        padded = batch.features[..., :2]
        lists = padded.tolist()
        trimmed = [row[:n] for row, n in zip(lists, batch.lengths.tolist(), strict=True)]
        packed = batch.packed().features
        forms = [
            batch.restore(padded),
            batch.restore(padded[batch.mask]),
            batch.restore(padded.numpy()),
            batch.restore(packed._replace(data=packed.data[:, :2])),
            batch.packed().restore(packed.data[:, :2], per="token"),
            batch.packed().restore(padded, per="token"),
            {i: torch.tensor(rows) for i, rows in batch.restore(lists).items()},
            {i: torch.tensor(rows) for i, rows in batch.restore(trimmed).items()},
        ]
        for form in forms:
            assert list(form) == batch.indices.tolist()
            for position, values in form.items():
                assert torch.equal(values, dataset[position].features[:, :2])


def test_results_of_sentences_may_be_scores_or_a_list(store, examples):
    dataset = FeatureDataset(store, labelled(examples, "sentence"))
    for batch in feature_loader(dataset, token_budget=40):
        # As many scores as the longest sentence has tokens: they must not pass for values of tokens.
        scores = torch.arange(float(batch.mask.numel())).view(batch.mask.shape)
        restored = batch.restore(scores)
        assert [restored[i].tolist() for i in batch.indices.tolist()] == scores.tolist()
        names = [f"sentence {i}" for i in batch.indices.tolist()]
        assert batch.restore(names) == dict(zip(batch.indices.tolist(), names, strict=True))
        assert batch.restore(np.array(names, object).tolist(), per="sentence") == batch.restore(names)


def test_values_that_do_not_fit_are_refused(store, examples):
    unlabelled = FeatureDataset(store, [example.tokens for example in examples])
    (batch, *_) = feature_loader(unlabelled, token_budget=40, shuffle=False)
    n, n_tokens = len(batch), int(batch.lengths.sum())
    with pytest.raises(UsageError, match="has no labels, which does not tell what the values are of"):
        batch.restore(batch.mask)
    (first, *_) = feature_loader(FeatureDataset(store, examples), packed=True)
    with pytest.raises(UsageError, match="is packed"):
        first.restore(first.labels)
    with pytest.raises(UsageError, match=rf"{n} sentences with {n_tokens} tokens.*found shape \({n + 1},"):
        batch.restore(torch.zeros(n + 1, 3), per="token")
    with pytest.raises(UsageError, match=f"expected {n} values, one for each sentence.*found shape"):
        batch.restore(torch.zeros(n_tokens + n), per="sentence")
    with pytest.raises(UsageError, match=r"found shape \(\)"):
        batch.restore(torch.tensor(1.0), per="sentence")
    with pytest.raises(UsageError, match=f"a list of {n}"):
        batch.restore([[1] * 99] * n, per="token")
    with pytest.raises(UsageError, match="per='word'"):
        batch.restore(batch.mask, per="word")
