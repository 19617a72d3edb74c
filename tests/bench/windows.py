"""A store larger than memory: windowed reading beside what the disk gives, and how well windows shuffle.

Writes a store of at least 2 GB, drops it from the page cache, and reads it in epochs: in windows, beside
plain direct reads of 8 MiB of the same files, turn by turn in one run (a turn is two passes of a new loader);
and at random from mapped memory, cold. Of the shuffle it tells, each relative to a full shuffle of the same
sentences: how far a sentence is moved (mean absolute displacement), how much the order of an epoch still
follows the store's (rank correlation, 0 for a full shuffle), how many pairs of a batch lie within 1% of the
store of each other, and the padding.

    python tests/bench/windows.py --gigabytes 2
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
import torch
from machine import machine

from featurestore import FeatureDataset, Recipe, Store, feature_loader

READ_BYTES = 8 << 20
WINDOWS = 512 << 20  # what "auto" takes
DIM = 1024


def write_store(path: Path, n_tokens: int) -> list[tuple[str, ...]]:
    random = np.random.default_rng(0)
    store = Store.create(path, recipe=Recipe({"kind": "bench", "version": 1}), dim=DIM)
    vectors = random.standard_normal((4096, DIM), dtype=np.float32)
    corpus, written = [], 0
    with store.write() as session:
        while written < n_tokens:
            n = int(np.clip(random.lognormal(2.5, 0.75), 1, 120))
            tokens = tuple(f"{len(corpus)}_{j}" for j in range(n))
            start = int(random.integers(0, len(vectors) - n))
            session.add(tokens, vectors[start : start + n])
            corpus.append(tokens)
            written += n
    return corpus


def drop_from_page_cache(store: Path) -> None:
    for path in (store / "shards").iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_directly(store: Path) -> float:
    """Return the bytes a second that large reads past the page cache give, of all shards."""
    room, n_bytes = mmap.mmap(-1, READ_BYTES), 0
    started = time.perf_counter()
    for path in sorted((store / "shards").iterdir()):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        offset = 0
        while step := os.preadv(descriptor, [room], offset):
            offset += step
            if step % 4096:
                break
        os.close(descriptor)
        n_bytes += offset
    return n_bytes / (time.perf_counter() - started)


def serve(batches: Iterable, seconds: float = 1e9) -> float:
    """Return the tokens a second of a pass, or of its first seconds."""
    started, n_tokens = time.perf_counter(), 0
    for batch in batches:
        n_tokens += int(batch.lengths.sum())
        if time.perf_counter() - started > seconds:
            break
    return n_tokens / (time.perf_counter() - started)


def shuffle_quality(sampler, place: np.ndarray) -> dict[str, float]:
    """Tell how an epoch's order relates to the store's, in which ``place`` is the rank of each sentence."""
    batches = sampler.batches(0)
    drawn = np.concatenate(batches)
    n = len(drawn)
    ranks = place[drawn]
    random = np.random.default_rng(0)
    near = []
    for batch in batches:
        if len(batch) > 1:
            one, other = place[batch], place[random.permutation(batch)]
            near.extend(np.abs(one - other)[one != other] < n / 100)
    return {
        "displacement": float(np.abs(ranks - np.arange(n)).mean()) / (n / 3),
        "rank_correlation": float(np.corrcoef(ranks, np.arange(n))[0, 1]),
        "near_pairs": float(np.mean(near)) / (1 - (1 - 1 / 100) ** 2),
        "padding": sampler.padding(),
    }


@click.command()
@click.option("--gigabytes", default=2.0, show_default=True)
@click.option("--turns", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="200 MB, one turn.")
@click.option("--json", "as_json", is_flag=True)
def main(gigabytes: float, turns: int, quick: bool, as_json: bool) -> None:
    torch.set_num_threads(1)
    gigabytes, turns = (0.2, 1) if quick else (gigabytes, turns)
    result: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        corpus = write_store(path, int(gigabytes * 1e9 / (2 * DIM)))
        dataset = FeatureDataset(path, corpus)
        row_bytes = 2 * DIM  # float16
        result["n_bytes"] = dataset.stored_bytes
        for memory in (128 << 20, 512 << 20):
            loader = feature_loader(dataset, window=memory)
            quality = shuffle_quality(loader.batch_sampler, np.arange(len(dataset)))
            result[f"shuffle, {memory >> 20} MiB for windows"] = quality
        full = feature_loader(dataset, window=None)
        result["shuffle, full"] = shuffle_quality(full.batch_sampler, np.arange(len(dataset)))
        drop_from_page_cache(path)
        result["cold, random from mapped memory, bytes a second"] = serve(full, 10) * row_bytes
        for dtype in (torch.float32, torch.float16):
            served = FeatureDataset(path, corpus, dtype=dtype)
            loader = feature_loader(served, window=WINDOWS)
            drop_from_page_cache(path)
            name = str(dtype).removeprefix("torch.")
            first = serve(loader) * row_bytes
            disk, windowed = [], []
            for _ in range(turns):
                disk.append(read_directly(path))
                drop_from_page_cache(path)
                loader = feature_loader(served, window=WINDOWS)
                windowed.append(serve(itertools.chain(loader, loader)) * row_bytes)
            result[f"windows, {name} batches"] = {
                "first_pass_with_checksums": first,
                "later_passes": windowed,
                "direct_reads": disk,
                "of_the_disk": float(np.median(np.array(windowed) / np.array(disk))),
            }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        with contextlib.suppress(AttributeError):
            value = ", ".join(f"{key} {np.round(item, 3)}" for key, item in value.items())  # type: ignore[attr-defined]
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
