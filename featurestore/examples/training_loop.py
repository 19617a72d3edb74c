"""A training loop of your own over stored vectors: a part-of-speech tagger in plain PyTorch.

Run it on the sample corpora after bin/demo::

    python -m featurestore.examples.training_loop --store features/demo \\
        --train data/tagging/train.conllu --dev data/tagging/dev.conllu --label upos
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import nn

from featurestore import FeatureDataset, Store, feature_loader
from featurestore.examples.common import ExampleCommand, labelled


@click.command(cls=ExampleCommand)
@click.option("--store", required=True)
@click.option("--train", type=Path, required=True)
@click.option("--dev", type=Path, required=True)
@click.option("--label", default="upos", show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
def main(store: str, train: Path, dev: Path, label: str, epochs: int) -> None:
    """Train a tagger that looks at each vector alone."""
    torch.manual_seed(0)
    opened = Store.open(store)
    training = FeatureDataset(opened, labelled(train, label, "token"))
    development = FeatureDataset(
        opened, labelled(dev, label, "token"), labels=training.labels, unseen_labels="keep"
    )

    model = nn.Sequential(nn.LayerNorm(training.dim), nn.Linear(training.dim, len(training.label_names)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = feature_loader(training, token_budget=1024, seed=0)  # each pass shuffles anew
    for epoch in range(1, epochs + 1):
        for batch in loader:
            loss = nn.functional.cross_entropy(model(batch.features)[batch.mask], batch.labels[batch.mask])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
        right = total = 0
        with torch.no_grad():
            for batch in feature_loader(development, shuffle=False):
                right += int((model(batch.features).argmax(-1) == batch.labels)[batch.mask].sum())
                total += int(batch.mask.sum())
        print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy on dev {right / total:.3f}")


if __name__ == "__main__":
    main()
