"""Processes that train together: whoever forgets to share the examples out is told how."""

from __future__ import annotations

import logging
import multiprocessing

import pytest
import torch.distributed

from featurestore import FeatureDataset, extract, feature_loader
from featurestore.dataset.sampling import processes
from featurestore.dataset.sampling.processes import process_count
from tests.kit.doubles import DoubleEncoder, draw_sentences


@pytest.fixture
def dataset(tmp_path) -> FeatureDataset:
    sentences = draw_sentences(20)
    extract(sentences, DoubleEncoder(), tmp_path / "store", progress=False)
    return FeatureDataset(tmp_path / "store", sentences)


def test_several_processes_without_a_share_each_are_warned_once(dataset, monkeypatch, caplog):
    processes._warn_of_replicas.cache_clear()
    caplog.set_level(logging.WARNING)
    feature_loader(dataset)
    monkeypatch.setenv("WORLD_SIZE", "1")
    feature_loader(dataset)
    monkeypatch.setenv("WORLD_SIZE", "2")
    feature_loader(dataset, num_replicas=2, rank=1)
    feature_loader(dataset, num_replicas=1)
    assert caplog.messages == []
    for _ in range(2):
        assert sum(len(batch) for batch in feature_loader(dataset)) == len(dataset)
    [message] = caplog.messages
    assert "2 processes" in message
    assert "num_replicas=2, rank=torch.distributed.get_rank()" in message


def joined(rank: int, path: str, answers) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", world_size=2, rank=rank)
    answers.put(process_count())
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_processes_are_counted_by_their_group(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert process_count() == 1
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=joined, args=(rank, tmp_path / "group", answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == [2, 2]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
