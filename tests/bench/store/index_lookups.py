"""The index at scale: opening it, the memory it takes, finding keys, building and extending it.

Keys are random, as hashes are; no vectors are written, the index does not look at any. Opening and looking up
happen in a process of their own, so that its private memory (Private_Clean + Private_Dirty of
/proc/self/smaps_rollup) is the index's.

    python -m tests.bench.store.index_lookups --keys 10000000
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from featurestore.store.index.loading import load_index
from featurestore.store.index.lookup import Index
from featurestore.store.index.shardlist import ShardList
from tests.bench.machine import machine
from tests.kit.programs import environment, program

SHARD_KEYS = 50_000


def keys_of(shard: int, n_keys: int) -> np.ndarray:
    """Return the keys of a shard, each time the same; (n, 16) uint8."""
    n = min(SHARD_KEYS, n_keys - shard * SHARD_KEYS)
    return np.random.default_rng(shard).integers(0, 256, (n, 16), np.uint8)


def open_index(folder: Path, n_keys: int, n_shards: int | None = None) -> Index:
    n_shards = n_shards or -(-n_keys // SHARD_KEYS)
    sizes = [min(SHARD_KEYS, n_keys - shard * SHARD_KEYS) for shard in range(n_shards)]
    shards = ShardList(lambda first, stop: "\n".join(map(str, range(first, stop))).encode(), n_shards, sizes)
    return load_index(folder, shards, lambda i: keys_of(i, n_keys))


def private_bytes(kind: str = "Private") -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def ask(folder: Path, n_keys: int) -> dict[str, float]:
    """Open an index and look keys up; called in a new process."""
    random = np.random.default_rng(1)
    shards = random.choice(-(-n_keys // SHARD_KEYS), 40)
    known = np.concatenate([keys_of(shard, n_keys) for shard in shards])
    known = known[random.permutation(len(known))]
    unknown = random.integers(0, 256, (1 << 16, 16), np.uint8)
    before, dirty_before = private_bytes(), private_bytes("Private_Dirty")
    started = time.perf_counter()
    index = open_index(folder, n_keys)
    result = {"open_seconds": time.perf_counter() - started}
    result["private_bytes_per_key_opened"] = (private_bytes() - before) / n_keys
    for n in (1, 32, 4096):
        for name, keys in (("stored", known), ("not stored", unknown)):
            rounds = [keys[at : at + n] for at in range(0, 15 * n, n)]
            first = None
            for _ in range(3):  # every key was asked for before, in the last two
                seconds = []
                for wanted in rounds:
                    started = time.perf_counter()
                    found = index.locate(wanted).found
                    seconds.append(time.perf_counter() - started)
                    if found.all() != (name == "stored"):
                        raise RuntimeError("the index is wrong")
                first = first or float(np.median(seconds))
            result[f"{n} keys {name}, seconds, first time"] = first
            result[f"{n} keys {name}, seconds"] = float(np.median(seconds))
    result["private_bytes_per_key_used"] = (private_bytes() - before) / n_keys
    result["of_them_not_pages_of_the_file"] = (private_bytes("Private_Dirty") - dirty_before) / n_keys
    return result


@click.command()
@click.option("--keys", default=10_000_000, show_default=True)
@click.option("--quick", is_flag=True, help="A million keys.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--ask-in", type=click.Path(path_type=Path), hidden=True)
def main(keys: int, quick: bool, as_json: bool, ask_in: Path | None) -> None:
    keys = min(keys, 100_000) if quick else keys
    if ask_in is not None:
        print(json.dumps(ask(ask_in, keys)))
        return
    with tempfile.TemporaryDirectory() as folder:
        n_shards = -(-keys // SHARD_KEYS)
        started = time.perf_counter()
        open_index(Path(folder), keys, n_shards - 1)
        built = time.perf_counter()
        open_index(Path(folder), keys)
        extended = time.perf_counter()
        command = program("tests.bench.store.index_lookups", "--keys", keys, "--ask-in", folder)
        asked = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
        path = max(Path(folder).iterdir(), key=lambda file: file.stat().st_size)
        result = {
            "file_bytes_per_key": path.stat().st_size / keys,
            "build_seconds": built - started,
            "extend_by_one_shard_seconds": extended - built,
            "peak_bytes_per_key_building": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / keys,
            **json.loads(asked.stdout),
        }
    if as_json:
        print(json.dumps({"machine": machine(), "n_keys": keys, **result}, indent=2))
        return
    print(f"{keys:,} keys; {machine()}")
    for name, value in result.items():
        shown = f"{value * 1000:.3f} ms" if "seconds" in name else f"{value:.3f} bytes"
        print(f"{name.replace(', seconds', '').replace('_seconds', ''):50} {shown:>14}")


if __name__ == "__main__":
    main()
