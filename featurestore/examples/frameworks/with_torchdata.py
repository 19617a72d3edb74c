"""torchdata's StatefulDataLoader with our sampler, and plain DistributedDataParallel: resumed with one state."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torchdata.stateful_dataloader import StatefulDataLoader

from featurestore import FeatureDataset, collate, feature_loader
from featurestore.examples.frameworks.tagger import Tagger, command, join_processes


def train(
    dataset: FeatureDataset, model: Tagger, out: Path, *, epochs: int = 2, steps: int | None = None
) -> None:
    """Train a tagger with a loop of your own and torchdata."""
    join_processes()
    parallel = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    sampler = feature_loader(dataset, seed=0).batch_sampler
    loader = StatefulDataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    optimizer, done, last = torch.optim.AdamW(model.parameters(), lr=1e-2), 0, out / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        done = saved["done"]
        for part, state in zip((model, optimizer, loader), saved["states"], strict=True):
            part.load_state_dict(state)
    while done < (steps or epochs * len(loader)):
        for batch in loader:
            parallel(**batch)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
    out.mkdir(exist_ok=True, parents=True)
    torch.save({"done": done, "states": [part.state_dict() for part in (model, optimizer, loader)]}, last)


if __name__ == "__main__":
    command(train)()
