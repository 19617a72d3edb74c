"""Kill points: a real process, killed for real before, amid or after each file operation of a scenario."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featurestore.disk.filesystem import FileSystem
from featurestore.keys import Sentence
from tests.faults.trials.scenarios import EVERY_SENTENCE, Scenario, check, prepared_once
from tests.kit.faulty import FaultyFileSystem, Moment, ignore, kill


@dataclass(frozen=True)
class KillPoint:
    """Where a process was killed and what was wrong afterwards."""

    scenario: str
    place: str
    killed: bool
    problems: list[str]


def kill_everywhere(scenario: Scenario, folder: Path) -> Iterator[KillPoint]:
    """Kill a process at every point of a scenario, each time in a folder of its own.

    Before the first operation, after each one (which for the disk is before the next) and in the middle of
    each write.
    """
    counted = folder / "counted"
    prepare = prepared_once(scenario, folder / "prepared")
    prepare(counted)
    watching = FaultyFileSystem(-1, ignore)
    scenario.act(counted, watching, lambda _: None)
    kinds = [operation.kind for operation in watching.operations]
    points: list[tuple[int, Moment]] = [(0, "before")]
    points += [(number, "half") for number, kind in enumerate(kinds) if kind == "write"]
    points += [(number, "after") for number in range(len(kinds))]
    for number, moment in points:
        place = folder / f"{number}-{moment}"
        prepare(place)
        status, acknowledged = in_child(scenario, place, FaultyFileSystem(number, kill, moment))
        problems = check(place, scenario, acknowledged)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        yield KillPoint(scenario.name, f"{moment} {kinds[number]} {number}", killed, problems)


def in_child(scenario: Scenario, folder: Path, filesystem: FileSystem) -> tuple[int, list[Sentence]]:
    """Act in a forked process; return how it ended and the sentences it had acknowledged by then."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(receiving)
            # A byte for each sentence: what a pipe took before a kill is there after it.
            scenario.act(
                folder, filesystem, lambda done: os.write(sending, bytes(map(EVERY_SENTENCE.index, done)))
            )
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may return into the parent's test
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(sending)
    with open(receiving, "rb") as pipe:
        raw = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, [EVERY_SENTENCE[number] for number in raw]
