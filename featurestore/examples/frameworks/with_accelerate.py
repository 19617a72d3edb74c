"""Accelerate: ``prepare`` shares the batches out; ``set_epoch`` and ``skip_first_batches`` resume exactly."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate import Accelerator

from featurestore import FeatureDataset, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command


def train(
    dataset: FeatureDataset, model: Tagger, out: Path, *, epochs: int = 2, steps: int | None = None
) -> None:
    """Train a tagger with Accelerate."""
    accelerator = Accelerator()
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.AdamW(model.parameters(), lr=1e-2), feature_loader(dataset, seed=0)
    )
    done = 0
    if (out / "steps.json").exists():
        accelerator.load_state(out)
        done = json.loads((out / "steps.json").read_text())
    for epoch in range(done // len(loader), epochs):
        loader.set_epoch(epoch)
        for batch in accelerator.skip_first_batches(loader, done % len(loader)):
            accelerator.backward(model(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                accelerator.save_state(out)
                (out / "steps.json").write_text(json.dumps(done))
                return


if __name__ == "__main__":
    command(train)()
