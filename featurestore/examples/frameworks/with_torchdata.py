"""torchdata's StatefulDataLoader over our sampler, and DistributedDataParallel: resumed by its state."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torchdata.stateful_dataloader import StatefulDataLoader

from featurestore import FeatureDataset, collate, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command, join_processes


def train(dataset: FeatureDataset, model: Tagger, out: Path, max_epochs: int = 2, max_steps: int = 0) -> None:
    """Train a tagger in a loop of your own; how model and optimizer are saved is left out here."""
    join_processes()
    parallel = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    optimizer, done, saved = torch.optim.AdamW(model.parameters(), lr=1e-2), 0, out / "loader.json"
    sampler = feature_loader(dataset, seed=0).batch_sampler
    loader = StatefulDataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    if saved.exists():
        done, state = json.loads(saved.read_text())
        loader.load_state_dict(state)
    while done < (max_steps or max_epochs * len(loader)):
        for batch in loader:
            parallel(**batch)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == max_steps:
                break
    out.mkdir(exist_ok=True, parents=True)
    with saved.open("w") as file:
        json.dump([done, loader.state_dict()], file)


if __name__ == "__main__":
    command(train)()
