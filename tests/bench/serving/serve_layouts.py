"""Tokens served per second: our store beside the layouts that vectors are commonly kept in.

All hold the same float16 vectors, of sentences as long as those of UD EWT, and fill the same batches; one
thread, warm. Three ways of reading: random batches of 32 sentences into padded float16 tensors, which is
reading alone; the same batches as float32 through a DataLoader; and batches of like length (our batch
sampler's, lent to all) as float32 through a DataLoader. Then what writing cost, until the disk has it all,
and the bytes of a token.

    python -m tests.bench.serving.serve_layouts --tokens 200000
"""

from __future__ import annotations

import importlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from featurestore import BucketBatchSampler, FeatureDataset, collate, feature_loader
from tests.bench.figures import Table
from tests.bench.random_store import write_store
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.serving.layouts import LAYOUTS, Array, Layout, Numbers, PerSentenceHDF5, missing
from tests.bench.serving.uncompiled import THERE_IS_A_CHOICE, gather_note, uncompiled
from tests.bench.texts import enough_sentences, source

DIM = 1024
COLUMNS = [
    "batches of 32, float16",
    "DataLoader, 32, float32",
    "DataLoader, by length, float32",
    "written",
    "bytes a token",
]
BY_LENGTH, RANDOM = COLUMNS[2], COLUMNS[0]
Sentences = list[tuple[str, ...]]
NOT_INSTALLED = "not installed"
DECODED = "decoding them to float32 in memory"
"""What every reader of float32 batches must do at least: the ceiling of that column."""


class Batches(Dataset[Any]):
    """A layout as a map-style dataset that gives a whole batch at a time, as padded float32."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __len__(self) -> int:
        return len(self.layout.lengths)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        lengths = torch.from_numpy(self.layout.lengths[np.asarray(indices)])
        out = torch.empty(len(indices), int(lengths.max()), self.layout.dim)
        self.layout.fill(out, indices)
        return out, lengths


class RandomBatches(list[list[int]]):
    """A batch sampler of random batches of 32 sentences, the same in every pass."""

    def __init__(self, n_sentences: int) -> None:
        order = np.random.default_rng(1).permutation(n_sentences)
        super().__init__(order[start : start + 32].tolist() for start in range(0, n_sentences, 32))


def speed(passes: Callable[[], Iterable[int]], seconds: float, repeats: int) -> float:
    """Return thousand tokens per second, the best of several stretches of so many seconds.

    Parameters
    ----------
    passes : callable
        Makes a pass over the data that yields the tokens of each batch; passes follow each other.
    """
    best = 0.0
    for _ in range(repeats):
        served, started = 0, time.perf_counter()
        for n_tokens in itertools.chain.from_iterable(passes() for _ in itertools.count()):
            served += n_tokens
            passed = time.perf_counter() - started
            if passed >= seconds:
                break
        best = max(best, served / passed / 1000)
    return best


def of_layout(layout: Layout, vectors: Array, seconds: float, repeats: int) -> list[float]:
    """Return what the columns show of a layout."""
    importlib.import_module(layout.library)  # off the clock, and so is what others left to write
    os.sync()
    started = time.perf_counter()
    layout.write(vectors)
    os.sync()
    written = len(vectors) / (time.perf_counter() - started) / 1000
    layout.open()
    random = RandomBatches(len(layout.lengths))
    buffer = torch.empty(32 * int(layout.lengths.max()) * DIM, dtype=torch.float16)

    def alone() -> Iterator[int]:
        for indices in random:
            lengths = layout.lengths[indices]
            longest = int(lengths.max())
            out = buffer[: len(indices) * longest * DIM].view(len(indices), longest, DIM)
            layout.fill(out, indices)
            yield int(lengths.sum())

    def loaded(sampler: Any) -> Callable[[], Iterator[int]]:
        loader = DataLoader(Batches(layout), batch_sampler=sampler, collate_fn=lambda batch: batch)
        return lambda: (int(lengths.sum()) for _, lengths in loader)

    require_right(layout, vectors, random[0])
    passes = (alone, loaded(random), loaded(BucketBatchSampler(layout.lengths)))
    speeds = [speed(each, seconds, repeats) for each in passes]
    layout.close()
    return [*speeds, written, size_of(layout.folder) / len(vectors)]


def require_right(layout: Layout, vectors: Array, indices: list[int]) -> None:
    """Raise if a batch is not what was written: a fast wrong answer is no figure."""
    out, _ = Batches(layout).__getitems__(indices)
    for row, index in zip(out, indices, strict=True):
        start, stop = layout.bounds[index], layout.bounds[index + 1]
        expected = torch.from_numpy(vectors[start:stop]).float()
        if not torch.equal(row[: stop - start], expected) or row[stop - start :].any():
            raise RuntimeError(f"{layout.name}: sentence {index} is not what was written")


def of_ours(
    folder: Path, codec: str, sentences: Sentences, vectors: Array, seconds: float, repeats: int
) -> dict[str, list[float | None]]:
    """Return what the columns show, by row: of the default, of its first pass, and of torch's gather."""
    os.sync()
    started = time.perf_counter()
    path = write_store(folder / codec, sentences, vectors, codec).path
    os.sync()
    written = len(vectors) / (time.perf_counter() - started) / 1000

    by_length = feature_loader(FeatureDataset(path, sentences))
    started = time.perf_counter()
    first = sum(int(batch.lengths.sum()) for batch in by_length) / (time.perf_counter() - started) / 1000
    name, size = f"featurestore {codec}", size_of(folder / codec) / len(vectors)
    rows: dict[str, list[float | None]] = {
        name: [*served(path, sentences, seconds, repeats), written, size],
        f"{name}, first pass, every checksum": [None, None, first],
    }
    if THERE_IS_A_CHOICE:
        with uncompiled():
            rows[f"{name}, by torch"] = [*served(path, sentences, seconds, repeats)]
    return rows


def served(path: Path, sentences: Sentences, seconds: float, repeats: int) -> list[float]:
    """Return the speeds of a store of ours in the three ways of reading."""
    random = RandomBatches(len(sentences))
    half = FeatureDataset(path, sentences, dtype=torch.float16)
    loader = DataLoader(FeatureDataset(path, sentences), batch_sampler=random, collate_fn=collate)
    by_length = feature_loader(FeatureDataset(path, sentences))

    def alone() -> Iterator[int]:
        return (int(half.gather(indices).lengths.sum()) for indices in random)

    def loaded(batches: Iterable[Any]) -> Callable[[], Iterator[int]]:
        return lambda: (int(batch.lengths.sum()) for batch in batches)

    ways = (alone, loaded(loader), loaded(by_length))
    for whole_pass in ways:
        sum(whole_pass())  # their checksums are behind them, as the first pass's are
    return [speed(each, seconds, repeats) for each in ways]


def ceilings(vectors: Array, lengths: Numbers, seconds: float, repeats: int) -> list[float]:
    """Return thousand tokens per second of what any reader must do.

    Copying the stored bytes; decoding them to float32; and gathering the batches' rows from RAM.
    """
    part = torch.from_numpy(vectors[: 1 << 14])
    same, wide = torch.zeros_like(part), torch.zeros(part.shape)

    def copied(target: Tensor) -> Callable[[], Iterator[int]]:
        def all_parts() -> Iterator[int]:
            for start in range(0, len(vectors), len(target)):
                part = torch.from_numpy(vectors[start : start + len(target)])
                target[: len(part)].copy_(part)
                yield len(part)

        return all_parts

    whole = torch.from_numpy(vectors)
    starts = np.cumsum(lengths) - lengths
    plans = [
        (
            torch.from_numpy(np.concatenate([np.arange(starts[i], starts[i] + lengths[i]) for i in batch])),
            batch,
        )
        for batch in RandomBatches(len(lengths))
    ]
    out = torch.empty(max(len(rows) for rows, _ in plans), DIM, dtype=torch.float16)

    def gathered() -> Iterator[int]:
        for rows, _ in plans:
            torch.index_select(whole, 0, rows, out=out[: len(rows)])
            yield len(rows)

    return [speed(each, seconds, repeats) for each in (copied(same), copied(wide), gathered)]


def measured(n_tokens: int, seconds: float, repeats: int, folder: Path | None) -> PartResult:
    """Measure every layout, one after the other, each in a folder that is removed before the next."""
    torch.set_num_threads(1)
    sentences = enough_sentences(n_tokens)
    lengths = np.array([len(tokens) for tokens in sentences])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    random = np.random.default_rng(0)
    vectors = np.empty((int(bounds[-1]), DIM), np.float16)
    for start in range(0, len(vectors), 1 << 14):
        part = vectors[start : start + (1 << 14)]
        part[:] = random.standard_normal(part.shape, np.float32)

    table = Table("Serving", COLUMNS, base=PerSentenceHDF5.name, ratio=BY_LENGTH)
    for layout in LAYOUTS:
        if missing(layout):
            table.add(layout.name, "alternative", NOT_INSTALLED)
            continue
        with tempfile.TemporaryDirectory(dir=folder) as name:
            values = of_layout(layout(Path(name), bounds, DIM), vectors, seconds, repeats)
        table.add(layout.name, "alternative", *values)
    for codec in ("float16", "int8"):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            rows = of_ours(Path(name), codec, sentences, vectors, seconds, repeats)
        for row, values in rows.items():
            table.add(row, "ours", *values)
    copied, decoded, gathered = ceilings(vectors, lengths, seconds, repeats)
    table.add("copying the float16 bytes in memory", "ceiling", copied, copied, copied, None, 2 * DIM)
    table.add(DECODED, "ceiling", None, decoded, decoded)
    table.add("gathering the batches' rows from RAM, no padding", "ceiling", gathered)
    for row in table.rows:
        if row.kind != "ceiling":
            row.limit = DECODED
    table.note = (
        f"Thousand tokens/s, one thread, warm: {len(vectors):,} tokens of {DIM} values in {len(lengths):,} "
        f"sentences of {source()}. Written: until the disk has it all. Ratios are of "
        "batches by length, shares of the ceiling of decoding to float32. "
        f"{gather_note()}, but in the rows by torch."
    )
    return PartResult(
        tables=[table],
        promises={
            "checksums": "compared for every sentence in the first pass over a store, not again after it",
            "fsync": "each shard and manifest of ours; for all, the clock stops after sync",
            "batch invariance": "does not apply: stored bytes are served as they are",
        },
        settings={
            "n_tokens": len(vectors),
            "dim": DIM,
            "seconds": seconds,
            "repeats": repeats,
            "threads": 1,
            "compiled": THERE_IS_A_CHOICE,
        },
    )


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@click.command()
@click.option("--tokens", default=200_000, show_default=True)
@click.option("--folder", type=click.Path(exists=True, path_type=Path), help="Where the files are written.")
@part_options
def main(tokens: int, folder: Path | None, quick: bool, as_json: bool) -> None:
    result = measured(5_000, 0.05, 1, folder) if quick else measured(tokens, 0.8, 3, folder)
    print_part(result, as_json)


if __name__ == "__main__":
    main()
