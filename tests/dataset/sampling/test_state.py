"""The state of a sampler and of a loader: what follows a restored state is what would have followed."""

from __future__ import annotations

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import BucketBatchSampler, Example, FeatureDataset, Store, extract, feature_loader
from featurestore.dataset.sampling import planning, pools, windows
from featurestore.errors import StateError
from tests.dataset.workers import TENSORS
from tests.kit.doubles import DoubleEncoder, draw_sentences

OPTIONS = st.fixed_dictionaries(
    {
        "token_budget": st.sampled_from([1, 5, 30, 100]),
        "max_sentences": st.sampled_from([None, 1, 4, 9]),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 3),
        "uneven": st.sampled_from(["split", "split", "drop", "pad"]),
    }
)
LENGTHS = st.integers(1, 300).flatmap(
    lambda n: st.integers(0, 9).map(lambda seed: np.random.default_rng((n, seed)).integers(1, 30, n))
)


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    for module in (pools, planning, windows):
        monkeypatch.setattr(module, "POOL_SENTENCES", 60)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FeatureDataset:
    path = tmp_path_factory.mktemp("state") / "store"
    sentences = draw_sentences(150)
    extract(sentences, DoubleEncoder(), path, shard_bytes=4_000, progress=False)
    return FeatureDataset(path, [Example(tuple(s), tuple(s)) for s in sentences])


class CutAnyhow:
    """Windows of consecutive sentences, some to a pool."""

    def __init__(self, lengths: np.ndarray, n_windows: int) -> None:
        self.of = np.arange(len(lengths)) * n_windows // len(lengths)
        self.regions = list(range(n_windows))
        self.n_bytes = np.bincount(self.of, lengths).astype(np.int64)
        self.pool_bytes = 1 + int(self.n_bytes.sum()) * 2 // n_windows


def any_sampler(lengths, in_windows: bool, **given_options) -> BucketBatchSampler:
    if in_windows:
        cut = CutAnyhow(lengths, 1 + len(lengths) // 20)
        return windows.WindowBatchSampler(lengths, cut, **given_options)
    return BucketBatchSampler(lengths, **given_options)


def through_json(state: dict) -> dict:
    return json.loads(json.dumps(state))


@pytest.mark.parametrize("in_windows", [False, True])
@settings(max_examples=50)
@given(LENGTHS, OPTIONS, st.integers(1, 5), st.floats(0, 1), st.integers(0, 1))
def test_every_epoch_has_as_many_batches_and_a_restored_one_ends_as_it_would(
    in_windows, lengths, options, n_ranks, share, epoch
):
    n_ranks = min(n_ranks, len(lengths))

    def sampler(rank=0):
        return any_sampler(lengths, in_windows, num_replicas=n_ranks, rank=rank, **options)

    straight = [sampler(rank) for rank in range(n_ranks)]
    epochs = [[list(one) for _ in range(4)] for one in straight]
    n_steps = len(straight[0])
    assert {len(batches) for of_rank in epochs for batches in of_rank} == {n_steps}
    at = round(share * n_steps)
    states = []
    for rank in range(n_ranks):
        stopped = sampler(rank)
        stopped.set_epoch(epoch)
        list(itertools.islice(stopped, at))
        states.append(through_json(stopped.state_dict()))
    assert states == [states[0]] * n_ranks  # so that one of them is enough
    for rank in range(n_ranks):
        restored = sampler(rank)
        restored.load_state_dict(states[0])
        if n_steps:
            assert restored.state_dict() == states[0]
        rest = epochs[rank][epoch][at:]
        following = iter(epochs[rank][epoch + (0 if rest else 1) :])
        if rest:
            assert list(restored) == rest
            next(following)
        assert list(restored) == next(following)


@pytest.mark.parametrize("in_windows", [False, True])
@settings(max_examples=50)
@given(LENGTHS, OPTIONS, st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=2, max_size=4))
def test_what_is_left_of_an_epoch_is_shared_by_any_number_of_processes(in_windows, lengths, options, runs):
    options["uneven"] = "split"
    seen, state = [], None
    for n_ranks, n_steps in [*runs, (1, 10**6)]:
        n_ranks = min(n_ranks, len(lengths))
        ranks = [any_sampler(lengths, in_windows, num_replicas=n_ranks, rank=rank, **options)
                 for rank in range(n_ranks)]  # fmt: skip
        passes = []
        for one in ranks:
            if state is not None:
                one.load_state_dict(state)
                one.set_epoch(0)  # an end stays the end
            passes.append(itertools.islice(one, n_steps))
        for step in zip(*passes, strict=True):
            seen.extend(i for batch in step for i in batch)
        states = [one.state_dict() for one in ranks]
        assert states == [states[0]] * n_ranks
        if states[0]["epoch"] > 0:
            break
        state = through_json(states[0])
    assert len(set(seen)) == len(seen)
    # Where each batch has one sentence and nothing is left to be split, the last ones are dropped.
    assert len(lengths) - len(seen) < max(n for n, _ in runs)


@pytest.mark.parametrize(
    ("n", "seed", "budget", "runs", "shuffle"),
    [
        (171, 0, 100, [(6, 6), (2, 99)], False),  # an end that reaches back to the pools before
        (57, 0, 100, [(4, 4), (3, 99)], False),
        (34, 0, 5, [(2, 4), (3, 5), (5, 99)], True),  # what two could not split, three may take
    ],
)
@pytest.mark.parametrize("in_windows", [False, True])
def test_what_another_number_of_processes_began_to_end_is_not_lost(
    n, seed, budget, runs, shuffle, in_windows
):
    lengths = np.random.default_rng(seed).integers(1, 30, n)
    seen, state = [], None
    for n_ranks, n_steps in runs:
        ranks = [any_sampler(lengths, in_windows, num_replicas=n_ranks, rank=rank, token_budget=budget,
                             shuffle=shuffle, seed=3) for rank in range(n_ranks)]  # fmt: skip
        for one in ranks:
            if state is not None:
                one.load_state_dict(state)
                one.set_epoch(0)  # an end stays the end
        steps = zip(*(itertools.islice(one, n_steps) for one in ranks), strict=True)
        seen.extend(i for step in steps for batch in step for i in batch)
        state = ranks[0].state_dict()
        if state["epoch"] == 1:
            break
    assert len(set(seen)) == len(seen)
    assert n - len(seen) < n_ranks


LOADERS = {
    "plain": {},
    "workers": {"num_workers": 1, "multiprocessing_context": "fork"},
    "windows": {"window": 1 << 20},
    "packed": {"packed": True},
    "corpus order": {"order": "corpus"},
}  # fmt: skip


def same(one, other) -> bool:
    if isinstance(one.features, torch.Tensor):
        return all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS)
    return torch.equal(one.features.data, other.features.data) and torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS)
def test_a_loader_goes_on_bit_for_bit_from_any_batch_of_the_loop(dataset, options):
    def loader():
        return feature_loader(dataset, token_budget=40, seed=5, **options)

    straight = loader()
    first, second = list(straight), list(straight)
    n = len(straight)
    assert n == len(first) == len(second) > 10
    for at in (7, n) if "num_workers" in options else (1, 7, n - 1, n):
        stopped = loader()
        for _ in zip(range(at), stopped, strict=False):
            state = stopped.state_dict()  # in the loop: at the last batch, before the pass has ended
        restored = loader()
        restored.load_state_dict(through_json(state))
        iterator = iter(restored)  # which loses nothing, and
        assert len(restored) == n
        rest = list(iterator)
        assert [same(*pair) for pair in zip(rest, first[at:] or second, strict=True)] == [True] * len(rest)
        following = next(iter(restored))
        assert at == n or same(following, second[0])


def test_the_state_is_that_of_the_pass_that_was_begun_last(dataset):
    loader = feature_loader(dataset, token_budget=40)
    fresh = loader.state_dict()
    assert (fresh["epoch"], fresh["taken"]) == (0, 0)
    one, other = iter(loader), iter(loader)
    assert loader.state_dict() == fresh
    next(one), next(other), next(other), next(one)
    assert [loader.state_dict()[name] for name in ("epoch", "taken")] == [1, 2]
    list(other)
    assert [loader.state_dict()[name] for name in ("epoch", "taken")] == [2, 0]
    loader.load_state_dict(fresh)
    next(one)
    assert loader.state_dict() == fresh
    next(iter(loader))
    loader.set_epoch(7)
    assert [loader.state_dict()[name] for name in ("epoch", "taken")] == [7, 0]


def test_a_restored_position_is_kept_by_the_epoch_it_is_in_alone(dataset, caplog):
    def loader():
        return feature_loader(dataset, token_budget=40)

    straight = loader()
    first, second = ([batch.indices.tolist() for batch in straight] for _ in range(2))
    for _ in zip(range(4), straight := loader(), strict=False):
        state = straight.state_dict()
    restored = loader()
    restored.load_state_dict(state)
    iterator = iter(restored)
    restored.set_epoch(0)
    assert [batch.indices.tolist() for batch in iterator] == first[4:]
    assert caplog.text == ""
    restored.load_state_dict(state)
    restored.set_epoch(1)
    assert [batch.indices.tolist() for batch in restored] == second
    assert "the restored position, in epoch 0, is given up" in caplog.text


@pytest.mark.parametrize(
    ("here", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"token_budget": 41}, "token_budget"),
        ({"max_sentences": 3}, "max_sentences"),
        ({"shuffle": False}, "shuffle"),
        ({"order": "corpus"}, "shuffle"),
        ({"drop_last": True}, "drop_last"),
        ({"window": 1 << 20}, "window"),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(dataset, here, field):
    saved = feature_loader(dataset, token_budget=40)
    next(iter(saved))
    loader = feature_loader(dataset, **{"token_budget": 40, **here})
    with pytest.raises(
        StateError, match=rf"saved with {field}=.*this loader has {field}=.*set_epoch"
    ) as caught:
        loader.load_state_dict(saved.state_dict())
    assert caught.value.field == field
    assert caught.value.expected != caught.value.found
    assert loader.state_dict() == feature_loader(dataset, **{"token_budget": 40, **here}).state_dict()


def test_a_state_of_another_dataset_or_snapshot_is_refused(dataset, tmp_path):
    path = tmp_path / "store"
    sentences = draw_sentences(30)
    extract(sentences, DoubleEncoder(), path, progress=False)
    small = FeatureDataset(path, sentences)
    saved = feature_loader(small)
    next(iter(saved))
    state = saved.state_dict()

    def refused(other) -> str:
        with pytest.raises(StateError) as caught:
            feature_loader(other).load_state_dict(state)
        return f"{caught.value.field}: {caught.value}"

    assert "another dataset" in refused(FeatureDataset(path, sentences[:-1]))
    assert "another dataset: its sentences lie elsewhere" in refused(FeatureDataset(path, sentences[::-1]))
    extract([["entirely", "new", "words"]], DoubleEncoder(), path, progress=False)
    grown = Store.open(path)
    says = refused(FeatureDataset(grown, sentences))
    assert "another snapshot of the store" in says
    assert "Store.open(path, snapshot=...)" in says
    old = Store.open(path, snapshot=state["of"]["snapshot"])
    feature_loader(FeatureDataset(old, sentences)).load_state_dict(state)


def test_what_is_no_state_is_refused():
    sampler = BucketBatchSampler([3] * 50, token_budget=9)
    next(iter(sampler))
    state = sampler.state_dict()
    for wrong in (None, [], {}, {"a": 1}, "state"):
        with pytest.raises(StateError, match="takes what state_dict"):
            sampler.load_state_dict(wrong)
    changes = [
        ("format", 1, "format 1, this featurestore reads 2"), ("taken", -1, "not one that"),
        ("pool", 7, "other batches"), ("before", 1.5, "not one that"), ("ends", [[0, 1]], "not one that"),
        ("batches", "f", "other"), ("batches", 7, "not one that"),
        ("of", 3, "not one that"), ("epoch", 3, "other batches"), ("taken", "1", "not one that"),
    ]  # fmt: skip
    for name, value, says in changes:
        with pytest.raises(StateError, match=says):
            sampler.load_state_dict({**state, name: value})
    with pytest.raises(StateError, match="not one that"):
        sampler.load_state_dict({name: value for name, value in state.items() if name != "quanta"})


def test_lengths_may_be_of_any_integers_and_a_state_is_of_all_of_them():
    lengths = np.random.default_rng(0).integers(1, 40, 400)
    states, orders = [], []
    for given_lengths in (lengths, lengths.astype(np.int32), lengths.astype(np.uint16), lengths.tolist()):
        sampler = BucketBatchSampler(given_lengths, token_budget=100)
        orders.append(list(itertools.islice(sampler, 9)))
        states.append(sampler.state_dict())
    assert orders == [orders[0]] * 4
    assert states == [states[0]] * 4


@pytest.mark.parametrize("n", [201, 223, 238])
def test_epochs_of_nearly_single_sentences_have_as_many_steps(n):
    lengths = np.random.default_rng((n, 0)).integers(1, 30, n)
    sampler = BucketBatchSampler(lengths, token_budget=5, seed=2, num_replicas=2)
    assert {len(sampler.batches(epoch)) for epoch in range(4)} == {len(sampler)}


@pytest.mark.parametrize("n_left", [1, 2, 3, 4])
def test_an_end_that_reaches_back_into_the_pool_before_goes_on(n_left):
    def ranks(n):
        # A pool of four batches and one of a single sentence: four processes make eight of them, two steps.
        options = {"token_budget": 45, "groups": [0, 60], "shuffle": False, "num_replicas": n}
        return [BucketBatchSampler([3] * 61, rank=rank, **options) for rank in range(n)]

    assert [(len(one), len(list(one))) for one in ranks(4)] == [(2, 2)] * 4
    stopped = ranks(4)
    seen = [i for one in stopped for batch in itertools.islice(one, 1) for i in batch]
    for one in ranks(n_left):
        one.load_state_dict(through_json(stopped[0].state_dict()))
        seen += [i for batch in one for i in batch]
    assert sorted(seen) == list(range(61))


def test_a_pickled_sampler_goes_on_where_it_was():
    sampler = BucketBatchSampler(np.arange(200) % 17 + 1, token_budget=60, seed=3)
    passing = iter(sampler)
    first = list(itertools.islice(passing, 5))
    again = pickle.loads(pickle.dumps(sampler))
    assert again.state_dict() == sampler.state_dict()
    assert first + list(again) == [batch.tolist() for batch in sampler.batches(0)]
    assert list(again) == [batch.tolist() for batch in sampler.batches(1)]
