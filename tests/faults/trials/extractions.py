"""Real extractions, killed at random moments and resumed under other options, against undisturbed ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import IO

from featurestore.extraction.writing import sealing_threads
from featurestore.store.format.manifest import Manifest
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.places import ROOT, TINY_ELMO
from tests.kit.programs import environment, program

ENCODER = f"elmo:{TINY_ELMO / 'options.json'},{TINY_ELMO / 'weights.hdf5'}"
CORPUS = ROOT / "data" / "tagging" / "train.conllu"
SHARD_BYTES = 20_000
"""Some ten shards for the corpus."""
KILLS_A_SERIES = 8
N_WRITTEN = sealing_threads(SHARD_BYTES)
"""Shards that an extraction here has under way at most, beside the open one."""


@dataclass(frozen=True)
class Kill:
    """A real extraction that was killed.

    Attributes
    ----------
    shards : float
        What is to be encoded again, in shards.
    problems : list of str
    """

    shards: float
    problems: list[str]


class Nursery:
    """Runs ``featurestore`` commands in processes of their own: see ``nursery.py``."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self._to: IO[str] = process.stdin  # type: ignore[assignment]
        self._from: IO[str] = process.stdout  # type: ignore[assignment]
        self._said = said

    def start(self, arguments: list[str]) -> int:
        """Start a command; return its process number, which is its own until :meth:`ended`."""
        self._said.unlink(missing_ok=True)
        print(json.dumps([arguments, str(self._said)]), file=self._to, flush=True)
        return int(self._from.readline())

    def ended(self) -> int:
        """Wait for the command; return its exit status, as wait(2) gives it."""
        print(file=self._to, flush=True)
        return int(self._from.readline())

    def said(self) -> str:
        """Return what the command has said so far."""
        return self._said.read_text() if self._said.exists() else ""


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    """Start the process that starts the others; it ends with the context."""
    with subprocess.Popen(
        program("tests.faults.trials.nursery"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(OMP_NUM_THREADS="1"),
    ) as process:  # fmt: skip
        yield Nursery(process, folder / "said")


def kill_series(
    children: Nursery, folder: Path, random: Random, n_kills: int = KILLS_A_SERIES
) -> Iterator[Kill]:
    """Kill one extraction again and again, let it finish, and compare it with one that was not disturbed."""
    # Batches decide the last bits of a vector, so the budget is another in each series but not within one.
    budget = random.choice((7, 40, 200))
    began = time.monotonic()
    _complete(children, _arguments(folder / "whole", budget, random))
    seconds = time.monotonic() - began
    whole = Store.open(folder / "whole").manifest
    largest = max(shard.n_tokens for shard in whole.shards)
    path = folder / "killed"
    for _ in range(n_kills):
        before = _tokens(path)
        process = children.start(_arguments(path, budget, random))
        _wait(children, random, seconds)
        os.kill(process, signal.SIGKILL)
        if not os.WIFSIGNALED(children.ended()):
            break  # it was faster
        encoded = [
            int(n.replace(",", "")) for n in re.findall(r"^encoded ([\d,]+) of", children.said(), re.M)
        ]
        lost = max(encoded, default=0) - (_tokens(path) - before)
        problems = _wrong(path, whole)
        if lost > (1 + N_WRITTEN) * largest:
            problems.append(f"{lost} tokens to encode again, {1 + N_WRITTEN} shards have {largest} each")
        yield Kill(lost / largest, problems)
    _complete(children, _arguments(path, budget, random))
    problems = _wrong(path, whole)
    if Store.open(path).manifest.shards != whole.shards:
        problems.append("the shards are not those of an undisturbed run")
    for shard in whole.shards:
        if (path / "shards" / shard.name).read_bytes() != (
            folder / "whole" / "shards" / shard.name
        ).read_bytes():
            problems.append(f"shard {shard.name} is not that of an undisturbed run")
    if list((path / "tmp").iterdir()):
        problems.append("temporary files are left")
    if problems:
        yield Kill(0, problems)


def _arguments(store: Path, budget: int, random: Random) -> list[str]:
    """Return one of the many ways to say the same."""
    needed = [["--store", str(store)], ["--token-budget", str(budget)], ["--device", "cpu"], [str(CORPUS)]]
    first = [["--encoder", ENCODER], ["--codec", "float32"], ["--shard-size", str(SHARD_BYTES)]]
    if Store.exists(store):
        # The store knows them.
        first = random.sample(first, random.randrange(len(first) + 1))
    free = [["--layers", "average"], ["--precision", "float32"], ["--initial-state", "zero"]]
    groups = [*needed, *first, *random.sample(free, random.randrange(len(free) + 1))]
    random.shuffle(groups)
    return ["extract", *(argument for group in groups for argument in group)]


def _wait(children: Nursery, random: Random, seconds: float) -> None:
    """Wait for a random moment: of the whole run, or soon after some commit."""
    deadline = time.monotonic() + 2 * seconds
    if random.random() < 0.5:
        time.sleep(random.uniform(0, seconds))
        return
    n_commits = random.randrange(1, 4)
    while children.said().count("committed ") < n_commits and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))


def _complete(children: Nursery, arguments: list[str]) -> None:
    children.start(arguments)
    status = children.ended()
    if status:
        raise RuntimeError(f"featurestore {' '.join(arguments)} ended with {status}:\n{children.said()}")


def _tokens(path: Path) -> int:
    return Store.open(path).n_tokens if Store.exists(path) else 0


def _wrong(path: Path, whole: Manifest) -> list[str]:
    """Return what is wrong with a store that should hold the first shards of an undisturbed run."""
    if not Store.exists(path):
        return []
    store = Store.open(path)
    problems = [str(finding) for finding in verify(store)]
    if store.manifest.shards != whole.shards[: len(store.manifest.shards)]:
        problems.append("the shards are not the first ones of an undisturbed run")
    return problems
