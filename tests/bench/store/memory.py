"""Memory of what makes stores or files of a store, by its shards: 10, 1,000 and 4,000.

Each runs in a process of its own, by the command line; its private memory is asked for a hundred times a
second (RssAnon of /proc/PID/status), and the most is printed. A shard has the same size in all stores. The
last column is what a sentence adds between the last two, where buffers of a fixed size are full.

    python -m tests.bench.store.memory
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from featurestore.recipe import Recipe
from featurestore.store.store import Store

DIM, TOKENS, PER_SHARD = 64, 8, 32
SHARDS = (10, 1_000, 4_000)


def make(path: Path, n_shards: int) -> None:
    """Make a store with so many full shards of PER_SHARD sentences."""
    shard_bytes = PER_SHARD * TOKENS * DIM * 4
    store = Store.create(
        path,
        recipe=Recipe({"kind": "bench", "version": 1}),
        dim=DIM,
        codec="float32",
        shard_bytes=shard_bytes,
    )
    random = np.random.default_rng(0)
    with store.write() as session:
        for number in range(n_shards * PER_SHARD):
            tokens = [f"w{number}", *(f"t{n}" for n in range(TOKENS - 1))]
            session.add(tokens, random.normal(size=(TOKENS, DIM)).astype(np.float32))


def peak(*arguments: object) -> int:
    """Run a command; return the most private bytes it had."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "featurestore", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    most = 0
    while process.poll() is None:
        try:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    most = max(most, int(line.split()[1]) << 10)
        except OSError:
            break
        time.sleep(0.01)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    return most


def main() -> None:
    """Print a table."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    found: dict[str, list[int]] = {}
    for n_shards in SHARDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder / "s", n_shards)
            jobs: dict[str, tuple[object, ...]] = {
                "info": ("info", folder / "s"),
                "subset": ("subset", folder / "s", "--text", "w[0-9]*[02468] ", "-o", folder / "half"),
                "recode": ("recode", folder / "s", "--codec", "float16", "-o", folder / "recoded"),
                "export, npy": ("export", folder / "s", "--to", "npy", "-o", folder / "npy"),
                "export, safetensors": ("export", folder / "s", "--to", "safetensors", "-o", folder / "st"),
                "export, hdf5": ("export", folder / "s", "--to", "allennlp-hdf5", "-o", folder / "a"),
                "export, parquet": ("export", folder / "s", "--to", "parquet", "-o", folder / "parquet"),
                "export, arrow": ("export", folder / "s", "--to", "arrow", "-o", folder / "arrow"),
                "export, datasets": ("export", folder / "s", "--to", "datasets", "-o", folder / "datasets"),
                "import, npy": (
                    "import", folder / "npy", "--from", "npy", "--recipe-note", "x", "-o", folder / "i",
                    "--shard-size", PER_SHARD * TOKENS * DIM * 4,
                ),
                "import, hdf5": (
                    "import", folder / "a", "--from", "allennlp-hdf5", "--recipe-note", "x",
                    "-o", folder / "j", "--shard-size", PER_SHARD * TOKENS * DIM * 4,
                ),
            }  # fmt: skip
            for job, arguments in jobs.items():
                found.setdefault(job, []).append(peak(*arguments))
    print("| | " + " | ".join(f"{n:,} shards" for n in SHARDS) + " | bytes a sentence more |")
    print("|---" * (len(SHARDS) + 2) + "|")
    for job, bytes_ in found.items():
        more = (bytes_[-1] - bytes_[-2]) / ((SHARDS[-1] - SHARDS[-2]) * PER_SHARD)
        print(f"| {job} | " + " | ".join(f"{n / 1e6:,.0f} MB" for n in bytes_) + f" | {more:,.0f} |")


if __name__ == "__main__":
    main()
