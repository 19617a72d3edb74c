"""What the examples of frameworks share: a model that takes ``model(**batch)``, and a command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from featurestore import FeatureDataset, Store
from featurestore.examples.common import ExampleCommand, labelled


class Tagger(nn.Module):
    """Looks at each vector alone; returns a loss and logits by name, as Hugging Face models do."""

    def __init__(self, dim: int, n_labels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_labels))

    def forward(self, features: Tensor, labels: Tensor, **others: Any) -> dict[str, Tensor]:
        """Return the loss and (batch, longest, n_labels) logits; ``others`` is what else a batch has."""
        logits = self.layers(features)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


class Steps:
    """How many steps are done; frameworks save and load it as they do a model."""

    def __init__(self) -> None:
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        """Return what is saved."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take what was saved."""
        self.done = state["done"]


def join_processes() -> None:
    """Make one group of the processes that ``torchrun`` started, if it did."""
    if "RANK" in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def command(train: Callable[..., object]) -> click.Command:
    """Return a command that trains on a corpus; given the same folder again, it resumes what is there."""

    @click.command(cls=ExampleCommand, help=train.__doc__)
    @click.option("--store", required=True)
    @click.option("--train", "corpus", type=Path, required=True)
    @click.option("--label", default="upos", show_default=True)
    @click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
    @click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="runs/framework")
    def main(store: str, corpus: Path, label: str, epochs: int, out: Path) -> None:
        torch.manual_seed(0)
        dataset = FeatureDataset(Store.open(store), labelled(corpus, label, "token"))
        train(dataset, Tagger(dataset.dim, len(dataset.labels)), out, max_epochs=epochs)

    return main
