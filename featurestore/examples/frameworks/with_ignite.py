"""ignite: a loader is saved by its ``Checkpoint`` like a model, and goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver

from featurestore import FeatureBatch, FeatureDataset, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command, join_processes


def train(dataset: FeatureDataset, model: Tagger, out: Path, *, epochs: int = 2, steps: int = 0) -> None:
    """Train a tagger with ignite."""
    join_processes()
    model = idist.auto_model(model)  # in several processes, DistributedDataParallel
    optimizer, loader = torch.optim.AdamW(model.parameters(), lr=1e-2), feature_loader(dataset, seed=0)

    def step(engine: Engine, batch: FeatureBatch) -> float:
        loss = model(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    trainer = Engine(step)
    parts: dict[str, Any] = {"trainer": trainer, "model": model, "optimizer": optimizer, "loader": loader}
    saving = Checkpoint(parts, DiskSaver(str(out), require_empty=False), filename_pattern="last.pt")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, saving)
    if (out / "last.pt").exists():
        Checkpoint.load_objects(parts, torch.load(out / "last.pt", weights_only=True))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=steps or 10**9), lambda engine: engine.terminate())
    trainer.run(loader, max_epochs=epochs)


if __name__ == "__main__":
    command(train)()
