"""Exports that are killed, or whose disk is full: nothing has the name unless it is whole.

What an export writes does not pass the door, since libraries write it; it lies in a folder beside the
name, and that gets its name through the door. So a process is killed at every operation of the door and
behind every sentence, and the disk is full after any number of bytes, by the limit on the size of a file.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from featurestore.corpora.memory import corpus_from_sentences
from featurestore.disk import atomic
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import StoreWriteError, UsageError
from featurestore.exchange.exporting import FORMATS, export
from featurestore.store.store import Store
from tests.faults.trials.kills import KillPoint
from tests.kit.faulty import FaultyFileSystem, ignore, kill
from tests.kit.stores import create, fill, sentences

N_SENTENCES = 6

SPLITS = "datasets, two splits"
KINDS = (*FORMATS, SPLITS)
"""Formats, and folders of folders."""

Progress = Callable[[int], object]


def prepared(folder: Path) -> Store:
    """Return a store to export from."""
    return fill(create(folder / "store.fs"), sentences(N_SENTENCES))


def export_as(store: Store, path: Path, kind: str, **options: Any) -> None:
    """Export all sentences as one of :data:`KINDS`."""
    if kind == SPLITS:
        parts = {"train": sentences(N_SENTENCES)[:4], "dev": sentences(N_SENTENCES)[4:]}
        splits = {name: corpus_from_sentences(part) for name, part in parts.items()}
        export(store, path, "datasets", splits=splits, **options)
    else:
        export(store, path, kind, **options)


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of each file of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def kill_everywhere(store: Store, to: str, folder: Path) -> Iterator[KillPoint]:
    """Kill a process that exports at every point, and finish its work."""
    folder.mkdir()
    watching = FaultyFileSystem(-1, ignore)
    export_as(store, folder / "whole", to, filesystem=watching)
    whole, n_operations = contents(folder / "whole"), len(watching.operations)
    points: list[tuple[str, FileSystem, Progress | None]] = [
        ("before 0", FaultyFileSystem(0, kill, "before"), None)
    ]
    for number, operation in enumerate(watching.operations):
        points.append((f"after {operation.kind} {number}", FaultyFileSystem(number, kill, "after"), None))
    points += [(f"sentence {n}", LOCAL, _dying_at(n)) for n in range(N_SENTENCES)]
    assert n_operations > 4
    for number, (place, filesystem, progress) in enumerate(points):
        where = folder / str(number)
        where.mkdir()
        status = in_child(
            partial(export_as, store, where / "out", to, filesystem=filesystem, progress=progress)
        )
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        yield KillPoint(to, place, killed, list(_wrong(store, where, to, whole)))


def _dying_at(n: int) -> Progress:
    left = n

    def step(n_tokens: int) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return step


def fill_everywhere(store: Store, to: str, folder: Path, n_points: int) -> Iterator[tuple[str, list[str]]]:
    """Let no file grow beyond a size, so that a disk seems full after so many bytes; then let it grow."""
    folder.mkdir()
    export_as(store, folder / "whole", to)
    whole = contents(folder / "whole")
    largest = max(map(len, whole.values()))
    for limit in sorted({largest * number // n_points for number in range(n_points)}):
        where = folder / str(limit)
        where.mkdir()
        receiving, sending = os.pipe()

        def limited(limit: int = limit, where: Path = where, sending: int = sending) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                export_as(store, where / "out", to)
            except StoreWriteError as error:
                os.write(sending, str(error).encode())

        status = in_child(limited)
        os.close(sending)
        with open(receiving) as pipe:
            message = pipe.read()
        problems = [] if status == 0 else [f"the process ended with {status}"]
        if str(where / "out") not in message:
            problems.append(f"the message names no path: {message!r}")
        problems += [f"left behind: {path.name}" for path in where.iterdir()]
        yield f"{limit} bytes", problems + list(_wrong(store, where, to, whole))


def in_child(act: Callable[[], object]) -> int:
    """Act in a forked process; return how it ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def _wrong(store: Store, where: Path, to: str, whole: dict[str, bytes]) -> Iterator[str]:
    """Finish the work; yield what is wrong before and afterwards."""
    out, is_there = where / "out", (where / "out").exists()
    if is_there and contents(out) != whole:
        yield "what has the name is not whole"
    for path in where.iterdir():
        if path != out and not path.name.startswith("."):
            yield f"left with a name that looks whole: {path.name}"
    patience, atomic._NEW_SECONDS = atomic._NEW_SECONDS, 0.0  # what is left is older than this, in life
    try:
        export_as(store, out, to)
    except UsageError as error:
        if not is_there or "already something at" not in str(error):
            yield f"{error}"
    else:
        if is_there:
            yield "what was there was written over"
        yield from (f"left behind: {path.name}" for path in where.iterdir() if path != out)
    finally:
        atomic._NEW_SECONDS = patience
    if contents(out) != whole:
        yield "done again, it differs"
