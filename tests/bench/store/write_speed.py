"""Tokens written per second by an extraction whose encoder costs nothing: what a faster GPU meets at last.

The whole job, from sentences in memory to a committed store, planning not counted; 1024-d float32 vectors,
as our encoders give them, that are there before the clock starts. By turns, with one sealing thread and
with more; the best of the turns. The ceilings are what the disk and the hash of a whole file allow: the same
bytes written to one file with fsync, and hashed with SHA-256 by one thread.

    python -m tests.bench.store.write_speed --tokens 1000000
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from featurestore import Recipe
from featurestore.corpora.given import as_corpora
from featurestore.encoders.sources import LoadedEncoder
from featurestore.encoders.vectors import BatchVectors
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.runner import Extraction
from tests.bench.encoding.encode import PROMISES
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.serving.serve_layouts import size_of
from tests.bench.texts import enough_sentences, source

DIM = 1024
CODECS = ("float16", "int8")
STEP = 8 << 20
WRITING, HASHING = "writing {}'s bytes to one file, fsync", "hashing {}'s bytes, SHA-256, one thread"


class ReadyVectors:
    """An encoder that gives slices of one array: what is measured is everything else."""

    spec, device, dim, n_layers, token_budget = "bench:", "cpu", DIM, 1, 8192
    recipe = Recipe({"kind": "bench", "version": 1})

    def __init__(self) -> None:
        # Twice what a batch takes, so that not every batch is the same.
        self._vectors = np.random.default_rng(0).standard_normal((2 * self.token_budget, DIM), np.float32)
        self._batches = 0

    def submit(self, sentences: Sequence[tuple[str, ...]]) -> ReadyVectors.Ready:
        self._batches += 1
        start = self._batches % self.token_budget
        return self.Ready(self._vectors[start:], [len(tokens) for tokens in sentences])

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> list[NDArray[np.floating]]:
        return [self._vectors[: len(tokens)] for tokens in sentences]

    class Ready:
        def __init__(self, vectors: NDArray[np.floating], lengths: list[int]) -> None:
            self._vectors, self._lengths = vectors[: sum(lengths)], lengths

        def result(self) -> BatchVectors:
            return BatchVectors(self._vectors, self._lengths)


def extracted(sentences: list[tuple[str, ...]], path: Path, codec: str, threads: int) -> float:
    """Return the tokens a second of one extraction into a new store."""
    encoder, job = ReadyVectors(), Job(as_corpora(sentences), Destination.of(path), codec=codec)
    plan = job.plan(LoadedEncoder.of(encoder))
    run = Extraction(job.corpora, encoder, job.destination, plan, codec=codec, n_sealing=threads)
    started = time.perf_counter()
    report = run.run()
    return report.n_encoded_tokens / (time.perf_counter() - started)


def written(store: Path, target: Path) -> float:
    """Return the seconds that writing the bytes of a store's shards to one file takes, fsync included."""
    contents = [path.read_bytes() for path in sorted((store / "shards").iterdir())]
    started = time.perf_counter()
    with target.open("wb", buffering=0) as file:
        for content in contents:
            view = memoryview(content)
            while view:
                view = view[file.write(view[:STEP]) :]
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def hashed(store: Path) -> float:
    """Return the seconds that hashing the bytes of a store's shards takes, after they were read."""
    seconds = 0.0
    for path in sorted((store / "shards").iterdir()):
        content = path.read_bytes()
        started = time.perf_counter()
        hashlib.sha256(content).digest()
        seconds += time.perf_counter() - started
    return seconds


def measured(n_tokens: int, turns: int, threads: Sequence[int], folder: Path | None) -> PartResult:
    sentences = enough_sentences(n_tokens)
    n_tokens = sum(map(len, sentences))
    table = Table("Writing", ["tokens/s", "MB/s"])
    speeds: dict[tuple[str, int], float] = {}
    ceilings: dict[str, float] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path, target = Path(name) / "store", Path(name) / "file"
        for codec in CODECS:
            for _ in range(turns):
                for number in threads:
                    speed = extracted(sentences, path, codec, number)
                    speeds[codec, number] = max(speed, speeds.get((codec, number), 0.0))
                    sizes[codec] = size_of(path / "shards")
                    if number == threads[-1]:
                        for row, seconds in ((WRITING, written(path, target)), (HASHING, hashed(path))):
                            key = row.format(codec)
                            ceilings[key] = max(n_tokens / seconds, ceilings.get(key, 0.0))
                    shutil.rmtree(path)
    for codec in CODECS:
        bytes_a_token = sizes[codec] / n_tokens
        for number in threads:
            speed = speeds[codec, number]
            rows = f"{codec}, {number} sealing thread{'s' * (number > 1)}"
            table.add(rows, "ours", speed, speed * bytes_a_token / 1e6, limit=WRITING.format(codec))
        for row in (WRITING, HASHING):
            speed = ceilings[row.format(codec)]
            table.add(row.format(codec), "ceiling", speed, speed * bytes_a_token / 1e6)
    table.note = (
        f"{n_tokens:,} tokens of {source()}, {len(sentences):,} sentences, {DIM}-d, shards of 128 MiB, "
        f"{len(os.sched_getaffinity(0))} cores, best of {turns} turns. Checksums and fsync on. Shares are "
        "of the ceiling of writing the same bytes."
    )
    return PartResult(
        tables=[table],
        promises={**PROMISES, "batch invariance": "not asked: the vectors are made up"},
        settings={"n_tokens": n_tokens, "turns": turns, "threads": list(threads), "text": source()},
    )


@click.command()
@click.option("--tokens", default=1_000_000, show_default=True)
@click.option("--turns", default=3, show_default=True)
@click.option("--threads", multiple=True, type=int, default=(1, 2, 4), show_default=True)
@click.option("--folder", type=click.Path(exists=True, path_type=Path), help="On the disk in question.")
@part_options
def main(
    tokens: int, turns: int, threads: tuple[int, ...], folder: Path | None, quick: bool, as_json: bool
) -> None:
    print_part(measured(*((30_000, 1, (1, 2)) if quick else (tokens, turns, threads)), folder), as_json)


if __name__ == "__main__":
    main()
