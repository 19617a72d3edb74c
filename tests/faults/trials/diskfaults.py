"""Disks that are full, over quota, read-only, or fail to write or sync, at any operation of a scenario."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import StoreWriteError
from featurestore.keys import Sentence
from tests.faults.trials.scenarios import Scenario, check, prepared_once
from tests.kit.faulty import FaultyFileSystem, ignore, raising

_TAKES_SPACE = ("mkdir", "create", "reserve", "write", "sync", "link", "rename")


@dataclass(frozen=True)
class DiskFault:
    """What a disk answers, to which operations, and whether it goes on doing so."""

    code: int
    kinds: tuple[str, ...]
    for_good: bool
    message: str


DISK_FAULTS = {
    "full": DiskFault(
        errno.ENOSPC, _TAKES_SPACE, True, "no space left while writing .*run the same command again"
    ),
    "quota": DiskFault(errno.EDQUOT, _TAKES_SPACE, True, "the disk quota is used up while writing"),
    "read-only": DiskFault(
        errno.EROFS,
        ("mkdir", "create", "reserve", "write", "link", "rename", "unlink"),
        True,
        r"cannot write .*Is the directory read-only\?",
    ),
    "fsync fails": DiskFault(
        errno.EIO, ("sync", "sync directory"), False, "cannot write .*Input/output error.*see to the disk"
    ),
    "write fails": DiskFault(
        errno.EIO, ("write",), False, "cannot write .*Input/output error.*see to the disk"
    ),
}


@dataclass(frozen=True)
class FaultPoint:
    """A disk that failed at one operation, and what was wrong then or afterwards."""

    scenario: str
    place: str
    problems: list[str]


def fail_everywhere(scenario: Scenario, fault: DiskFault, folder: Path) -> Iterator[FaultPoint]:
    """Let a disk fail from each operation of a scenario on, or only there; each time in its own folder."""
    counted = folder / "counted"
    prepare = prepared_once(scenario, folder / "prepared")
    prepare(counted)
    watching = FaultyFileSystem(-1, ignore, kinds=fault.kinds)
    scenario.act(counted, watching, lambda _: None)
    for number, operation in enumerate(watching.operations):
        place = folder / str(number)
        prepare(place)
        filesystem = FaultyFileSystem(number, raising(fault.code), kinds=fault.kinds, for_good=fault.for_good)
        acknowledged: list[Sentence] = []
        problems = []
        try:
            scenario.act(place, filesystem, acknowledged.extend)
        except StoreWriteError as error:
            problems += _wrong_message(str(error), fault, operation.kind, place)
        else:
            # The index is derived, and a name in tmp/ is swept later: neither is worth an error.
            of_index = "index" in (scenario.name, operation.path.name, operation.path.parent.name)
            if not of_index and operation.kind != "unlink":
                problems.append("no error")
        yield FaultPoint(
            scenario.name, f"{operation.kind} {number}", problems + check(place, scenario, acknowledged)
        )


def _wrong_message(message: str, fault: DiskFault, kind: str, folder: Path) -> list[str]:
    problems = []
    if not re.search(fault.message, message):
        problems.append(f"the message is {message!r}, expected {fault.message!r}")
    if not re.search(rf"{re.escape(str(folder))}\S*", message):
        problems.append(f"the message names no path: {message!r}")
    # Names elsewhere are given to files that are complete, and take nothing that could be said in bytes.
    of_new_file = re.search(rf"{re.escape(str(folder))}\S*/tmp/\S+\.(h5|json)", message)
    if of_new_file and kind != "unlink" and not re.search(r"\([\d,]+ bytes\)", message):
        problems.append(f"the message names no bytes: {message!r}")
    return problems
