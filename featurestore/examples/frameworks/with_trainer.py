"""The Hugging Face Trainer: ``get_train_dataloader`` returns a ``feature_loader``; it resumes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from featurestore import FeatureDataset, collate, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command


class FeatureTrainer(Trainer):
    def get_train_dataloader(self) -> DataLoader[Any]:
        return self.accelerator.prepare(feature_loader(self.train_dataset, seed=self.args.seed))


def train(
    dataset: FeatureDataset, model: Tagger, out: Path, max_epochs: int = 2, max_steps: int = -1
) -> None:
    """Train a tagger with the Hugging Face Trainer."""
    arguments = TrainingArguments(
        str(out), num_train_epochs=max_epochs, max_steps=max_steps, save_steps=1, save_total_limit=1,
        use_cpu=True, optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", report_to=[],
    )  # fmt: skip
    trainer = FeatureTrainer(model, arguments, train_dataset=dataset, data_collator=collate)
    trainer.train(resume_from_checkpoint=any(out.glob("checkpoint-*")))


if __name__ == "__main__":
    command(train)()
