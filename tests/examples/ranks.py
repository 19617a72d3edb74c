"""An example of a framework run by processes that train together: what each was given, step by step."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from featurestore import FeatureDataset, feature_loader
from featurestore.examples.frameworks.tagger import Tagger

TOKEN_BUDGET = 48


class Step(NamedTuple):
    """The batch of a step: its examples by position, their lengths and labels, and the vectors' sum."""

    indices: list[int]
    lengths: list[int]
    labels: list[list[int]]
    features: list[float]


class WatchedTagger(Tagger):
    """The examples' model, which writes down what it is given."""

    def __init__(self, dim: int, n_labels: int) -> None:
        super().__init__(dim, n_labels)
        self.steps: list[Step] = []

    def forward(self, features: Tensor, labels: Tensor, **others: Any) -> dict[str, Tensor]:
        if self.training:
            sums = features.sum((1, 2)).tolist()
            indices, lengths = others["indices"].tolist(), others["lengths"].tolist()
            self.steps.append(Step(indices, lengths, labels.tolist(), sums))
        return super().forward(features, labels, **others)


class Run(NamedTuple):
    """What one process was given in one call of an example, and the weights it ended with."""

    steps: list[Step]
    weights: list[list[float]]


def run_alone(name: str, dataset: FeatureDataset, runs: list[tuple[Path, dict[str, Any]]]) -> list[Run]:
    """Call ``train`` of an example one time after the other, with small batches."""
    module = importlib.import_module(f"featurestore.examples.frameworks.{name}")
    module.feature_loader = functools.partial(feature_loader, token_budget=TOKEN_BUDGET)
    found = []
    for out, options in runs:
        torch.manual_seed(0)
        model = WatchedTagger(dataset.dim, len(dataset.labels))
        module.train(dataset, model, out, **options)
        found.append(Run(model.steps, [weight.flatten().tolist() for weight in model.parameters()]))
    return found


def run_together(
    name: str, dataset: FeatureDataset, runs: list[tuple[Path, dict[str, Any]]], n_ranks: int = 2
) -> list[list[Run]]:
    """Do that in processes that train together over gloo; return what each found."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_rank, args=(rank, n_ranks, port, name, dataset, runs, answers))
        for rank in range(n_ranks)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=200) for _ in processes)
    for process in processes:
        process.join(60)
    failed = [answer for answer in found.values() if isinstance(answer, str)]
    if failed:
        raise AssertionError("\n".join(failed))
    return [found[rank] for rank in range(n_ranks)]


def _rank(
    rank: int, n_ranks: int, port: int, name: str, dataset: FeatureDataset, runs: Any, answers: Any
) -> None:
    """Be one process of several, as torchrun and accelerate start them."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(n_ranks),
        LOCAL_WORLD_SIZE=str(n_ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="tests", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    if "accelerate.state" in sys.modules:  # the test's process may have been one of one
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)
    try:
        answers.put((rank, run_alone(name, dataset, runs)))
    except BaseException:  # noqa: BLE001 - the parent raises it
        answers.put((rank, traceback.format_exc()))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
