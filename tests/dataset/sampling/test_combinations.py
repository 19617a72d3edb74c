"""Options of a loader together: states at the ends of epochs, in parts of a dataset, with other workers."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from featurestore import Example, FeatureDataset, Recipe, Store, feature_loader
from featurestore.errors import StateError, UsageError
from tests.dataset.batches import make_store, vectors

N = 300


@pytest.fixture(scope="module")
def corpus_and_stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("combinations")
    store, tokens = make_store(folder / "a", ["float16"], n=N)
    Store.create(folder / "b", recipe=Recipe({"kind": "b", "version": 1}), dim=5, codec="int8")
    with Store.open(folder / "b").write() as session:
        for sentence in tokens[::-1]:
            session.add(sentence, vectors(sentence, 5))
    examples = [
        Example(sentence, "rare" if i % 20 == 0 else "often", document=f"d{i // 5}")
        for i, sentence in enumerate(tokens)
    ]
    return examples, store, Store.open(folder / "b")


@pytest.fixture(scope="module")
def dataset(corpus_and_stores) -> FeatureDataset:
    examples, store, _ = corpus_and_stores
    return FeatureDataset(store, examples)


def indices(batches) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def state_after(loader, n: int) -> dict:
    for _ in itertools.islice(loader, n):
        pass
    return json.loads(json.dumps(loader.state_dict()))


ENDS = {
    "plain": {},
    "drop_last": {"drop_last": True},
    "drop_last of three": {"drop_last": True, "num_replicas": 3, "rank": 1},
    "join": {"uneven": "join", "num_replicas": 4, "rank": 0},
    "pad": {"uneven": "pad", "num_replicas": 4, "rank": 3},
    "drop": {"uneven": "drop", "num_replicas": 4, "rank": 3},
    "documents": {"group_by": "document"},
    "documents in steps": {"group_by": "document", "steps_per_epoch": 7, "num_replicas": 2, "rank": 1},
    "windows": {"window": 1 << 20, "num_replicas": 3, "rank": 2},
}


@pytest.mark.parametrize("options", ENDS.values(), ids=ENDS)
def test_a_state_at_an_epochs_ends_is_exact(dataset, options):
    def loader():
        return feature_loader(dataset, token_budget=100, **options)

    straight = loader()
    first, second, third = (indices(straight) for _ in range(3))
    n = len(first)
    assert len(straight) == n > 3
    for at in (0, 1, n - 1, n):
        state = state_after(loader(), at)
        for epoch in (None, 0):
            again = loader()
            again.load_state_dict(state)
            assert again.state_dict() == state
            if epoch is not None:
                again.set_epoch(epoch)
            rest = first[at:]
            assert indices(again) == (rest if rest or epoch == 0 else second)
            assert indices(again) == (second if rest or epoch == 0 else third)
    after = loader()
    indices(after)
    again = loader()
    again.load_state_dict(after.state_dict())
    assert indices(again) == second


def test_documents_go_on_from_epoch_to_epoch(dataset):
    ranks = [
        feature_loader(
            dataset, token_budget=300, group_by="document", steps_per_epoch=3, num_replicas=2, rank=r
        )
        for r in range(2)
    ]
    steps = [step for _ in range(4) for step in zip(*ranks, strict=True)]
    assert len(steps) == 12
    batches = [batch for step in steps for batch in step]
    seen = [i for batch in indices(batches) for i in batch]
    assert sorted(seen[:N]) == list(range(N))
    documents = dataset.documents
    whole = [len(set(documents[b])) == sum(documents[b] == documents[b][0]) or
             all(np.isin(np.flatnonzero(documents == d), b).all() for d in set(documents[b]))
             for b in indices(batches)]  # fmt: skip
    assert sum(whole) > 0.8 * len(whole)  # a few are parted, so that all epochs are as long


@pytest.mark.parametrize("weights", ["balanced", np.ones(N)])
def test_weights_and_documents_are_not_combined(dataset, weights):
    with pytest.raises(UsageError, match="leave out group_by="):
        feature_loader(dataset, weights=weights, group_by="document")


@pytest.mark.parametrize("options", [{}, {"window": 1 << 20}, {"num_replicas": 2, "rank": 1}])
@pytest.mark.parametrize("as_dict", [False, True])
def test_several_stores_are_jagged_as_they_are_padded(corpus_and_stores, as_dict, options):
    examples, *stores = corpus_and_stores
    both = FeatureDataset(stores, examples, as_dict=as_dict)
    padded = feature_loader(both, token_budget=100, **options)
    jagged = feature_loader(both, token_budget=100, jagged=True, **options)
    for one, other in zip(padded, jagged, strict=True):
        expected, found = (batch.features if as_dict else {"": batch.features} for batch in (one, other))
        assert list(found) == list(expected)
        for name, features in found.items():
            assert torch.equal(features.values(), expected[name][one.mask])


def test_a_state_of_other_stores_is_refused_as_such(corpus_and_stores):
    examples, a, b = corpus_and_stores
    datasets = [FeatureDataset(stores, examples) for stores in ([a, b], [b, a], a)]
    for one, other in itertools.permutations(datasets, 2):
        state = state_after(feature_loader(one), 1)
        with pytest.raises(StateError, match="another store") as caught:
            feature_loader(other).load_state_dict(state)
        assert caught.value.field == "store"


def test_a_state_of_a_part_is_of_that_part(dataset):
    def loader(part):
        return feature_loader(Subset(dataset, part), token_budget=60)

    part = list(range(0, N, 2))
    everything = indices(loader(part))
    state = state_after(loader(part), 4)
    again = loader(part)
    again.load_state_dict(state)
    assert indices(again) == everything[4:]
    assert {i for batch in everything for i in batch} == set(part)
    for other in (part[::-1], part[:-1], range(1, N, 2), range(N)):
        with pytest.raises(StateError, match="another dataset"):
            loader(other).load_state_dict(state)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1)])
def test_a_state_goes_on_with_other_workers(dataset, before, after):
    def loader(n_workers):
        forked = {"num_workers": n_workers, "multiprocessing_context": "fork"} if n_workers else {}
        return feature_loader(dataset, token_budget=60, **forked)

    straight = loader(0)
    first, second = indices(straight), indices(straight)
    again = loader(after)
    again.load_state_dict(state_after(loader(before), 4))
    assert indices(again) == first[4:]
    assert indices(again) == second


@pytest.mark.parametrize("options", [{"uneven": "split"}, {"uneven": "pad"}, {"steps_per_epoch": 2}])
def test_more_ranks_than_batches_have_as_many_steps(dataset, options):
    assert len(feature_loader(dataset, token_budget=2000)) < 7
    found = [
        indices(feature_loader(dataset, token_budget=2000, num_replicas=7, rank=rank, **options))
        for rank in range(7)
    ]
    assert {len(batches) for batches in found} == {options.get("steps_per_epoch", 1)}
    seen = [i for step in zip(*found, strict=True) for batch in step for i in batch]
    assert sorted(set(seen[:N] if options == {"uneven": "split"} else seen)) == list(range(N))
