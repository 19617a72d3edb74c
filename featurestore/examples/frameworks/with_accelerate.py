"""Accelerate: ``prepare`` shares batches out; ``set_epoch`` and ``skip_first_batches`` resume exactly."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from featurestore import FeatureDataset, feature_loader
from featurestore.examples.frameworks.tagger import Steps, Tagger, command


def train(dataset: FeatureDataset, model: Tagger, out: Path, max_epochs: int = 2, max_steps: int = 0) -> None:
    """Train a tagger with Accelerate."""
    accelerator, progress = Accelerator(), Steps()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, feature_loader(dataset, seed=0))
    accelerator.register_for_checkpointing(progress)
    if out.exists():
        accelerator.load_state(str(out))
    for epoch in range(progress.done // len(loader), max_epochs):
        loader.set_epoch(epoch)
        for batch in accelerator.skip_first_batches(loader, progress.done % len(loader)):
            accelerator.backward(model(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
            progress.done += 1
            if progress.done == max_steps:
                break
        accelerator.save_state(str(out))
        if progress.done == max_steps:
            break


if __name__ == "__main__":
    command(train)()
