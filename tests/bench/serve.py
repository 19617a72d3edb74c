"""Tokens served per second: our loader beside the layout AllenNLP writes (one HDF5 dataset per sentence).

Both hold the same float16 vectors of the same sentences and feed the same padded float32 batches to the same
DataLoader; both are warm. Prints one table and the ceiling: copying the same bytes in memory.

    python tests/bench/serve.py --sentences 8000
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from machine import machine
from torch.utils.data import DataLoader, Dataset

from featurestore import FeatureDataset, Recipe, Store, feature_loader
from featurestore.dataset.batch import FeatureBatch, length_mask


class OneDatasetPerSentence(Dataset):
    """What AllenNLP's `elmo` command writes, read as its users do: `file[str(i)][:]`."""

    def __init__(self, path: Path, n: int) -> None:
        self.path, self.n, self.file = path, n, None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> torch.Tensor:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        return torch.from_numpy(self.file[str(i)][:]).float()


def pad(items: list[torch.Tensor]) -> FeatureBatch:
    lengths = torch.tensor([len(item) for item in items])
    features = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
    return FeatureBatch(features, lengths, length_mask(lengths, int(lengths.max())), None, lengths)


def best_speed(batches: Callable[[], object], n_tokens: int, repeats: int) -> float:
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        served = sum(int(batch.lengths.sum()) for batch in batches())
        best = max(best, served / (time.perf_counter() - started))
        if served != n_tokens:
            raise RuntimeError(f"served {served} of {n_tokens} tokens")
    return best


@click.command()
@click.option("--sentences", default=8000, show_default=True)
@click.option("--dim", default=1024, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(sentences: int, dim: int, repeats: int, as_json: bool) -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.5, 0.75, sentences).round(), 1, 120).astype(int)
    corpus = [tuple(f"{i}_{j}" for j in range(n)) for i, n in enumerate(lengths)]
    n_tokens = int(lengths.sum())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "store", recipe=Recipe({"kind": "bench", "version": 1}), dim=dim)
        int8 = Store.create(
            Path(folder) / "int8", recipe=Recipe({"kind": "bench", "version": 1}), dim=dim, codec="int8"
        )
        per_sentence = Path(folder) / "allennlp.hdf5"
        with store.write() as session, int8.write() as small, h5py.File(per_sentence, "w") as file:
            for i, tokens in enumerate(corpus):
                vectors = random.standard_normal((len(tokens), dim), dtype=np.float32)
                session.add(tokens, vectors)
                small.add(tokens, vectors)
                file[str(i)] = vectors.astype(np.float16)

        peer = OneDatasetPerSentence(per_sentence, sentences)
        speed = best_speed(
            lambda: DataLoader(peer, batch_size=32, shuffle=True, collate_fn=pad), n_tokens, repeats
        )
        rows.append(("one HDF5 dataset per sentence, batches of 32", speed))
        for name, path in (("featurestore float16", store.path), ("featurestore int8", int8.path)):
            dataset = FeatureDataset(path, corpus)
            loader = feature_loader(dataset)
            rows.append(
                (
                    f"{name}, default loader, every checksum (first pass)",
                    best_speed(lambda loader=loader: loader, n_tokens, 1),
                )
            )
            rows.append(
                (f"{name}, default loader", best_speed(lambda loader=loader: loader, n_tokens, repeats))
            )
        source = np.zeros((n_tokens, dim), np.float16)
        target = np.empty_like(source)
        target[:] = source
        started = time.perf_counter()
        target[:] = source
        rows.append(
            ("ceiling: copying the float16 bytes in memory", n_tokens / (time.perf_counter() - started))
        )
    on = f"{machine()}, 1 thread"
    if as_json:
        print(json.dumps({"machine": on, "n_tokens": n_tokens, "tokens_per_second": dict(rows)}, indent=2))
        return
    print(f"{n_tokens:,} tokens of {dim} values, float32 batches; {on}")
    for name, value in rows:
        print(f"{name:65} {value / 1000:10,.0f} thousand tokens/s  {value / rows[0][1]:6.1f} x")


if __name__ == "__main__":
    main()
