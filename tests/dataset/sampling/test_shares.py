"""Processes that train together: real ones find their share, of like cost, and nothing is lost."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch.distributed

from featurestore import BucketBatchSampler, FeatureDataset, extract, feature_loader, open_corpus
from featurestore.dataset import loader as loading
from featurestore.dataset.sampling import processes
from featurestore.dataset.sampling.windows import WindowBatchSampler
from featurestore.errors import UsageError
from tests.kit.doubles import DoubleEncoder, draw_sentences

gloo = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)
EVERYTHING = 10**6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FeatureDataset:
    path = tmp_path_factory.mktemp("shares") / "store"
    sentences = draw_sentences(120)
    extract(sentences, DoubleEncoder(), path, shard_bytes=4_000, progress=False)
    return FeatureDataset(path, sentences)


class Answer(NamedTuple):
    rank: int
    n_expected: int
    batches: list[list[int]]
    n_wrong: int
    state: dict


def work(rank: int, n: int, group: str, dataset, window, state, n_steps: int, answers) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{group}", world_size=n, rank=rank)
    loader = feature_loader(dataset, token_budget=40, seed=3, window=window)
    if state is not None:
        loader.load_state_dict(state)
    batches, n_wrong = [], 0
    for _, batch in zip(range(n_steps), loader, strict=False):
        batches.append(batch.indices.tolist())
        n_wrong += not torch.equal(batch.features, dataset.gather(batch.indices).features)
    answers.put(Answer(rank, len(loader), batches, n_wrong, loader.state_dict()))
    torch.distributed.destroy_process_group()


def run(folder: Path, dataset, n: int, *, window=None, state=None, n_steps: int = EVERYTHING) -> list[Answer]:
    """Let ``n`` processes of a gloo group load, and return what each of them got."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    group = folder / f"group-{len(list(folder.iterdir()))}"
    started = [
        context.Process(target=work, args=(rank, n, group, dataset, window, state, n_steps, answers))
        for rank in range(n)
    ]
    for process in started:
        process.start()
    found = sorted(answers.get(timeout=120) for _ in started)
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    group.touch()
    return found


@gloo
@pytest.mark.parametrize("window", [None, 1 << 20])
def test_an_epoch_of_several_processes_is_that_of_one(dataset, tmp_path, window):
    alone = [set(batch.indices.tolist()) for batch in feature_loader(
        dataset, token_budget=40, seed=3, window=window)]  # fmt: skip
    for n in (1, 2, 3, 4):
        found = run(tmp_path, dataset, n, window=window)
        assert {len(answer.batches) for answer in found} == {found[0].n_expected}
        assert found[0].n_expected == -(-len(alone) // n)
        assert sum(answer.n_wrong for answer in found) == 0
        assert sorted(i for answer in found for batch in answer.batches for i in batch) == list(range(120))
        for answer in found:
            assert all(any(set(batch) <= whole for whole in alone) for batch in answer.batches)
        assert [answer.state for answer in found] == [found[0].state] * n


@gloo
@pytest.mark.parametrize("window", [None, 3_000])
def test_a_job_goes_on_with_another_number_of_processes(dataset, tmp_path, window, monkeypatch):
    monkeypatch.setattr(loading, "_LEAST_MEMORY", 1)
    seen, state = [], None
    for n, n_steps in ((4, 3), (2, 2), (3, EVERYTHING)):
        found = run(tmp_path, dataset, n, window=window, state=state, n_steps=n_steps)
        assert sum(answer.n_wrong for answer in found) == 0
        assert len({len(answer.batches) for answer in found}) == 1
        seen.extend(i for answer in found for batch in answer.batches for i in batch)
        state = found[-1].state
    assert sorted(seen) == list(range(120))
    assert state["epoch"] == 1


def test_a_share_is_found_when_a_pass_begins_and_is_said_once(dataset, monkeypatch, caplog):
    processes._say_shared.cache_clear()
    caplog.set_level(logging.WARNING)
    loader = feature_loader(dataset, token_budget=40)
    everything = len(loader)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert len(loader) == -(-everything // 3)
    assert (loader.sampler.num_replicas, loader.sampler.rank) == (3, 1)
    found = sum(len(batch) for batch in loader)
    assert 0 < found < 0.6 * len(dataset)
    assert sum(len(batch) for batch in feature_loader(dataset, num_replicas=1)) == len(dataset)
    [message] = caplog.messages
    assert "process 1 of 3 by RANK and WORLD_SIZE" in message
    assert "num_replicas=1" in message


def lengths_like_ud(shared) -> np.ndarray:
    path = shared("corpora/ud-ewt/en_ewt-ud-train.conllu")
    return np.array([len(example.tokens) for example in open_corpus(path)])


class SixteenWindows:
    """As a store of sixteen shards would be cut, four windows to a pool."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.of = np.arange(len(lengths)) * 16 // len(lengths)
        self.regions = list(range(16))
        self.n_bytes = np.bincount(self.of, lengths).astype(np.int64)
        self.pool_bytes = int(self.n_bytes.sum()) // 4


@pytest.mark.shared
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("options", [{}, {"max_sentences": 64}, {"token_budget": 512, "max_sentences": 32}])
def test_processes_carry_alike_and_wait_little_for_each_other(shared, options, windows):
    lengths = lengths_like_ud(shared)

    def sampler(n, rank):
        if windows:
            cut = SixteenWindows(lengths)
            return WindowBatchSampler(lengths, cut, num_replicas=n, rank=rank, **options)
        return BucketBatchSampler(lengths, num_replicas=n, rank=rank, **options)

    for n in (2, 3, 4):
        costs = np.array([[len(batch) * lengths[batch].max() for batch in sampler(n, rank).batches(0)]
                          for rank in range(n)])  # fmt: skip
        carried = costs.sum(1)
        assert carried.max() < 1.03 * carried.mean()
        assert costs.max(0).sum() < 1.1 * carried.mean()  # the dearest of each step is waited for


def test_the_end_may_be_split_dropped_padded_or_uneven():
    lengths = [5] * 21  # eleven batches

    def counts(uneven):
        ranks = [BucketBatchSampler(lengths, token_budget=10, num_replicas=4, rank=rank, uneven=uneven)
                 for rank in range(4)]  # fmt: skip
        batches = [list(one) for one in ranks]
        assert [len(one) for one in ranks] == list(map(len, batches))
        seen = [i for of_rank in batches for batch in of_rank for i in batch]
        return [len(of_rank) for of_rank in batches], len(seen), len(set(seen))

    assert counts("split") == ([3, 3, 3, 3], 21, 21)
    steps, n_seen, n_different = counts("drop")
    assert (steps, n_seen) == ([2, 2, 2, 2], n_different)
    assert n_seen in (15, 16)
    steps, n_seen, n_different = counts("pad")
    assert (steps, n_different) == ([3, 3, 3, 3], 21)
    assert n_seen in (22, 23)
    assert counts("join") == ([3, 3, 3, 2], 21, 21)


def test_what_is_dealt_again_is_counted():
    repeats = []
    for rank in range(4):
        sampler = BucketBatchSampler([5] * 21, token_budget=10, num_replicas=4, rank=rank, uneven="pad")
        counts = [sampler.repeats for _ in sampler]
        assert counts[:-1] == [0, 0]
        repeats.append(counts[-1])
    assert repeats == [0, 0, 0, 1]


def test_all_batches_in_turn_are_those_of_the_ranks():
    def sampler(rank=0):
        return BucketBatchSampler([3, 9, 4, 4, 7, 2, 2, 8] * 9, token_budget=20, num_replicas=3, rank=rank)

    whole = sampler()
    whole.whole = True
    in_turn = [batch for step in zip(*(sampler(rank) for rank in range(3)), strict=True) for batch in step]
    assert list(whole) == in_turn
    assert len(whole) == len(in_turn)


def test_more_processes_than_sentences_are_refused(dataset):
    loader = feature_loader(dataset, num_replicas=121, rank=0)
    for use in (len, list, lambda loader: next(iter(loader))):
        with pytest.raises(UsageError, match="121 processes cannot share 120 sentences"):
            use(loader)
    with pytest.raises(UsageError, match="give num_replicas= too"):
        feature_loader(dataset, rank=1)


def test_weights_make_means_of_batches_means_of_sentences(dataset):
    loader = feature_loader(dataset, token_budget=40)
    for per, value in (("sentence", lambda b: b.features.sum((1, 2)).mean()),
                       ("token", lambda b: b.features[b.mask].mean())):  # fmt: skip
        means = [loader.weight(batch, per) * value(batch) for batch in loader]
        every = dataset.gather(range(len(dataset)))
        assert torch.stack(means).mean() == pytest.approx(float(value(every)), rel=1e-4)
        assert sum(loader.weight(batch, per) for batch in loader) == pytest.approx(len(loader))
    with pytest.raises(UsageError, match="per='word'"):
        loader.weight(next(iter(loader)), "word")
