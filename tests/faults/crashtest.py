"""Crash tests by hand: kills, power loss, failing disks, killed extractions, each with the figure it reached.

Run it by ``bin/crashtest``. The short form does what the tests do, ``--long`` what the README tells of.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from diskfaults import DISK_FAULTS, fail_everywhere
from extractions import Kill, kill_series, nursery
from faulty import memory_folder
from kills import kill_everywhere
from powerloss import State, states
from scenarios import SCENARIOS


@dataclass
class Row:
    """What was tried against one kind of fault, and what came of it."""

    fault: str
    n_tried: int = 0
    unit: str = ""
    detail: str = ""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def kills(long: bool) -> Row:
    """Kill a process at every file operation of everything a store does."""
    row = Row("kill before, amid and after every file operation", unit="points")
    by_scenario = {}
    for scenario in SCENARIOS:
        with memory_folder() as folder:
            points = list(kill_everywhere(scenario, folder))
        by_scenario[scenario.name] = len(points)
        row.n_tried += len(points)
        for point in points:
            row.problems += [f"{point.scenario}, {point.place}: {problem}" for problem in point.problems]
            if not point.killed:
                row.problems.append(f"{point.scenario}, {point.place}: the process was not killed")
    row.detail = ", ".join(f"{name} {n}" for name, n in by_scenario.items())
    return row


def power_loss(long: bool) -> Row:
    """Check states that a power cut may leave, no two of them equal."""
    row = Row("power loss replayed from the operation log", unit="states")
    for state in itertools.islice(_states(Random(0)), 5000 if long else 300):
        row.n_tried += 1
        row.problems += [f"{state.scenario}, {state.moment}: {problem}" for problem in state.problems]
    return row


def _states(random: Random) -> Iterator[State]:
    seen: set[bytes] = set()
    for scenario in itertools.cycle(SCENARIOS):
        with memory_folder() as folder:
            yield from states(scenario, random, folder, seen=seen)


def disks(long: bool) -> Row:
    """Let a disk fail at every operation of everything a store does."""
    row = Row("disk full, over quota, read-only, failing to write or sync, at every operation", unit="points")
    by_fault = dict.fromkeys(DISK_FAULTS, 0)
    for (name, fault), scenario in itertools.product(
        DISK_FAULTS.items(), SCENARIOS if long else SCENARIOS[:3]
    ):
        with memory_folder() as folder:
            for point in fail_everywhere(scenario, fault, folder):
                row.n_tried += 1
                by_fault[name] += 1
                row.problems += [f"{name}, {point.scenario}, {point.place}: {p}" for p in point.problems]
    row.detail = ", ".join(f"{name} {n}" for name, n in by_fault.items())
    return row


def extractions(long: bool) -> Row:
    """Kill real extractions of a real encoder at random moments; compare bytes in the end."""
    row = Row("random SIGKILL of real extractions, resumed under random options", unit="kills")
    wanted, again = 200 if long else 5, 0.0
    with ExitStack() as stack:
        children = stack.enter_context(nursery(stack.enter_context(memory_folder())))
        for seed in itertools.count():
            with memory_folder() as folder:
                done: list[Kill] = list(kill_series(children, folder, Random(seed)))
            row.n_tried += len(done)
            row.problems += [f"series {seed}: {problem}" for kill in done for problem in kill.problems]
            again = max([again, *(kill.shards for kill in done)])
            if row.n_tried >= wanted:
                break
    row.detail = f"{seed + 1} runs, each in the end equal to an undisturbed one byte for byte; " * (
        not row.problems
    )
    row.detail += f"at most {again:.2f} shards encoded again"
    return row


ROWS: dict[str, Callable[[bool], Row]] = {
    "kills": kills,
    "power-loss": power_loss,
    "disks": disks,
    "extractions": extractions,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/crashtest", description=__doc__.split("\n\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; by default all")
    parser.add_argument("--long", action="store_true", help="the long form: half an hour or more")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown row {min(unknown)!r}: expected {', '.join(ROWS)}")
    found = []
    for name in options.rows or ROWS:
        started = time.monotonic()
        row = ROWS[name](options.long)
        row.seconds = round(time.monotonic() - started, 1)
        found.append(row)
        if not options.json:
            print(f"{row.fault}: {row.n_tried:,} {row.unit}, {len(row.problems)} bad  ({row.seconds:.0f} s)")
            if row.detail:
                print(f"    {row.detail}")
            for problem in row.problems[:10]:
                print(f"    {problem}")
            sys.stdout.flush()
    if options.json:
        print(json.dumps({"long": options.long, "rows": [asdict(row) for row in found]}, indent=1))
    return int(any(row.problems for row in found))


if __name__ == "__main__":
    sys.exit(main())
