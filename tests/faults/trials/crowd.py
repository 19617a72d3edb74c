"""Many processes in one store at once: writers, readers, gc, merges, repair and verify, and random kills.

Each writer commits overlapping sentences and says in a file of its own which call has returned. What it said
must be there in the end, once, and exact; and no reader may ever have met anything else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random

import numpy as np

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.keys import Sentence
from featurestore.store.maintenance.gc import collect, orphaned_files, unreferenced_files
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import create, fill, sentence, vectors_of

Say = Callable[[str], None]
FORK = multiprocessing.get_context("fork")
N_COMMON = 200
"""Sentences that all writers draw from: each commit brings three to five of them, beside one of its own."""


@dataclass
class Crowd:
    """What many processes did to one store, and what was wrong with it."""

    n_commits: int = 0
    n_killed: int = 0
    n_sentences: int = 0
    n_reads: int = 0
    n_collected: int = 0
    n_merged: int = 0
    n_repaired: int = 0
    n_verified: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def detail(self) -> str:
        """The figures in a sentence."""
        return (
            f"{self.n_killed} processes killed and replaced; meanwhile {self.n_reads:,} readings of the "
            f"whole store, {self.n_collected:,} times gc, {self.n_merged:,} merges, {self.n_repaired:,} "
            f"times repair, {self.n_verified:,} times verify; then {self.n_sentences:,} sentences"
        )


def crowd(
    folder: Path,
    *,
    n_writers: int = 8,
    n_commits: int = 50,
    n_readers: int = 4,
    n_kills: int = 8,
    seed: int = 0,
    filesystem: FileSystem = LOCAL,
    context: ForkContext = FORK,
) -> Crowd:
    """Let them all work until every writer has made its commits; then look at what is left.

    Parameters
    ----------
    folder : Path
        Empty.
    n_writers, n_commits, n_readers : int
        Processes that write, commits that each makes, processes that read.
    n_kills : int
        Writers killed on the way, and as many of gc, merge, repair and verify; others replace them.
    filesystem : FileSystem
        Of the writers.
    """
    found, random = Crowd(), Random(seed)
    store = create(folder / "store.fs", filesystem=filesystem, shard_bytes=1 << 20)
    ended = context.Event()

    def start(act: Callable[..., None], *arguments: object) -> BaseProcess:
        said = folder / f"{act.__name__}-{len(processes)}"
        said.touch()  # it may be killed before it comes to say anything
        process = context.Process(target=_run, args=(said, act, store.path, *arguments))
        process.start()
        processes.append((process, said))
        return process

    processes: list[tuple[BaseProcess, Path]] = []
    others = [start(_read, ended, number) for number in range(n_readers)]
    upkeep: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (_collect, ()), (_merge, (folder / "other.fs",)), (_repair, ()), (_verify, ())
    ]  # fmt: skip
    keepers = [start(act, ended, *arguments) for act, arguments in upkeep]
    n_kills_left = n_kills
    writers = {number: start(_write, number, n_commits, filesystem) for number in range(n_writers)}
    while any(process.is_alive() for process in writers.values()):
        time.sleep(random.uniform(0, 0.1))
        number = random.randrange(n_writers)
        if found.n_killed < n_kills and writers[number].is_alive():
            os.kill(writers[number].pid or 0, signal.SIGKILL)
            writers[number].join()
            found.n_killed += writers[number].exitcode == -signal.SIGKILL
            writers[number] = start(_write, number, n_commits, filesystem)
        which = random.randrange(len(upkeep))
        if n_kills_left and keepers[which].is_alive() and random.random() < 0.3:
            n_kills_left -= 1
            os.kill(keepers[which].pid or 0, signal.SIGKILL)
            keepers[which].join()
            found.n_killed += 1
            act, arguments = upkeep[which]
            keepers[which] = start(act, ended, *arguments)
    ended.set()
    for process in (*others, *keepers):
        process.join(120)
        if process.is_alive():
            process.kill()
            found.problems.append("a reader, or what looks after the store, does not come to an end")
    _look_back(found, store, [said for _, said in processes])
    found.n_commits = n_writers * n_commits
    return found


def _look_back(found: Crowd, store: Store, files: list[Path]) -> None:
    """Compare what the processes said with what the store holds."""
    promised: set[Sentence] = set()
    for file in files:
        for line in file.read_text().splitlines():
            word, _, rest = line.partition(" ")
            if word == "problem":
                found.problems.append(f"{file.name}: {rest}")
            elif word == "stored":
                promised.update(sentence(int(number)) for number in rest.split())
            else:
                setattr(found, word, getattr(found, word) + int(rest))
    collect(store.path, keep_last=1, older_than=0)
    store = Store.open(store.path)
    stored = [tokens for _, _, tokens in store.sentences()]
    found.n_sentences = len(stored)
    lost = promised - set(stored)
    found.problems += [f"lost: {tokens}" for tokens in sorted(lost)[:5]]
    if len(set(stored)) != len(stored):
        found.problems.append(f"{len(stored) - len(set(stored))} sentences are there twice")
    found.problems += _wrong(store)
    found.problems += [str(finding) for finding in verify(store)]
    # What dead writers left is gone.
    found.problems += [f"left behind: {file}" for file in (store.path / "tmp").iterdir()]
    listed = {entry.name for entry in store.manifest.shards}
    on_disk = {file.name for file in (store.path / "shards").iterdir()}
    if on_disk != listed:
        found.problems.append(f"{len(on_disk - listed)} shards are left that nothing lists")


def _wrong(store: Store) -> list[str]:
    """Read a whole store, by sentence and in order, and return what is wrong."""
    stored = [tokens for _, _, tokens in store.sentences()]
    if len(stored) != len(store):
        return [f"snapshot {store.snapshot} says {len(store)} sentences and lists {len(stored)}"]
    return [
        f"snapshot {store.snapshot}: wrong vectors of {tokens}"
        for tokens, vectors in zip(stored, store.get_many(stored), strict=True)
        if not np.array_equal(vectors, vectors_of(tokens))
    ]


# -- what each process does; it says a line for what it has done


def _run(said: Path, act: Callable[..., None], *arguments: object) -> None:
    with said.open("w", buffering=1) as file:
        try:
            act(lambda line: print(line, file=file), *arguments)
        except BaseException:  # noqa: BLE001 - whatever it is, the crowd must hear of it
            print("problem", traceback.format_exc().strip().replace("\n", " | "), file=file)


def _write(say: Say, path: Path, number: int, n_commits: int, filesystem: FileSystem) -> None:
    """Make commits; a writer that replaces another begins anew, and finds what that one committed."""
    random = Random(number)
    session = None
    for commit in range(n_commits):
        if session is None or random.random() < 0.2:
            session = Store.open(path, filesystem=filesystem).write()
        own = N_COMMON + number * n_commits + commit
        wanted = [own, *random.sample(range(N_COMMON), random.randrange(3, 6))]
        for each in wanted:
            session.add(sentence(each), vectors_of(sentence(each)))
        session.flush()
        say(f"stored {' '.join(map(str, wanted))}")
    if session is not None:
        session.close()


def _read(say: Say, path: Path, ended: Event, number: int) -> None:
    """Read the latest snapshot whole, and an older one that is kept open meanwhile once more."""
    older = Store.open(path)
    while not ended.is_set():
        store = Store.open(path, access="pread" if number % 2 else "mmap", check="always")
        for opened in (store, older):
            for problem in _wrong(opened):
                say(f"problem {problem}")
            say("n_reads 1")
        older = store


def _collect(say: Say, path: Path, ended: Event) -> None:
    while not ended.is_set():
        collect(path, keep_last=1, older_than=0)
        say("n_collected 1")
        time.sleep(0.02)


def _merge(say: Say, path: Path, ended: Event, other: Path) -> None:
    """Merge a growing store into it, of which some sentences are there already."""
    source = Store.open(other) if Store.exists(other) else create(other)
    random = Random(0)
    for number in range(len(source), 1_000_000):
        if ended.is_set():
            break
        wanted = [1_000_000 + number, *random.sample(range(N_COMMON), 4)]
        source = fill(source, map(sentence, wanted))
        merge([other], path)
        say(f"stored {' '.join(map(str, wanted))}")
        say("n_merged 1")
        time.sleep(0.02)


def _repair(say: Say, path: Path, ended: Event) -> None:
    """Repair a store in which nothing is damaged, for good and by a dry run."""
    while not ended.is_set():
        for dry_run in (True, False):
            done = repair(path, dry_run=dry_run)
            for damaged in done.damaged:
                say(f"problem repair takes {damaged.name} for damaged: {damaged.problem}")
        say("n_repaired 1")
        time.sleep(0.02)


def _verify(say: Say, path: Path, ended: Event) -> None:
    """Verify a sound store, and look for what it does not need."""
    while not ended.is_set():
        for finding in verify(Store.open(path)):
            say(f"problem verify finds {finding}")
        unreferenced_files(path)
        orphaned_files(path)
        say("n_verified 1")
