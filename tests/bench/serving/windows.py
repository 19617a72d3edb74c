"""A store larger than memory: windowed reading beside what the disk gives, and how well windows shuffle.

Writes a store of 6 GB, drops it from the page cache, and reads it in epochs: in windows, beside
plain direct reads of 8 MiB of the same files, turn by turn in one run (a turn is two passes of a new loader);
and at random from mapped memory, cold. Of the shuffle it tells, each relative to a full shuffle of the same
sentences: how far a sentence is moved (mean absolute displacement), how much the order of an epoch still
follows the store's (rank correlation, 0 for a full shuffle), how many pairs of a batch lie within 1% of the
store of each other, and the padding.

    python -m tests.bench.serving.windows --gigabytes 6
"""

from __future__ import annotations

import itertools
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from featurestore import FeatureDataset, feature_loader
from tests.bench.figures import Table
from tests.bench.random_store import write_store
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.texts import enough_sentences

READ_BYTES = 8 << 20
WINDOWS = 512 << 20  # what "auto" takes
DIM = 1024
ROW_BYTES = 2 * DIM  # float16


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


def shuffle_quality(sampler: Any, place: np.ndarray) -> list[str]:
    """Tell how an epoch's order relates to the store's, in which ``place`` is the rank of each sentence.

    Returns what the columns show: displacement, rank correlation, near pairs, padding.
    """
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
    return [
        f"{np.abs(ranks - np.arange(n)).mean() / (n / 3):.2f}",
        f"{np.corrcoef(ranks, np.arange(n))[0, 1]:+.3f}",
        f"{np.mean(near) / (1 - (1 - 1 / 100) ** 2):.1f}",
        f"{100 * sampler.padding():.1f}%",
    ]


def in_windows(path: Path, sentences: list[tuple[str, ...]], dtype: torch.dtype, turns: int) -> list[float]:
    """Return bytes a second: the first pass, which compares checksums, later ones, and direct reads by turns.

    The third is the median of the turns' shares of the disk.
    """
    dataset = FeatureDataset(path, sentences, dtype=dtype)
    drop_from_page_cache(path)
    first = serve(feature_loader(dataset, window=WINDOWS)) * ROW_BYTES
    disk, windowed = [], []
    for _ in range(turns):
        disk.append(read_directly(path))
        drop_from_page_cache(path)
        loader = feature_loader(dataset, window=WINDOWS)
        windowed.append(serve(itertools.chain(loader, loader)) * ROW_BYTES)
    shares = [one / other for one, other in zip(windowed, disk, strict=True)]
    return [first, statistics.median(windowed), statistics.median(shares), statistics.median(disk)]


def measured(gigabytes: float, turns: int, folder: Path | None) -> PartResult:
    torch.set_num_threads(1)
    reading = Table("A store larger than memory", ["MB/s", "of the disk, turn by turn"])
    shuffle = Table("Shuffled", ["moved", "order kept", "neighbours", "padding"])
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "store"
        sentences = enough_sentences(int(gigabytes * 1e9 / ROW_BYTES))
        write_store(path, sentences, np.random.default_rng(0).standard_normal((4096, DIM), np.float32))
        dataset = FeatureDataset(path, sentences)
        n_bytes, place = dataset.stored_bytes, np.arange(len(dataset))
        full = feature_loader(dataset, window=None)
        for title, loader in [("in full", full)] + [
            (f"in windows of {memory >> 20} MiB", feature_loader(dataset, window=memory))
            for memory in (512 << 20, 128 << 20)
        ]:
            shuffle.add(title, "ours", *shuffle_quality(loader.batch_sampler, place))
        drop_from_page_cache(path)
        reading.add("at random from mapped memory, cold", "alternative", serve(full, 10) * ROW_BYTES / 1e6)
        disks = []
        for dtype in (torch.float32, torch.float16):
            first, later, share, disk = in_windows(path, sentences, dtype, turns)
            kind = f"in windows of {WINDOWS >> 20} MiB, {str(dtype).removeprefix('torch.')} batches"
            reading.add(f"{kind}, first pass", "ours", first / 1e6)
            reading.add(kind, "ours", later / 1e6, f"{100 * share:.0f}%")
            disks.append(disk)
        reading.add(f"direct reads of {READ_BYTES >> 20} MiB", "ceiling", statistics.median(disks) / 1e6)
    reading.note = (
        f"{n_bytes / 1e9:.1f} GB of float16 vectors, dropped from the page cache before each turn; one "
        "thread beside the one that reads ahead. Shares: medians of turns, each with direct reads of its own."
    )
    shuffle.note = (
        f"{len(place):,} sentences. Moved: how far from its place in the store a sentence comes on average, "
        "1 where every order is as likely. Order kept: rank correlation of an epoch with the store. "
        "Neighbours: pairs of a batch that lie within 1% of the store of each other, 1 where left to chance."
    )
    return PartResult(
        tables=[reading, shuffle],
        promises={"checksums": "compared for every sentence in the first pass over a store, not after it"},
        settings={"n_bytes": n_bytes, "turns": turns, "windows": WINDOWS, "read_bytes": READ_BYTES},
    )


@click.command()
@click.option("--gigabytes", default=6.0, show_default=True)
@click.option("--turns", default=3, show_default=True)
@click.option("--folder", type=click.Path(exists=True, path_type=Path), help="On the disk in question.")
@part_options
def main(gigabytes: float, turns: int, folder: Path | None, quick: bool, as_json: bool) -> None:
    print_part(measured(*((0.03, 1) if quick else (gigabytes, turns)), folder), as_json)


if __name__ == "__main__":
    main()
