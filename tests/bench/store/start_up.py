"""Seconds that commands take from start to end, the median of several runs; none of them loads torch.

    python -m tests.bench.store.start_up features/demo

Without a store it makes one. The ceiling is Python itself, starting and doing nothing.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part

AIMS = {"--help": 0.15, "info": 0.3}
"""Seconds that a user does not notice."""


def small_store(path: Path) -> Path:
    """Make a store of a thousand sentences."""
    from featurestore import Recipe, Store

    store = Store.create(path, recipe=Recipe({"kind": "bench", "version": 1}), dim=64)
    with store.write() as session:
        for number in range(1000):
            session.add((str(number), "is", "a", "number"), np.full((4, 64), number / 1000, np.float32))
    return path


def seconds_of(command: list[str], repeats: int) -> float:
    """Return the median of the seconds that a command takes."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measured(store: Path, repeats: int) -> PartResult:
    """Measure the commands on a store."""
    command = shutil.which("featurestore", path=str(Path(sys.executable).parent))
    if command is None:
        raise click.ClickException("the featurestore command is not installed beside this Python")
    table = Table("Start-up", ["seconds", "aim"], lower_is_better=True)
    for arguments in (
        ["--help"],
        ["info", str(store)],
        ["ls", str(store), "--limit", "1"],
        ["stats", str(store)],
    ):
        seconds = seconds_of([command, *arguments], repeats)
        aim = AIMS.get(arguments[0])
        table.add(f"featurestore {arguments[0]}", "ours", seconds, aim and f"under {aim}")
    table.add("python -c pass", "ceiling", seconds_of([sys.executable, "-c", "pass"], repeats))
    return PartResult(
        tables=[table], settings={"repeats": repeats, "store": "the one given or 1,000 sentences"}
    )


@click.command()
@click.argument("store", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--repeats", default=9, show_default=True)
@part_options
def main(store: Path | None, repeats: int, quick: bool, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = store or small_store(Path(folder) / "store")
        print_part(measured(store, 1 if quick else repeats), as_json)


if __name__ == "__main__":
    main()
