"""What stores of many shards cost: commits, opening, gc, quick verification, info; tiny, and really written.

    python -m tests.bench.store.many_shards --work /path/to/a/disk
    python -m tests.bench.store.many_shards --quick

The shards that make a store large are of one sentence each, written past the syncs and named by manifests of
a thousand; what is measured is committed one shard at a time, by a writer's session. The older version of the
format is measured beside.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from featurestore import Recipe, Store
from featurestore.keys import sentence_key
from featurestore.store.format.codec import get_codec
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.shard import ShardDraft
from featurestore.store.locks import committing
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part
from tests.kit.stores import as_version_1

DIM, N_TOKENS = 32, 64
"""Vectors of 4 KiB a shard, so that its head is not padded."""
SIZES = (10, 1_000, 50_000)
N_COMMITS = 64
"""Measured at each size: eight times what a manifest holds itself."""
A_COMMIT = 1000


def sentence(number: int) -> tuple[str, ...]:
    return (f"{number:08d}", *("token",) * (N_TOKENS - 1))


def drafted(number: int) -> ShardDraft:
    draft = ShardDraft([sentence(number)], dim=DIM, n_layers=1, codec=get_codec("float16"))
    draft.put(0, np.full((N_TOKENS, DIM), number % 1000, np.float32))
    return draft


def shards_of(store: Store, first: int, stop: int) -> Iterator[tuple[ShardEntry, bytes]]:
    """Write shards of a sentence each, all of the same vectors; yield entries and keys."""
    sealed = drafted(0).seal(store.fingerprint)
    at = {name: extent.offset for name, extent in sealed.entry.extents.items()}
    content, start = bytearray(sealed.head + sealed.values.tobytes()), at["values"]
    for number in range(first, stop):
        key = sentence_key(sentence(number))
        content[at["tokens"] : at["tokens"] + 8] = f"{number:08d}".encode()
        content[at["keys"] : at["keys"] + 16] = key
        digest = hashlib.sha256(content).hexdigest()
        entry = replace(sealed.entry, sha256=digest, head_sha256=hashlib.sha256(content[:start]).hexdigest())
        (store.location / "shards" / entry.name).write_bytes(content)
        yield entry, key


def grown(store: Store, n_shards: int) -> Store:
    """Fill a store up to a number of shards, a thousand by one manifest."""
    session = store.write()
    for first in range(len(session.manifest.shards), n_shards, A_COMMIT):
        with committing(store.location):
            session.catch_up()
            entries, keys = zip(*shards_of(store, first, min(first + A_COMMIT, n_shards)), strict=True)
            stored = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
            if not session.commit_placed(entries, stored, "float16"):
                raise click.ClickException("another process writes to the store")
    session.close()
    return store.refreshed()


def tree_bytes(path: Path) -> dict[str, int]:
    """Return the size of each manifest and list."""
    found = [*(path / "manifests").iterdir(), *(path / "lists").glob("*")]
    return {str(file): file.stat().st_size for file in found}


def commits(store: Store, first: int, n: int = N_COMMITS) -> tuple[float, float, float, float]:
    """Commit shards one by one; return the mean, median and longest ms of a commit, and the bytes it writes.

    The bytes are those of manifests and lists; the time is that of the whole commit, its shard included.
    """
    before, times = tree_bytes(store.path), []
    session = store.write()
    for number in range(first, first + n):
        draft = drafted(number)
        started = time.perf_counter()
        session.commit(draft)
        times.append(1000 * (time.perf_counter() - started))
    after = tree_bytes(store.path)
    n_bytes = sum(size for name, size in after.items() if name not in before)
    session.close()
    return statistics.mean(times), statistics.median(times), max(times), n_bytes / n


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the least seconds of several calls."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


_MEMORY = """
import re, sys
from featurestore import Store
def resident(): return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
small = Store.open(sys.argv[1])
before = resident()
store = Store.open(sys.argv[2])
print((resident() - before) / 1024)
"""


def opening_memory(small: Path, path: Path) -> float:
    """Return the MB that a process grows by when it opens a store, after another one."""
    command = [sys.executable, "-c", _MEMORY, str(small), str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def commands(path: Path) -> Iterator[tuple[str, float]]:
    """Yield each command that looks after a store, and its seconds from start to end."""
    program = shutil.which("featurestore", path=str(Path(sys.executable).parent))
    if program is None:
        raise click.ClickException("the featurestore command is not installed beside this Python")
    for arguments in (["info"], ["verify", "--quick"], ["gc"]):
        command = [program, arguments[0], str(path), *arguments[1:]]
        yield (
            " ".join(arguments),
            seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True), 2),
        )


def measured(work: Path, sizes: tuple[int, ...]) -> PartResult:
    """Grow a store and measure at each size."""
    costs = Table(
        "A commit of one shard",
        ["mean ms", "median ms", "longest ms", "bytes of lists"],
        lower_is_better=True,
    )
    looking = Table("A store of many shards", ["figure", "aim"], lower_is_better=True)
    store = Store.create(work / "store", recipe=Recipe({"kind": "bench", "version": 1}), dim=DIM)
    first: tuple[float, ...] | None = None
    for n_shards in sizes:
        store = grown(store, n_shards)
        found = commits(store, n_shards)
        store = store.refreshed()
        first = first or found
        note = (
            ""
            if found is first
            else f"{found[0] / first[0]:.2f} x the time, {found[3] / first[3]:.2f} x the bytes"
        )
        costs.add(f"version 2, {n_shards:,} shards", "ours", *found, note)
    n_shards = len(store.manifest.shards)
    small = Store.create(work / "small", recipe=Recipe({"kind": "bench", "version": 1}), dim=DIM)
    looking.add(
        f"open, {n_shards:,} shards, ms", "ours", 1000 * seconds(lambda: Store.open(store.path)), "under 50"
    )
    looking.add("memory that opening takes, MB", "ours", opening_memory(small.path, store.path), "under 50")
    looking.add(
        "open and find a sentence, ms", "ours", 1000 * seconds(lambda: sentence(7) in Store.open(store.path))
    )
    for name, took in commands(store.path):
        looking.add(f"featurestore {name}, s", "ours", took, "under 2")
    old = as_version_1(store.path)
    looking.add("open in version 1, ms", "before", 1000 * seconds(lambda: Store.open(old.path), 1))
    costs.add(f"version 1, {n_shards:,} shards", "before", *commits(old, n_shards, 4))
    return PartResult(
        tables=[costs, looking],
        settings={
            "commits measured at each size": f"{N_COMMITS}, of version 1: 4",
            "a shard": f"{N_TOKENS} tokens of {DIM} float16",
        },
    )


@click.command()
@click.option(
    "--work", type=click.Path(path_type=Path), help="Where the stores are made; else a disk in memory."
)
@part_options
def main(work: Path | None, quick: bool, as_json: bool) -> None:
    in_memory = Path("/dev/shm")
    parent = work or (in_memory if in_memory.is_dir() and os.access(in_memory, os.W_OK) else None)
    with tempfile.TemporaryDirectory(dir=parent) as folder, contextlib.redirect_stderr(io.StringIO()):
        print_part(measured(Path(folder), (10, 200) if quick else SIZES), as_json)


if __name__ == "__main__":
    main()
