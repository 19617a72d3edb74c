"""An index that grows: built and merged in bounded memory, extended by one shard, asked in many runs.

Keys are random, as hashes are; those of a shard are made up when they are asked for, and the index looks at
nothing else. Every step is a process of its own, whose anonymous memory is watched (RssAnon of
/proc/self/status): what a process takes from others; mapped files are the kernel's to give back.

    python -m tests.bench.store.index_growth --keys 100000000 --folder DIR

needs 100 bytes of disk for each key while it runs. ``--write-table`` puts the table into store/FORMAT.md.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

import featurestore
from featurestore.native import SWITCH
from featurestore.store.index.loading import load_index
from featurestore.store.index.lookup import Index
from featurestore.store.index.shardlist import ShardList
from tests.bench.machine import machine
from tests.kit.programs import environment, program

SHARD_KEYS, ADDED_KEYS, N_ADDED = 2000, 1000, 100
SIZES = (1_000_000, 10_000_000, 100_000_000)
BILLION = 1_000_000_000


def keys_of(shard: int, n_keys: int) -> np.ndarray:
    """Return the keys of a shard, each time the same; (n_keys, 16) uint8."""
    return np.frombuffer(np.random.default_rng(shard).bytes(16 * n_keys), np.uint8).reshape(-1, 16)


class Shards:
    """So many shards of SHARD_KEYS keys, then so many of ADDED_KEYS."""

    def __init__(self, n_large: int, n_added: int = 0) -> None:
        self.sizes = np.array([SHARD_KEYS] * n_large + [ADDED_KEYS] * n_added)

    def index(self, folder: Path) -> Index:
        return load_index(folder, ShardList(self.joined_names, len(self.sizes), self.sizes), self.keys)

    def joined_names(self, first: int, stop: int) -> bytes:
        """Return names as long as those of shards, as fast as a manifest has them."""
        numbers = np.arange(first, stop, dtype=">u8").repeat(4)
        return numbers.tobytes() + b"...." * (stop - first)

    def keys(self, number: int) -> np.ndarray:
        return keys_of(number, int(self.sizes[number]))


def anonymous_bytes() -> int:
    (line,) = re.findall(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), flags=re.M)
    return int(line) * 1024


@contextmanager
def watched(result: dict[str, float], name: str):
    """Add the seconds and the most anonymous memory of what is done."""
    most, done = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    yield
    result[f"{name}_seconds"] = time.perf_counter() - started
    done.set()
    watcher.join()
    result[f"{name}_anonymous_bytes"] = max(most[0], anonymous_bytes())


def build(folder: Path, n_keys: int) -> dict[str, float]:
    """Build half of the index, then all of it, which takes the half in."""
    n_shards, result = n_keys // SHARD_KEYS, {}
    with watched(result, "build_half"):
        Shards(n_shards // 2).index(folder)
    with watched(result, "merge"):
        index = Shards(n_shards).index(folder)
    assert len(index.runs) == 1
    assert len(index) == n_keys
    result["file_bytes"] = max(path.stat().st_size for path in folder.iterdir())
    for path in folder.iterdir():
        path.unlink()
    return result


def build_at_once(folder: Path, n_keys: int) -> dict[str, float]:
    result = {}
    with watched(result, "build"):
        Shards(n_keys // SHARD_KEYS).index(folder)
    return result


def extend(folder: Path, n_keys: int) -> dict[str, float]:
    """Extend the index by a shard at a time, each by a reader that opens it."""
    n_shards, result, seconds = n_keys // SHARD_KEYS, {}, []
    with watched(result, "all_extensions"):
        for n_added in range(1, N_ADDED + 1):
            shards = Shards(n_shards, n_added)
            started = time.perf_counter()
            index = shards.index(folder)
            seconds.append(time.perf_counter() - started)
    result["extend_seconds"] = float(np.median(seconds))
    result["extend_longest_seconds"] = max(seconds)
    result["n_runs"] = len(index.runs)
    return result


def ask(folder: Path, n_keys: int) -> dict[str, float]:
    """Look keys up in the extended index, all keys a second time."""
    shards, random = Shards(n_keys // SHARD_KEYS, N_ADDED), np.random.default_rng(1)
    chosen = random.choice(len(shards.sizes), 45)
    known = np.concatenate([shards.keys(number) for number in chosen])
    known = known[random.permutation(len(known))]
    unknown = random.integers(0, 256, (1 << 16, 16), np.uint8)
    started = time.perf_counter()
    index = shards.index(folder)
    result: dict[str, float] = {"open_seconds": time.perf_counter() - started}
    for n in (1, 32, 4096):
        for name, keys in (("stored", known), ("not_stored", unknown)):
            rounds = [keys[at : at + n] for at in range(0, 15 * n, n)]
            for which in ("first", "warm"):
                seconds = []
                for wanted in rounds:
                    started = time.perf_counter()
                    found = index.locate(wanted).found
                    seconds.append(time.perf_counter() - started)
                    if found.all() != (name == "stored") or found.any() != (name == "stored"):
                        raise RuntimeError("the index is wrong")
                result[f"{n}_{name}_{which}_seconds"] = float(np.median(seconds))
    return result


STEPS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "build": build,
    "build_at_once": build_at_once,
    "extend": extend,
    "ask": ask,
    "ask_numpy": ask,
}


def measured(folder: Path, n_keys: int) -> dict[str, float]:
    """Return the figures of one size."""
    result: dict[str, float] = {"n_keys": n_keys}
    for step in STEPS:
        command = program(
            "tests.bench.store.index_growth", "--keys", n_keys, "--folder", folder, "--step", step
        )
        compiled = {SWITCH: "0"} if step == "ask_numpy" else {}
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**environment(), **compiled}
        )
        found = json.loads(done.stdout)
        result |= {f"numpy_{name}" if compiled else name: value for name, value in found.items()}
    return result


def table(sizes: list[dict[str, float]]) -> str:
    """Return a table in Markdown, with a column for a billion keys, by the slope of the last two sizes."""

    def ms(value: float) -> str:
        return f"{value * 1000:.3g} ms"

    def minutes(value: float) -> str:
        return f"{value:.3g} s" if value < 100 else f"{value / 60:.3g} min"

    def megabytes(value: float) -> str:
        return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"

    rows = [
        ("built at once", "build_seconds", minutes),
        ("its anonymous memory, at most", "build_anonymous_bytes", megabytes),
        ("file", "file_bytes", megabytes),
        ("half of it merged with as much", "merge_seconds", minutes),
        ("its anonymous memory, at most", "merge_anonymous_bytes", megabytes),
        ("extended by a shard of 1,000, median of 100", "extend_seconds", ms),
        ("opened after that", "open_seconds", ms),
        ("4,096 stored keys, warm", "4096_stored_warm_seconds", ms),
        ("4,096 others, warm", "4096_not_stored_warm_seconds", ms),
        ("4,096 stored keys, first time in a process", "4096_stored_first_seconds", ms),
        ("the same by NumPy: stored, warm", "numpy_4096_stored_warm_seconds", ms),
        ("one stored key, warm", "1_stored_warm_seconds", ms),
    ]
    header = [f"{int(size['n_keys']) // 1_000_000} million" for size in sizes]
    lines = [
        f"| keys | {' | '.join(header)} | 1 billion, computed |",
        f"|---|{'---|' * (len(sizes) + 1)}",
    ]
    for name, figure, shown in rows:
        last = sizes[-1]
        before = sizes[-2] if len(sizes) > 1 else {"n_keys": 0, figure: 0}
        slope = (last[figure] - before[figure]) / (last["n_keys"] - before["n_keys"])
        most = last[figure] + max(0.0, slope) * (BILLION - last["n_keys"])
        cells = [shown(size[figure]) for size in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} | {shown(most)} |")
    return "\n".join(lines)


@click.command()
@click.option("--keys", "largest", default=SIZES[-1], show_default=True)
@click.option("--quick", is_flag=True, help="A hundred thousand keys.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--folder", type=click.Path(path_type=Path), help="On the disk to use.")
@click.option("--write-table", is_flag=True)
@click.option("--step", type=click.Choice(list(STEPS)), hidden=True)
def main(
    largest: int, quick: bool, as_json: bool, folder: Path | None, write_table: bool, step: str | None
) -> None:
    if step is not None and folder is not None:
        print(json.dumps(STEPS[step](folder, largest)))
        return
    sizes = [size for size in SIZES if size < largest] + [largest]
    sizes = [100_000] if quick else sizes
    results = []
    for n_keys in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            results.append(measured(Path(inside), n_keys))
    if as_json:
        print(json.dumps({"machine": machine(), "sizes": results}, indent=2))
        return
    text = f"{table(results)}\n\n{machine()}; the disk syncs, other programs ran beside it."
    print(text)
    if write_table:
        page = Path(featurestore.__file__).parent / "store" / "FORMAT.md"
        marks = r"(<!-- index growth -->\n).*?(<!-- end -->)"
        filled = re.sub(marks, lambda found: f"{found[1]}{text}\n{found[2]}", page.read_text(), flags=re.S)
        page.write_text(filled)


if __name__ == "__main__":
    main()
