"""Lightning: a bare ``feature_loader`` handed to ``Trainer.fit``, in one process or several, resumed exactly."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from featurestore import FeatureBatch, FeatureDataset, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command


class LightningTagger(lightning.LightningModule):
    def __init__(self, model: Tagger) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: FeatureBatch) -> torch.Tensor:
        return self.model(**batch)["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(
    dataset: FeatureDataset, model: Tagger, out: Path, *, epochs: int = 2, steps: int = -1, devices: int = 1
) -> None:
    """Train a tagger with Lightning."""
    saving = ModelCheckpoint(out, every_n_train_steps=1, save_last=True)
    trainer = lightning.Trainer(
        max_epochs=epochs, max_steps=steps, accelerator="cpu", devices=devices, callbacks=[saving], logger=False
    )
    last = out / "last.ckpt"
    trainer.fit(LightningTagger(model), feature_loader(dataset, seed=0), ckpt_path=last if last.exists() else None)


if __name__ == "__main__":
    command(train)()
