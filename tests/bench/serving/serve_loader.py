"""Tokens served per second by `feature_loader` with one setting or another, its padding, and int8's price.

One thread, warm but for the row that says otherwise, by turns in one run, the best of the turns; float32
batches by length unless a row says otherwise. "Of memcpy" compares bytes moved, those read as stored and
written as served, padding not counted, against those that copying the float16 bytes reads and writes. All
checksums are compared in the first pass and not again after it (the default).

    python -m tests.bench.serving.serve_loader --tokens 200000
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch

from featurestore import BucketBatchSampler, FeatureDataset, feature_loader
from tests.bench.figures import Table
from tests.bench.random_store import write_store
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.serving.uncompiled import THERE_IS_A_CHOICE, gather_note, uncompiled
from tests.bench.texts import enough_sentences, source

DIM = 1024
STORED_BYTES = {"float32": 4, "float16": 2, "int8": 1}
DEFAULT = "{}, default settings"


class Serving(NamedTuple):
    """A row of the table: something to pass over, the bytes it moves a value, and how often at most."""

    name: str
    batches: Callable[[], Iterable]
    value_bytes: int
    turns: int = 1 << 30


def servings(stores: dict[str, Path], sentences: list[tuple[str, ...]]) -> Iterable[Serving]:
    for codec, path in stores.items():
        loader = feature_loader(FeatureDataset(path, sentences), window=None)
        moved = STORED_BYTES[codec] + 4
        yield Serving(f"{codec}, first pass, every checksum", lambda loader=loader: loader, moved, 1)
        yield Serving(DEFAULT.format(codec), lambda loader=loader: loader, moved)
        if THERE_IS_A_CHOICE:
            with uncompiled():
                by_torch = feature_loader(FeatureDataset(path, sentences), window=None)
            yield Serving(f"{codec}, by torch", lambda loader=by_torch: loader, moved)
    halves = feature_loader(FeatureDataset(stores["float16"], sentences, dtype=torch.float16), window=None)
    packed = feature_loader(FeatureDataset(stores["float16"], sentences), window=None, packed=True)
    yield Serving("float16, packed batches", lambda: packed, 2 + 4)
    yield Serving("float16, float16 batches", lambda: halves, 2 + 2)
    for codec in ("float16", "int8"):
        resident = feature_loader(FeatureDataset(stores[codec], sentences, resident="cpu"))
        yield Serving(f'{codec}, resident="cpu"', lambda loader=resident: loader, STORED_BYTES[codec] + 4)
    windowed = feature_loader(FeatureDataset(stores["float16"], sentences), window=128 << 20)
    yield Serving("float16, windows of 128 MiB, past the page cache", lambda: windowed, 2 + 4)
    workers = feature_loader(FeatureDataset(stores["float16"], sentences), window=None, num_workers=1)
    yield Serving("float16, one worker process", lambda: workers, 2 + 4)


def seconds_of(batches: Iterable, n_tokens: int) -> float:
    started = time.perf_counter()
    served = sum(int(batch.lengths.sum()) for batch in batches)
    seconds = time.perf_counter() - started
    if served != n_tokens:
        raise RuntimeError(f"served {served} of {n_tokens} tokens")
    return seconds


def copy_seconds(n_tokens: int) -> float:
    source = np.ones((n_tokens, DIM), np.float16)  # zeros would all be one page of memory
    target = np.empty_like(source)
    target[:] = source
    started = time.perf_counter()
    target[:] = source
    return time.perf_counter() - started


def measured(tokens: int, repeats: int) -> PartResult:
    torch.set_num_threads(1)
    logging.getLogger("featurestore").setLevel(logging.ERROR)
    sentences = enough_sentences(tokens)
    lengths = np.array([len(tokens) for tokens in sentences])
    n_tokens = int(lengths.sum())
    vectors = np.random.default_rng(0).standard_normal((1 << 14, DIM), np.float32)
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            codec: write_store(Path(folder) / codec, sentences, vectors, codec).path for codec in STORED_BYTES
        }
        rows = list(servings(stores, sentences))
        copying = copy_seconds(n_tokens)
        for turn in range(repeats):
            for row in rows:
                if turn < row.turns:
                    seconds = seconds_of(row.batches(), n_tokens)
                    best[row.name] = min(best.get(row.name, seconds), seconds)
            copying = min(copying, copy_seconds(n_tokens))
    columns = ["thousand tokens/s", "of memcpy, by bytes moved"]
    table = Table("What the loader's settings do", columns, base=DEFAULT.format("float16"))
    for row in rows:
        share = copying / best[row.name] * row.value_bytes / 4
        table.add(row.name, "ours", n_tokens / best[row.name] / 1000, f"{100 * share:.0f}%")
    table.add("copying the float16 bytes in memory", "ceiling", n_tokens / copying / 1000, "100%")
    dearer = best[DEFAULT.format("int8")] / best[DEFAULT.format("float16")]
    first = best["float16, first pass, every checksum"] / best[DEFAULT.format("float16")]
    padding = BucketBatchSampler(lengths).padding()
    table.note = (
        f"One thread; {n_tokens:,} tokens of {DIM} values in {len(lengths):,} sentences of {source()}. "
        f"int8 takes {dearer:.2f} of float16's time; the first pass over float16 {first:.2f} of later ones. "
        f"Padding: {100 * padding:.1f}%. "
        f"{gather_note()}, but in the rows by torch and of windows."
    )
    return PartResult(
        tables=[table],
        promises={"checksums": "compared for every sentence in the first pass over a store, not after it"},
        settings={
            "n_tokens": n_tokens,
            "dim": DIM,
            "repeats": repeats,
            "threads": 1,
            "padding": padding,
            "compiled": THERE_IS_A_CHOICE,
        },
    )


@click.command()
@click.option("--tokens", default=200_000, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@part_options
def main(tokens: int, repeats: int, quick: bool, as_json: bool) -> None:
    print_part(measured(5_000, 2) if quick else measured(tokens, repeats), as_json)


if __name__ == "__main__":
    main()
