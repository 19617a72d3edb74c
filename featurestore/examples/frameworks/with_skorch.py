"""skorch: ``get_iterator`` returns a ``feature_loader``; training goes on after the last saved epoch."""

from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Checkpoint

from featurestore import FeatureDataset, collate, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command


class FeatureNet(NeuralNet):
    def get_iterator(self, dataset: FeatureDataset, training: bool = False) -> Any:
        loader = feature_loader(dataset, shuffle=training, seed=0, collate_fn=pair)
        loader.set_epoch(len(self.history))  # another order when it goes on
        return loader

    def get_loss(self, y_pred: dict[str, torch.Tensor], y_true: Any, **others: Any) -> torch.Tensor:
        return y_pred["loss"]


def pair(items: Any) -> Any:
    return (batch := collate(items)), batch.labels


def train(dataset: FeatureDataset, model: Tagger, out: Path, max_epochs: int = 2) -> None:
    """Train a tagger with skorch."""
    saving = Checkpoint(dirname=out, monitor=None)
    options = {"optimizer": torch.optim.AdamW, "train_split": None, "callbacks": [saving]}
    net = FeatureNet(model, torch.nn.Identity, **options)
    net.initialize()
    if (out / "params.pt").exists():
        net.load_params(checkpoint=saving)
    net.partial_fit(dataset, epochs=max_epochs - len(net.history))


if __name__ == "__main__":
    command(train)()
