"""Memory against corpus size: peak memory of an extraction of ten thousand to ten million sentences.

    python -m tests.bench.store.memory_curve --work /path/to/a/disk
    python -m tests.bench.store.memory_curve --quick

Each figure is that of a process of its own, which plans and extracts a text file of short, distinct, made-up
sentences. Large corpora are encoded by a double whose vectors cost nothing: they have 8 values, and a shard
as many tokens as one of the usual size holds of 1,024 values, so that there are as many shards. An ELMo
encodes the small ones. *Private* is the peak of memory that belongs to the process alone (RssAnon, read every
20 ms); *peak* also counts pages of files that the kernel may take back at any time.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from tests.bench.machine import machine
from tests.kit.programs import environment, program

DIM = 8
TOKENS_PER_SHARD = 1 << 16
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
ELMO_SIZES = (10_000, 100_000)
QUICK_SIZES, QUICK_ELMO_SIZES = (1_000, 5_000), (200,)


class Double:
    """An encoder whose vectors cost nothing."""

    spec, dim, n_layers, device, token_budget = "double:", DIM, 1, "cpu", 8192

    def __init__(self) -> None:
        from featurestore import Recipe
        from featurestore.encoders.vectors import BatchVectors

        self.batch = BatchVectors
        self.recipe = Recipe({"kind": "double", "version": 1})

    def submit(self, sentences: Sequence[tuple[str, ...]]) -> Any:
        lengths = [len(sentence) for sentence in sentences]
        self.vectors = self.batch(np.ones((sum(lengths), DIM), np.float32), lengths)
        return self

    def result(self) -> Sequence[np.ndarray]:
        return self.vectors

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        return list(self.submit(sentences).result())


def write_corpus(path: Path, n_sentences: int, seed: int = 0) -> None:
    """Write distinct sentences of two to six words; two words of 4,096 tell them apart."""
    random = np.random.default_rng(seed)
    with path.open("w") as file:
        for start in range(0, n_sentences, 100_000):
            n = min(100_000, n_sentences - start)
            lengths = random.integers(0, 5, n)
            # Frequencies fall as those of real words do.
            words = iter(random.zipf(1.5, int(lengths.sum())).clip(max=1 << 30).tolist())
            file.writelines(
                " ".join(
                    (f"a{number >> 12}", f"b{number & 4095}", *(f"w{next(words)}" for _ in range(length)))
                )
                + "\n"
                for number, length in enumerate(lengths.tolist(), start)
            )


class PrivateMemory(threading.Thread):
    """The most anonymous memory this process had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.start()

    def run(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)
            time.sleep(0.02)


def measure(corpus: Path, store: Path, encoder: str) -> dict[str, Any]:
    """Extract in this process, which does nothing else."""
    from featurestore import Store, extract

    watch = PrivateMemory()
    options = {"shard_bytes": TOKENS_PER_SHARD * DIM * 2} if encoder == "double" else {}
    started = time.perf_counter()
    report = extract(
        str(corpus), Double() if encoder == "double" else encoder, store, progress=False, **options
    )
    seconds = time.perf_counter() - started
    manifest = Store.open(store).manifest
    manifests = list((store / "manifests").iterdir())
    return {
        "n_sentences": report.n_encoded,
        "n_tokens": report.n_encoded_tokens,
        "seconds": round(seconds, 2),
        "private_bytes": watch.peak_bytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "n_shards": len(manifest.shards),
        "manifest_bytes": max(path.stat().st_size for path in manifests),
        "all_manifests_bytes": sum(path.stat().st_size for path in manifests),
        "store_bytes": manifest.n_bytes,
    }


def in_a_process(work: Path, n_sentences: int, encoder: str) -> dict[str, Any]:
    """Measure in a new process; what it wrote is removed."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        corpus = folder / "corpus.txt"
        write_corpus(corpus, n_sentences)
        command = program("tests.bench.store.memory_curve", "--measure", corpus, folder / "store", encoder)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
        return {"encoder": encoder, **json.loads(done.stdout)}
    finally:
        shutil.rmtree(folder)


@click.command()
@click.option("--work", type=click.Path(path_type=Path, exists=True), help="Where to write; 2 GB for all.")
@click.option("--most", default=SIZES[-1], show_default=True, help="Leave larger corpora out.")
@click.option("--elmo", default="elmo:demo", show_default=True)
@click.option("--quick", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--measure", "measured", nargs=3, hidden=True)
def main(
    work: Path | None,
    most: int,
    elmo: str,
    quick: bool,
    as_json: bool,
    measured: tuple[str, str, str] | None,
) -> None:
    if measured:
        print(json.dumps(measure(Path(measured[0]), Path(measured[1]), measured[2])))
        return
    sizes, elmo_sizes = (QUICK_SIZES, QUICK_ELMO_SIZES) if quick else (SIZES, ELMO_SIZES)
    wanted = [(n, "double") for n in sizes if n <= most] + [(n, elmo) for n in elmo_sizes if n <= most]
    rows = []
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for n_sentences, encoder in wanted:
            rows.append(in_a_process(Path(folder), n_sentences, encoder))
            # At once: the largest take long.
            print(json.dumps(rows[-1]), file=sys.stderr)
    if as_json:
        print(json.dumps({"machine": machine(), "rows": rows}, indent=2))
        return
    print(f"{machine()}\n")
    print("| encoder | sentences | tokens | shards | private memory | peak | all manifests | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['encoder']} | {row['n_sentences']:,} | {row['n_tokens']:,} | {row['n_shards']:,} "
            f"| {row['private_bytes'] / 1e6:,.0f} MB | {row['peak_bytes'] / 1e6:,.0f} MB "
            f"| {row['all_manifests_bytes'] / 1e6:,.1f} MB | {row['seconds']:,.0f} |"
        )


if __name__ == "__main__":
    main()
