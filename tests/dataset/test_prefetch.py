"""Batches copied ahead: the same ones, in the same order, and a state behind the one handed on."""

from __future__ import annotations

import pytest
import torch

from featurestore import DevicePrefetcher, FeatureDataset, feature_loader
from featurestore.errors import UsageError
from tests.dataset.batches import make_store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FeatureDataset:
    store, corpus = make_store(tmp_path_factory.mktemp("s") / "s", ["float16"], n=40)
    return FeatureDataset(store, corpus)


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_batches_are_the_loaders(dataset, depth):
    plain = list(feature_loader(dataset, token_budget=40, seed=2))
    ahead = DevicePrefetcher(feature_loader(dataset, token_budget=40, seed=2), "cpu", depth=depth)
    assert len(ahead) == len(plain)
    for one, other in zip(plain, ahead, strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.indices, other.indices)


def test_leaving_a_loop_early_harms_nothing(dataset):
    ahead = DevicePrefetcher(feature_loader(dataset, token_budget=40, shuffle=False), "cpu", depth=2)
    first = next(iter(ahead))
    again = next(iter(ahead))
    assert torch.equal(first.features, again.features)


def test_wrong_arguments_are_refused(dataset):
    with pytest.raises(UsageError, match="depth=0"):
        DevicePrefetcher(feature_loader(dataset), "cpu", depth=0)
    with pytest.raises(UsageError, match="tpu"):
        DevicePrefetcher(feature_loader(dataset), "tpu")
    with pytest.raises(UsageError, match="a list has no epochs and no state"):
        DevicePrefetcher([], "cpu").set_epoch(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", [{}, {"packed": True}, {"jagged": True}])
def test_batches_arrive_whole_on_a_gpu(dataset, form):
    plain = list(feature_loader(dataset, token_budget=40, seed=2))
    ahead = DevicePrefetcher(feature_loader(dataset, token_budget=40, seed=2, **form), "cuda", depth=2)
    for one, other in zip(plain, ahead, strict=True):
        assert other.lengths.is_cuda
        found = other.restore(other.features, per="token")
        for row, position in enumerate(one.indices.tolist()):
            assert torch.equal(found[position].cpu(), one.features[row, : int(one.lengths[row])])
        torch.cuda._sleep(1_000_000)  # a busy stream: memory used again too early would show


def test_a_state_is_that_of_the_batch_handed_on(dataset):
    def new():
        return DevicePrefetcher(feature_loader(dataset, token_budget=40, seed=2), "cpu", depth=3)

    expected = [[batch.indices.tolist() for batch in ahead] for ahead in [new()] for _ in range(2)]
    ahead = new()
    seen = []
    for batch in ahead:
        seen.append(batch.indices.tolist())
        if len(seen) == 4:
            break
    state = ahead.state_dict()
    resumed = new()
    resumed.load_state_dict(state)
    assert seen + [batch.indices.tolist() for batch in resumed] == expected[0]
    assert [batch.indices.tolist() for batch in resumed] == expected[1]
    resumed.set_epoch(0)
    assert [batch.indices.tolist() for batch in resumed] == expected[0]
