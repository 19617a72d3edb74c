"""Seconds that commands take from start to end, the median of several runs; none of them loads torch.

python tests/bench/start_up.py features/demo
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
from machine import machine


@click.command()
@click.argument("store", type=click.Path(exists=True))
@click.option("--repeats", default=9, show_default=True)
def main(store: str, repeats: int) -> None:
    command = shutil.which("featurestore", path=str(Path(sys.executable).parent))
    if command is None:
        raise click.ClickException("the featurestore command is not installed beside this Python")
    print(machine())
    for arguments in (["--help"], ["info", store], ["ls", store, "--limit", "1"], ["stats", store]):
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run([command, *arguments], stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - started)
        print(f"featurestore {' '.join(arguments):40} {statistics.median(seconds):6.3f} s")


if __name__ == "__main__":
    main()
