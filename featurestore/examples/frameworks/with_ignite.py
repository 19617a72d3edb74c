"""ignite: a loader is saved by its ``Checkpoint`` like a model, and goes on where it was."""

from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver

from featurestore import FeatureBatch, FeatureDataset, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command, join_processes


def train(dataset: FeatureDataset, model: Tagger, out: Path, max_epochs: int = 2, max_steps: int = 0) -> None:
    """Train a tagger with ignite."""
    join_processes()
    model = idist.auto_model(model)
    optimizer, loader = torch.optim.AdamW(model.parameters(), lr=1e-2), feature_loader(dataset, seed=0)

    def step(engine: Engine, batch: FeatureBatch) -> float:
        loss = model(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if engine.state.iteration == max_steps:
            engine.terminate()
        return float(loss)

    trainer = Engine(step)
    parts = {"trainer": trainer, "model": model, "optimizer": optimizer, "loader": loader}
    saving = Checkpoint(parts, DiskSaver(out, require_empty=False), filename_pattern="last.pt")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, saving)
    if (out / "last.pt").exists():
        Checkpoint.load_objects(parts, out / "last.pt")
    trainer.run(loader, max_epochs=max_epochs)


if __name__ == "__main__":
    command(train)()
