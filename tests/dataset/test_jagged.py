"""Jagged batches: nested tensors that hold what padded ones hold, without the padding."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from featurestore import Example, FeatureDataset, collate, feature_loader
from featurestore.errors import UsageError
from tests.dataset.batches import CODECS, make_store

LOADING = [
    {},
    {"window": 1 << 20},
    {"num_workers": 1, "multiprocessing_context": "fork"},
    {"order": "corpus"},
]


@pytest.fixture(scope="module", params=[1, 3], ids=["one layer", "three layers"])
def dataset(request, tmp_path_factory):
    store, corpus = make_store(tmp_path_factory.mktemp("s") / "s", CODECS, n_layers=request.param, n=20)
    return FeatureDataset(store, [Example(tokens, tokens) for tokens in corpus])


@pytest.mark.parametrize("options", LOADING, ids=str)
def test_they_are_the_padded_ones_without_padding(dataset, options):
    padded = list(feature_loader(dataset, token_budget=60, seed=1, **options))
    jagged = list(feature_loader(dataset, token_budget=60, seed=1, jagged=True, **options))
    assert len(padded) == len(jagged) > 5
    for one, other in zip(padded, jagged, strict=True):
        assert other.features.layout == torch.jagged
        assert torch.equal(other.features.values(), one.features[one.mask])
        assert torch.equal(other.features.offsets(), torch.nn.functional.pad(one.lengths.cumsum(0), (1, 0)))
        assert torch.equal(other.labels, one.labels[one.mask])
        for name in ("lengths", "mask", "indices"):
            assert torch.equal(getattr(other, name), getattr(one, name))


def test_resident_vectors_are_served_jagged_too(dataset):
    held = FeatureDataset(dataset.store, [dataset.tokens(i) for i in range(9)], resident="cpu")
    batch, plain = held.gather([3, 8, 1], jagged=True), dataset.gather([3, 8, 1], jagged=True)
    assert torch.equal(batch.features.values(), plain.features.values())
    assert dataset.gather([], jagged=True).features.values().shape == (0, *batch.features.shape[2:])


def test_a_list_of_items_is_collated_to_one(dataset):
    batch = collate([dataset[2], dataset[5]]).jagged()
    assert torch.equal(batch.features.values(), dataset.gather([2, 5], jagged=True).features.values())
    assert batch.jagged() is batch
    again = pickle.loads(pickle.dumps(batch.to("cpu")))
    assert torch.equal(again.features.values(), batch.features.values())


def test_results_are_put_back_by_position(dataset):
    batch = dataset.gather([4, 0, 9], jagged=True)
    for values in (batch.features, batch.features.values()):
        found = batch.restore(values, per="token")
        assert all(torch.equal(found[i], dataset[i].features) for i in (4, 0, 9))
    with pytest.raises(UsageError, match="is jagged, which does not tell"):
        batch.restore(batch.labels)


def test_a_model_learns_from_one_as_from_a_padded_one(dataset):
    torch.manual_seed(0)
    linear = nn.Linear(dataset.dim, len(dataset.labels))
    gradients = []
    for jagged in (False, True):
        batch = dataset.gather([1, 2, 3], jagged=jagged)
        scores = linear(batch.features)
        flat = (scores.values(), batch.labels) if jagged else (scores[batch.mask], batch.labels[batch.mask])
        loss = nn.functional.cross_entropy(flat[0].flatten(1)[:, : len(dataset.labels)], flat[1])
        linear.zero_grad()
        loss.backward()
        gradients.append(linear.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_packed_and_jagged_exclude_each_other(dataset):
    with pytest.raises(UsageError, match="packed or jagged"):
        feature_loader(dataset, packed=True, jagged=True)
    with pytest.raises(UsageError, match="the batch is packed"):
        dataset.gather([1, 2], packed=True).jagged()
