"""Lightning: a bare ``feature_loader`` handed to ``Trainer.fit``; a checkpoint resumes it exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def train(dataset: FeatureDataset, model: Tagger, out: Path, **options: Any) -> None:
    """Train a tagger with Lightning; ``options`` are those of its Trainer."""
    saving = ModelCheckpoint(out, every_n_train_steps=1, save_last=True)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, callbacks=[saving], **options)
    last = out / "last.ckpt" if (out / "last.ckpt").exists() else None
    trainer.fit(LightningTagger(model), feature_loader(dataset, seed=0), ckpt_path=last)


if __name__ == "__main__":
    command(train)()
