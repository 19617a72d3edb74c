"""Seconds to open a dataset for the first time and again, and the memory that the second takes until used.

    python -m tests.bench.training.opening

The corpora are random words with a tag each, in CoNLL columns, the vectors narrow: neither decides what
opening costs. Each opening is in a process of its own; seconds are those of ``FeatureDataset`` alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from featurestore.disk.places import cache_folder
from tests.bench.figures import Table
from tests.bench.random_store import write_store
from tests.bench.report import PartResult, part_options, print_part

_N_WORDS, _N_TAGS, _LONGEST = 50_000, 17, 39

_OPEN = """
import json, sys, time
from featurestore import FeatureDataset, Store, open_corpus

def private():
    # Mapped pages of the remembered file are the page cache's, which all ranks share.
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous"))

small, large = sys.argv[1:]
for folder in (small, large):  # the small one loads what the first opening in a process loads
    store = Store.open(folder + "/store")
    before, started = private(), time.perf_counter()
    dataset = FeatureDataset(store, open_corpus(folder + "/corpus.conll", label="last"))
    seconds = time.perf_counter() - started
    n_bytes = private() - before
print(json.dumps({"seconds": seconds, "n_bytes": n_bytes, "n": len(dataset)}))
"""


def make(folder: Path, n: int) -> None:
    """Make a corpus of n sentences and a store that holds them."""
    random = np.random.default_rng(n)
    lengths = random.integers(1, _LONGEST + 1, n)
    words = random.integers(0, _N_WORDS, int(lengths.sum())).astype(str).tolist()
    tags = random.integers(0, _N_TAGS, len(words)).tolist()
    sentences, start = [], 0
    folder.mkdir()
    with (folder / "corpus.conll").open("w") as file:
        for number, length in enumerate(lengths.tolist()):
            sentence = (f"s{number}", *words[start + 1 : start + length])
            file.writelines(f"{word}\tT{tags[start + i]}\n" for i, word in enumerate(sentence))
            file.write("\n")
            sentences.append(sentence)
            start += length
    write_store(folder / "store", sentences, random.standard_normal((100_000, 4), dtype=np.float32))


def opened(small: Path, folder: Path, cache: Path) -> dict[str, float]:
    """Open a corpus in a process of its own; return what that took."""
    environment = {**os.environ, "FEATURESTORE_CACHE": str(cache)}
    command = [sys.executable, "-c", _OPEN, str(small), str(folder)]
    found: dict[str, float] = json.loads(subprocess.check_output(command, env=environment))
    return found


def measured(sizes: list[int], repeats: int) -> PartResult:
    """Measure corpora of these numbers of sentences."""
    table = Table("Opening", ["sentences", "MB", "first s", "second s", "times", "bytes a sentence"])
    with tempfile.TemporaryDirectory() as made:
        small, cache = Path(made) / "small", Path(made) / "cache"
        make(small, 100)
        for n in sizes:
            folder = Path(made) / str(n)
            make(folder, n)
            first = opened(small, folder, cache)
            again = [opened(small, folder, cache) for _ in range(repeats)]
            second = min(each["seconds"] for each in again)
            n_bytes = min(each["n_bytes"] for each in again)
            size = (folder / "corpus.conll").stat().st_size / 1e6
            table.add(
                f"{n:,} sentences", "ours", n, size, first["seconds"], second, first["seconds"] / second,
                n_bytes / n,
            )  # fmt: skip
    return PartResult(tables=[table], settings={"repeats": repeats, "cache": cache_folder().name})


@click.command()
@click.option("--sizes", default="10000,100000,1000000", show_default=True, help="Sentences.")
@click.option("--repeats", default=3, show_default=True)
@part_options
def main(sizes: str, repeats: int, quick: bool, as_json: bool) -> None:
    numbers = [1000] if quick else [int(size) for size in sizes.split(",")]
    print_part(measured(numbers, 1 if quick else repeats), as_json)


if __name__ == "__main__":
    main()
