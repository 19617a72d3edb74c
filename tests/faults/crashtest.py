"""Crash tests by hand: what a store survives, each kind of fault with the figure that was reached.

Run it by ``bin/crashtest``. The short form does about what the tests do, ``--long`` what the page
tests/faults/README.md tells of, which ``--markdown`` writes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.rows import ROWS, Row
from tests.kit.memory import MEMORY_DISK
from tests.kit.places import ROOT
from tests.kit.programs import environment, program

PAGE = ROOT / "tests" / "faults" / "README.md"

_FRAME = """# What a store survives

`bin/crashtest --markdown` writes this page, `--long` for the figures to reach; given names of rows, it runs
and writes these alone. The tests run a short form of each row.

| row | fault | figure to reach | reached | seen |
|---|---|---|---|---|
{rows}

The rows run last were seen on {machine}.
"""


def run_row(name: str, long: bool) -> Row:
    """Run one row here."""
    started = time.monotonic()
    row = ROWS[name](long)
    row.seconds = round(time.monotonic() - started, 1)
    return row


def run_rows(names: list[str], long: bool, jobs: int) -> Iterator[Row]:
    """Run rows, with more than one job each in a process of its own; yield them in order."""
    if jobs == 1:
        yield from (run_row(name, long) for name in names)
        return

    def elsewhere(name: str) -> Row:
        command = program("tests.faults.crashtest", name, "--json", *(["--long"] if long else []))
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment())
        if not done.stdout:
            return Row(name, "", problems=[f"ended with {done.returncode} and said nothing"])
        return Row(**json.loads(done.stdout)["rows"][0])

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(elsewhere, names)


def machine() -> str:
    """Say what machine this is."""
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory:.0f} GiB, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, "
        f"files on {'a disk in memory' if MEMORY_DISK.is_dir() else 'disk'}"
    )


def show(row: Row) -> None:
    """Print a row for people, problems included."""
    print(f"{row.fault}: {row.reached}  ({row.seconds:.0f} s)", flush=True)
    for problem in row.problems[:10]:
        print(f"    {problem}", flush=True)


def write_page(found: dict[str, Row], long: bool) -> None:
    """Write the rows that were run into the page; those that were not stay as they were."""
    before = PAGE.read_text() if PAGE.exists() else ""
    lines = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z-]+)` \|.*\|$", before, re.M)}
    form = f"{'long' if long else 'short'} form, {revision()}"
    for name, row in found.items():
        lines[name] = f"| `{name}` | {row.fault} | {row.goal} | {row.reached} | {form} |"
    rows = "\n".join(lines[name] for name in ROWS if name in lines)
    PAGE.write_text(_FRAME.format(rows=rows, machine=machine()))


def revision() -> str:
    """Return the revision of the code, and whether it was changed since."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"revision {done.stdout.strip()}" if not done.returncode else "no revision"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/crashtest", description=__doc__.split("\n\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; by default all")
    parser.add_argument("--long", action="store_true", help="the long form: half an hour or more")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="write the rows into tests/faults/README.md")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown row {min(unknown)!r}: expected {', '.join(ROWS)}")
    # Every index that is built again, every file without canaries is logged.
    logging.disable(logging.WARNING)
    found: list[Row] = []
    names = options.rows or list(ROWS)
    for row in run_rows(names, options.long, max(1, options.jobs)):
        found.append(row)
        if not options.json:
            show(row)
    if options.markdown:
        write_page(dict(zip(names, found, strict=True)), options.long)
    if options.json:
        result: dict[str, Any] = {"long": options.long, "machine": machine()}
        print(json.dumps({**result, "rows": [asdict(row) for row in found]}, indent=1))
    else:
        print(f"\n{machine()}. {sum(row.seconds for row in found) / 60:.0f} minutes.")
    return int(any(row.problems for row in found))


if __name__ == "__main__":
    sys.exit(main())
