"""Epochs of draws by weight, of a fixed number of steps, and in ascending length: exact, shared, resumed."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Subset

from featurestore import BucketBatchSampler, Example, FeatureDataset, feature_loader
from featurestore.dataset.sampling import planning, pools
from featurestore.errors import StateError, UsageError
from tests.dataset.batches import make_store

LENGTHS = st.integers(1, 200).flatmap(
    lambda n: st.integers(0, 9).map(lambda seed: np.random.default_rng((n, seed)).integers(1, 30, n))
)


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    for module in (pools, planning):
        monkeypatch.setattr(module, "POOL_SENTENCES", 60)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FeatureDataset:
    store, corpus = make_store(tmp_path_factory.mktemp("s") / "s", ["float16"], n=300)
    return FeatureDataset(
        store, [Example(t, "rare" if i % 20 == 0 else "often") for i, t in enumerate(corpus)]
    )


def options(kind: str, lengths: np.ndarray) -> dict:
    weights = np.arange(len(lengths)) % 5 + (len(lengths) == 1)
    return {
        "weights": {"weights": weights},
        "steps": {"steps_per_epoch": 7},
        "weighted steps": {"steps_per_epoch": 7, "weights": weights},
        "ordered steps": {"steps_per_epoch": 4, "order": "corpus"},
        "by length": {"shuffle": "by length"},
        "steps by length": {"shuffle": "by length", "steps_per_epoch": 5},
    }[kind]


KINDS = ["weights", "steps", "weighted steps", "ordered steps", "by length", "steps by length"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(LENGTHS, st.sampled_from([1, 30, 100]), st.integers(1, 3), st.floats(0, 1), st.integers(0, 2))
def test_a_state_goes_on_exactly_in_every_process(kind, lengths, budget, n_ranks, share, epoch):
    n_ranks = min(n_ranks, len(lengths))

    def sampler(rank=0):
        given_options = options(kind, lengths)
        shares = {"num_replicas": n_ranks, "rank": rank}
        return BucketBatchSampler(lengths, token_budget=budget, **shares, **given_options)

    straight = [sampler(rank) for rank in range(n_ranks)]
    epochs = [[list(one) for _ in range(4)] for one in straight]
    n_steps = len(straight[0])
    assert {len(batches) for of_rank in epochs for batches in of_rank} == {n_steps}
    for rank in range(n_ranks):
        assert [batch.tolist() for batch in sampler(rank).batches(2)] == epochs[rank][2]
    for rank in range(n_ranks):
        jumped = sampler(rank)
        jumped.set_epoch(2)
        assert list(jumped) == epochs[rank][2]
        for batch in itertools.chain(*epochs[rank]):
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget
    at = round(share * n_steps)
    states = []
    for rank in range(n_ranks):
        stopped = sampler(rank)
        stopped.set_epoch(epoch)
        list(itertools.islice(stopped, at))
        states.append(json.loads(json.dumps(stopped.state_dict())))
    assert states == [states[0]] * n_ranks
    for rank in range(n_ranks):
        restored = sampler(rank)
        restored.load_state_dict(states[0])
        assert restored.state_dict() == states[0]
        restored.set_epoch(epoch)
        assert list(restored) == epochs[rank][epoch][at:]
        assert list(restored) == epochs[rank][epoch + 1]


@settings(max_examples=20)
@given(
    LENGTHS,
    st.sampled_from([1, 30, 100]),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=5),
)
def test_steps_come_to_everything_before_anything_comes_again(lengths, budget, runs):
    """Also where the number of processes changes, in an epoch and between epochs."""
    seen, state, epoch, steps_of_epoch = [], None, 0, 0
    for n_ranks, n_steps in [*runs, (1, 10**6)]:
        n_ranks = min(n_ranks, len(lengths))
        ranks = [BucketBatchSampler(lengths, token_budget=budget, num_replicas=n_ranks, rank=rank,
                                    steps_per_epoch=5) for rank in range(n_ranks)]  # fmt: skip
        for one in ranks:
            if state is not None:
                one.load_state_dict(state)
                one.set_epoch(epoch)
        if n_steps > 9:  # to the end
            while len(seen) < 2 * len(lengths):
                seen.extend(itertools.chain(*ranks[0]))
            break
        passes = [list(itertools.islice(one, n_steps)) for one in ranks]
        steps = min(n_steps, 5 - steps_of_epoch)
        assert {len(batches) for batches in passes} == {steps}
        seen.extend(i for step in zip(*passes, strict=True) for batch in step for i in batch)
        [state, *others] = [one.state_dict() for one in ranks]
        assert others == [state] * len(others)
        steps_of_epoch += steps
        if steps_of_epoch == 5:
            epoch, steps_of_epoch = epoch + 1, 0
    n = len(lengths)
    for start in range(0, len(seen) - n + 1, n):
        assert sorted(seen[start : start + n]) == list(range(n))


def test_draws_are_in_proportion_to_weights():
    lengths = np.random.default_rng(0).integers(1, 30, 400)
    weights = np.zeros(400)
    weights[:4] = 1, 2, 3, 4
    sampler = BucketBatchSampler(lengths, token_budget=100, weights=weights * 1e300)
    epochs = [np.concatenate(sampler.batches(epoch)) for epoch in range(25)]
    assert [len(draws) for draws in epochs] == [400] * 25
    counts = np.bincount(np.concatenate(epochs), minlength=400)
    assert not counts[4:].any()
    expected = 10_000 * weights[:4] / 10
    assert (np.abs(counts[:4] - expected) < 4 * np.sqrt(expected)).all()
    assert not np.array_equal(epochs[0], epochs[1])


def test_balanced_labels_are_equally_likely(dataset):
    loader = feature_loader(dataset, token_budget=100, weights="balanced", seed=3)
    labels = [int(label) for _ in range(4) for batch in loader for label in batch.labels]
    assert len(labels) == 4 * len(dataset)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.06)
    part = Subset(dataset, list(range(60)))
    drawn = {i for batch in feature_loader(part, weights="balanced") for i in batch.indices.tolist()}
    assert drawn <= set(range(60))


def test_short_sentences_come_first_and_equal_ones_in_another_order_each_epoch():
    lengths = np.random.default_rng(1).integers(1, 9, 500)
    sampler = BucketBatchSampler(lengths, token_budget=60, shuffle="by length")
    epochs = [np.concatenate(list(sampler)) for _ in range(3)]
    firsts = set()
    for order in epochs:
        assert sorted(order.tolist()) == list(range(500))
        assert (np.diff(lengths[order]) >= 0).all()
        firsts.add(frozenset(order[:30].tolist()))
    assert len(firsts) == 3  # drawn from all of that length, not from those of a pool
    shares = [BucketBatchSampler(lengths, token_budget=60, shuffle="by length", num_replicas=2, rank=rank)
              for rank in range(2)]  # fmt: skip
    steps = [lengths[[*a, *b]].max() for a, b in zip(*shares, strict=True)]
    assert steps[:-1] == sorted(steps[:-1])


def test_steps_go_on_in_windows_and_with_workers(dataset):
    for given_options in ({"window": 1 << 20}, {"num_workers": 1}):
        loader = feature_loader(dataset, token_budget=100, steps_per_epoch=9, **given_options)
        assert len(loader) == 9
        epochs = []
        for _ in range(5):
            batches = list(loader)
            for batch in batches:
                assert batch.features.equal(dataset.gather(batch.indices).features)
            epochs.append([batch.indices.tolist() for batch in batches])
            assert len(batches) == 9
        seen = [i for batches in epochs for batch in batches for i in batch]
        assert sorted(seen[: len(dataset)]) == list(range(len(dataset)))
        again = feature_loader(dataset, token_budget=100, steps_per_epoch=9, **given_options)
        again.set_epoch(3)
        next(iter(again))
        state = again.state_dict()
        other = feature_loader(dataset, token_budget=100, steps_per_epoch=9, **given_options)
        other.load_state_dict(state)
        assert [batch.indices.tolist() for batch in other] == epochs[3][1:]
        assert [batch.indices.tolist() for batch in other] == epochs[4]


def test_mean_losses_weigh_alike_with_weights_and_steps(dataset):
    for given_options in ({"weights": "balanced"}, {"weights": "balanced", "steps_per_epoch": 50}):
        loader = feature_loader(dataset, token_budget=100, **given_options)
        for per in ("sentence", "token"):
            mean = np.mean([loader.weight(batch, per) for _ in range(4) for batch in loader])
            assert mean == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "one for each of 3 examples, in their order, found 2"),
        ([1, -1, 2], r"weights\[1\] is -1.0 \(1 of 3"),
        ([1, 2, float("nan")], r"weights\[2\] is nan"),
        ([1, float("inf"), 2], r"weights\[1\] is inf"),
        ([0, 0, 0], "all 3 are 0"),
        ([[1, 2, 3]], "a number for each of 3"),
        ([[1], [2, 3], 4], "a number for each of 3"),
        (["a", "b", "c"], "a number for each of 3"),
        ("even", "expected 'balanced' or a number"),
        (None, None),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused(weights, message):
    if message is None:
        assert len(list(BucketBatchSampler([3, 4, 5], weights=weights)))
        return
    with pytest.raises(UsageError, match=message):
        BucketBatchSampler([3, 4, 5], weights=weights)


def test_what_makes_no_sense_together_is_refused(dataset):
    plain = np.ones(len(dataset))
    for given_options, message in (
        ({"weights": plain, "order": "corpus"}, "leave out order='corpus'"),
        ({"weights": plain, "shuffle": False}, "leave out shuffle=False"),
        ({"weights": plain, "shuffle": "by length"}, "leave out shuffle='by length'"),
        ({"weights": plain, "window": 1 << 20}, "leave out window or weights"),
        ({"shuffle": "by length", "window": 1 << 20}, "leave out window or shuffle='by length'"),
        ({"shuffle": "by length", "order": "corpus"}, "leave out shuffle='by length'"),
        ({"shuffle": "by size"}, "expected True, False or 'by length'"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch=2.5"),
        ({"steps_per_epoch": 3, "uneven": "pad"}, "leave out uneven="),
    ):
        with pytest.raises(UsageError, match=message):
            feature_loader(dataset, **given_options)
    for other in ({"weights": plain}, {"shuffle": "by length"}):
        with pytest.raises(UsageError, match="leave out"):
            BucketBatchSampler(dataset.lengths, groups=[0, 5], **other)
    tagged = FeatureDataset(dataset.store, [Example(dataset.tokens(0), ("X",) * int(dataset.lengths[0]))])
    with pytest.raises(UsageError, match="a label for each token: give a number for each example"):
        feature_loader(tagged, weights="balanced")
    with pytest.raises(UsageError, match="have no labels"):
        feature_loader(FeatureDataset(dataset.store, [dataset.tokens(0)]), weights="balanced")


def test_a_state_of_another_kind_of_epoch_is_refused():
    def state(**given_options):
        sampler = BucketBatchSampler([4] * 50, token_budget=8, **given_options)
        next(iter(sampler))
        return sampler, sampler.state_dict()

    kinds = [{}, {"weights": [1] * 50}, {"weights": [1] * 49 + [2]}, {"steps_per_epoch": 3},
             {"steps_per_epoch": 4}, {"shuffle": "by length"}]  # fmt: skip
    for one, other in itertools.permutations(kinds, 2):
        with pytest.raises(StateError, match=r"weights|steps_per_epoch|shuffle"):
            state(**one)[0].load_state_dict(state(**other)[1])
    sampler, saved = state(steps_per_epoch=3)
    for wrong in (None, [1, 2], [0, -1, 0], "abc"):
        with pytest.raises(StateError, match="not one that state_dict"):
            sampler.load_state_dict({**saved, "stepped": wrong})


def test_an_epoch_before_the_one_that_was_begun_is_what_it_was():
    lengths = np.random.default_rng(0).integers(1, 30, 300)
    sampler = BucketBatchSampler(lengths, token_budget=60, steps_per_epoch=7)
    straight = [list(sampler) for _ in range(5)]
    for epoch in (1, 4, 0, 3):
        sampler.set_epoch(epoch)
        assert list(sampler) == straight[epoch]


def test_dropped_batches_of_many_pools_are_left_out_of_every_epoch_alike():
    lengths = np.random.default_rng(1).integers(1, 30, 400)
    sampler = BucketBatchSampler(lengths, token_budget=60, drop_last=True)
    epochs = [sampler.batches(epoch) for epoch in range(4)]
    assert {len(batches) for batches in epochs} == {len(sampler)}
    for batches in epochs:
        indices = np.concatenate(batches)
        assert len(np.unique(indices)) == len(indices) > 300


def test_a_large_dataset_is_permuted_a_pool_at_a_time(monkeypatch):
    monkeypatch.setattr(pools, "_DRAWN_WHOLE", 10)
    large = pools.EvenPools(500, seed=2, shuffle=True)
    monkeypatch.setattr(pools, "_DRAWN_WHOLE", 1 << 18)
    small = pools.EvenPools(500, seed=2, shuffle=True)
    assert large.count(0) > 1
    for pool in range(large.count(0)):
        assert np.array_equal(large.sentences(3, pool), small.sentences(3, pool))


def test_a_sentence_of_any_length_has_its_share_of_the_budget(monkeypatch):
    monkeypatch.setattr(planning, "_CHUNK", 16)
    lengths = np.random.default_rng(2).integers(1, 30, 300)
    sampler = BucketBatchSampler(lengths, token_budget=60)
    monkeypatch.setattr(planning, "_CHUNK", 1 << 22)
    assert len(sampler) == len(BucketBatchSampler(lengths, token_budget=60))
