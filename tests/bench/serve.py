"""Tokens served per second: our loader beside the layout AllenNLP writes (one HDF5 dataset per sentence).

All hold the same vectors of the same sentences and feed padded batches to the same DataLoader, warm, by turns
in one run; the best of the turns counts. The ceiling is copying the same float16 bytes in memory. "of memcpy"
compares bytes moved: those read as stored and written as served, padding not counted, against those that
copying reads and writes. All checksums are compared on the first pass and no more after it (the default).

    python tests/bench/serve.py --sentences 8000 --corpus train.conllu
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import click
import h5py
import numpy as np
import torch
from machine import machine
from torch.utils.data import DataLoader, Dataset

from featurestore import BucketBatchSampler, FeatureDataset, Recipe, Store, feature_loader, open_corpus
from featurestore.dataset.batch import FeatureBatch, length_mask

STORED_BYTES = {"float32": 4, "float16": 2, "int8": 1}


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


class Row(NamedTuple):
    """A row of the table: something to pass over, bytes moved a value, and how often at most."""

    name: str
    batches: Callable[[], Iterable]
    value_bytes: int
    turns: int = 1 << 30


def write_stores(folder: Path, corpus: list[tuple[str, ...]], dim: int) -> dict[str, Path]:
    random = np.random.default_rng(0)
    recipe = Recipe({"kind": "bench", "version": 1})
    stores = {
        codec: Store.create(folder / codec, recipe=recipe, dim=dim, codec=codec) for codec in STORED_BYTES
    }
    sessions = [store.write() for store in stores.values()]
    with h5py.File(folder / "allennlp.hdf5", "w") as file:
        for i, tokens in enumerate(corpus):
            vectors = random.standard_normal((len(tokens), dim), dtype=np.float32)
            for session in sessions:
                session.add(tokens, vectors)
            file[str(i)] = vectors.astype(np.float16)
    for session in sessions:
        session.flush()
        session.close()
    return {codec: store.path for codec, store in stores.items()}


def rows_of(stores: dict[str, Path], per_sentence: Path, corpus: list[tuple[str, ...]]) -> Iterable[Row]:
    peer = OneDatasetPerSentence(per_sentence, len(corpus))
    yield Row(
        "one HDF5 dataset per sentence, batches of 32",
        lambda: DataLoader(peer, batch_size=32, shuffle=True, collate_fn=pad),
        2 + 4,
    )
    for codec, path in stores.items():
        loader = feature_loader(FeatureDataset(path, corpus), window=None)
        moved = STORED_BYTES[codec] + 4
        yield Row(f"{codec}, first pass, every checksum", lambda loader=loader: loader, moved, 1)
        yield Row(f"{codec}, default loader", lambda loader=loader: loader, moved)
    halves = feature_loader(FeatureDataset(stores["float16"], corpus, dtype=torch.float16), window=None)
    yield Row("float16, float16 batches", lambda: halves, 2 + 2)
    for codec in ("float16", "int8"):
        resident = feature_loader(FeatureDataset(stores[codec], corpus, resident="cpu"))
        yield Row(f'{codec}, resident="cpu"', lambda loader=resident: loader, STORED_BYTES[codec] + 4)
    windowed = feature_loader(FeatureDataset(stores["float16"], corpus), window=128 << 20)
    yield Row("float16, windows of 128 MiB, from the disk", lambda: windowed, 2 + 4)
    workers = feature_loader(FeatureDataset(stores["float16"], corpus), window=None, num_workers=1)
    yield Row("float16, one worker process", lambda: workers, 2 + 4)


def seconds_of(batches: Iterable, n_tokens: int) -> float:
    started = time.perf_counter()
    served = sum(int(batch.lengths.sum()) for batch in batches)
    seconds = time.perf_counter() - started
    if served != n_tokens:
        raise RuntimeError(f"served {served} of {n_tokens} tokens")
    return seconds


def copy_seconds(n_tokens: int, dim: int) -> float:
    source = np.ones((n_tokens, dim), np.float16)  # zeros would all be one page of memory
    target = np.empty_like(source)
    target[:] = source
    started = time.perf_counter()
    target[:] = source
    return time.perf_counter() - started


@click.command()
@click.option("--sentences", default=8000, show_default=True)
@click.option("--dim", default=1024, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--corpus", "corpora", multiple=True, help="Also tell the padding on this corpus's lengths.")
@click.option("--quick", is_flag=True, help="1,000 sentences, two turns.")
@click.option("--json", "as_json", is_flag=True)
def main(
    sentences: int, dim: int, repeats: int, corpora: tuple[str, ...], quick: bool, as_json: bool
) -> None:
    torch.set_num_threads(1)
    logging.getLogger("featurestore").setLevel(logging.ERROR)
    sentences, repeats = (1000, 2) if quick else (sentences, repeats)
    lengths = np.random.default_rng(0).lognormal(2.5, 0.75, sentences).round().clip(1, 120).astype(int)
    corpus = [tuple(f"{i}_{j}" for j in range(n)) for i, n in enumerate(lengths)]
    n_tokens = int(lengths.sum())
    with tempfile.TemporaryDirectory() as folder:
        stores = write_stores(Path(folder), corpus, dim)
        rows = list(rows_of(stores, Path(folder) / "allennlp.hdf5", corpus))
        best: dict[str, float] = {}
        copying = copy_seconds(n_tokens, dim)
        for turn in range(repeats):
            for row in rows:
                if turn < row.turns:
                    seconds = seconds_of(row.batches(), n_tokens)
                    best[row.name] = min(best.get(row.name, seconds), seconds)
            copying = min(copying, copy_seconds(n_tokens, dim))
    padding = {"these lengths": BucketBatchSampler(lengths).padding()}
    for path in corpora:
        real = [len(example.tokens) for example in open_corpus(path)]
        padding[Path(path).name] = BucketBatchSampler(real).padding()
    result = {
        "machine": f"{machine()}, 1 thread",
        "n_tokens": n_tokens,
        "dim": dim,
        "tokens_per_second": {
            **{name: n_tokens / seconds for name, seconds in best.items()},
            "ceiling: copying the float16 bytes in memory": n_tokens / copying,
        },
        "of_memcpy": {row.name: copying / best[row.name] * row.value_bytes / 4 for row in rows},
        "int8_time_over_float16": best["int8, default loader"] / best["float16, default loader"],
        "padding": padding,
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(f"{n_tokens:,} tokens of {dim} values, float32 batches; {result['machine']}")
    first = n_tokens / best[rows[0].name]
    for name, value in result["tokens_per_second"].items():
        share = result["of_memcpy"].get(name, 1.0)
        print(
            f"{name:47} {value / 1000:8,.0f} thousand tokens/s {value / first:6.1f} x  {share:.2f} of memcpy"
        )
    print(f"int8 takes {result['int8_time_over_float16']:.2f} of float16's time")
    print("padding: " + ", ".join(f"{name} {value:.1%}" for name, value in padding.items()))


if __name__ == "__main__":
    main()
