"""DataLoader workers over many epochs: the batches of one process to the bit, in memory that stays."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from featurestore import Example, FeatureDataset, Recipe, Store, feature_loader

START_METHODS = ("fork", "spawn", "forkserver")
TENSORS = ("features", "lengths", "mask", "labels", "indices")


@dataclass(frozen=True)
class Epochs:
    """What workers gave in some epochs.

    Attributes
    ----------
    n_batches : int
    different : list of str
        Batches that were not those of this process, by epoch and number.
    growth : float
        By how much the resident memory of the process that grew most did, this one included, from the second
        epoch to the last.
    """

    n_batches: int
    different: list[str]
    growth: float


def run_epochs(
    dataset: FeatureDataset, method: str, *, n_epochs: int = 20, n_workers: int = 2, token_budget: int = 60
) -> Epochs:
    """Read epochs by workers, and in this process, and compare."""
    loader = feature_loader(
        dataset,
        token_budget=token_budget,
        seed=2,
        num_workers=n_workers,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    here = feature_loader(dataset, token_budget=token_budget, seed=2)
    different, n_batches = [], 0
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for epoch in range(n_epochs):
        for number, (ours, theirs) in enumerate(zip(here, loader, strict=True)):
            n_batches += 1
            if not all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in TENSORS):
                different.append(f"epoch {epoch}, batch {number}")
        gc.collect()
        last = dict(_resident())
        if epoch == 1:
            first = last
    return Epochs(n_batches, different, max(last[pid] / first[pid] - 1 for pid in first))


def _resident() -> Iterator[tuple[int, int]]:
    """Yield process numbers and the kilobytes in memory of this process and its workers."""
    workers = [child.pid for child in multiprocessing.active_children()]
    for pid in (os.getpid(), *workers):
        (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        yield int(pid or 0), int(kilobytes)


def example_dataset(path: Path, n_sentences: int) -> FeatureDataset:
    """Make a store of random vectors and return it as a dataset of labelled sentences."""
    random = np.random.default_rng(0)
    store = Store.create(path, recipe=Recipe({"kind": "random", "version": 1}), dim=256, codec="float16")
    examples = []
    with store.write() as session:
        for number in range(n_sentences):
            tokens = (f"s{number}", *(f"w{word}" for word in random.integers(500, size=random.integers(30))))
            session.add(tokens, random.normal(size=(len(tokens), 256)).astype(np.float32))
            examples.append(Example(tokens, tuple("even" if len(t) % 2 else "odd" for t in tokens)))
    return FeatureDataset(store.refreshed(), examples)
