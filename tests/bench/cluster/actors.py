"""One process against two actors of a thread each on a Ray cluster of this machine, on the same cores.

    python -m tests.bench.cluster.actors
    python -m tests.bench.cluster.actors --memory 10000000

From the first batch to the last commit, planning and starting left out (their seconds have a column); the
faster of ``TURNS`` runs, one process and the cluster taking turns. *Ready vectors* is an encoder that costs
nothing: what is left is reading, sending tokens, casting, hashing, writing and publishing. ``--memory`` has
the driver extract that many short sentences with vectors of 8 values, in units of 65,536 tokens, and tells
the peak of its private memory (RssAnon).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from tests.bench.encoding.encode import PROMISES
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.store.memory_curve import DIM, TOKENS_PER_SHARD, Double, PrivateMemory, write_corpus
from tests.bench.store.write_speed import ReadyVectors
from tests.bench.texts import sentences as real_sentences
from tests.bench.texts import source
from tests.kit.programs import environment, program

TURNS = 2
N_ACTORS = 2
READY = "ready vectors"
ENCODERS = (
    ("elmo:untrained-original", 800, 2 << 20),
    ("elmo:demo", 8_000, 8 << 20),
    (READY, 40_000, 32 << 20),
)
"""Specification, sentences, bytes of a shard."""


def one_run(corpus: Path, spec: str, shard_bytes: int, address: str, work: Path) -> dict[str, float]:
    """Extract once, in a process of its own; return tokens, and seconds in all and of encoding."""
    folder = Path(tempfile.mkdtemp(dir=work))
    command = program(
        "tests.bench.cluster.actors", "--measure", corpus, folder / "store", spec, shard_bytes, address
    )
    threads = {} if address else {"OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment(**threads))
    shutil.rmtree(folder)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(corpus: str, store: str, spec: str, shard_bytes: int, address: str) -> dict[str, Any]:
    """Extract in this process."""
    from featurestore import Ray, extract

    watch = PrivateMemory()
    encoder: Any = {READY: ReadyVectors, "double": Double}.get(spec, lambda: spec)()
    engine = Ray(address, actors=N_ACTORS) if address else None
    started = time.perf_counter()
    report = extract(corpus, encoder, store, shard_bytes=shard_bytes, engine=engine, progress=False)
    return {
        "n_tokens": report.n_encoded_tokens,
        "n_shards": report.n_shards,
        "encoding": report.seconds,
        "whole": time.perf_counter() - started,
        "private_bytes": watch.peak_bytes,
    }


def measured(encoders: Any, turns: int, address: str) -> PartResult:
    """Measure each encoder both ways, in turns."""
    table = Table(
        f"Two actors against one process, {os.cpu_count()} cores",
        ["tokens/s", "of one process", "shards", "seconds in all"], ratio="tokens/s",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        for spec, n_sentences, shard_bytes in encoders:
            corpus = Path(name) / "corpus.txt"
            corpus.write_text("".join(" ".join(s) + "\n" for s in real_sentences(n_sentences)))
            best: dict[str, dict[str, float]] = {}
            for _ in range(turns):
                for where in ("", address):
                    found = one_run(corpus, spec, shard_bytes, where, Path(name))
                    if where not in best or found["encoding"] < best[where]["encoding"]:
                        best[where] = found
            one = best[""]["n_tokens"] / best[""]["encoding"]
            for where, title in (("", "one process"), (address, f"{N_ACTORS} actors")):
                found = best[where]
                speed = found["n_tokens"] / found["encoding"]
                table.add(
                    f"{title}, {spec.removeprefix('elmo:untrained-')}", "ours", speed, speed / one,
                    found["n_shards"], found["whole"],
                )  # fmt: skip
    return PartResult(tables=[table], promises=PROMISES, settings={"text": source(), "turns": turns})


def driver_memory(sizes: tuple[int, ...], address: str) -> PartResult:
    """Measure the private memory of the driver at each size."""
    table = Table("Memory of the driver", ["private MB", "shards", "seconds"])
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            corpus = Path(name) / "corpus.txt"
            write_corpus(corpus, size)
            found = one_run(corpus, "double", TOKENS_PER_SHARD * DIM * 2, address, Path(name))
            row = found["private_bytes"] / 1e6, found["n_shards"], found["whole"]
            click.echo(f"{size:,} sentences: {row}", err=True)
            table.add(f"{size:,} sentences", "ours", *row)
    return PartResult(tables=[table])


@click.command()
@part_options
@click.option("--memory", "most", type=int, help="Measure the driver's memory, up to so many sentences.")
@click.option("--measure", "one", nargs=5, hidden=True)
def main(quick: bool, as_json: bool, most: int | None, one: tuple[str, str, str, str, str] | None) -> None:
    if one is not None:
        corpus, store, spec, shard_bytes, address = one
        print(json.dumps(measure(corpus, store, spec, int(shard_bytes), address)))
        return
    from tests.kit.processes.ray_cluster import LocalCluster

    cluster = LocalCluster(2)
    try:
        if most is not None:
            sizes = tuple(size for size in (100_000, 1_000_000, 10_000_000) if size <= most)
            print_part(driver_memory(sizes, cluster.address), as_json)
            return
        encoders = [(READY, 500, 1 << 20)] if quick else ENCODERS
        print_part(measured(encoders, 1 if quick else TURNS, cluster.address), as_json)
    finally:
        cluster.shut_down()


if __name__ == "__main__":
    main()
