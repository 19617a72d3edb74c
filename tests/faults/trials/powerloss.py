"""Power loss: from a log of file operations, everything that a disk may hold when the power goes.

What was synced is there. Of the rest anything may be: a write of a file not yet synced survives or not by
sectors of 512 bytes, in any order, before or after the file's size; an entry of a directory not yet synced is
there or not, whatever became of other entries, so of a rename one name may be changed and not the other. That
is more than a journaling file system would do, and as much as POSIX allows.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from featurestore.disk.filesystem import FileSystem
from featurestore.disk.operation import Operation
from featurestore.keys import Sentence
from tests.faults.trials.scenarios import Scenario, check
from tests.kit.memory import memory_folder

SECTOR = 512


class File:
    """A file: what the disk holds for certain, and what it was told since it was last synced."""

    def __init__(self, content: bytes = b"") -> None:
        self.synced = content
        self.since: list[tuple[int, bytes | int]] = []  # (offset, bytes written) or (0, size reserved)

    def sync(self) -> None:
        self.synced = self._after(self.since)
        self.since = []

    def torn(self, random: Random) -> bytes:
        """Return what may be left of the file."""
        if not self.since:
            return self.synced
        share = random.choice((0.0, 0.5, 1.0, random.random()))
        kept: list[tuple[int, bytes | int]] = []
        for offset, data in self.since:
            if isinstance(data, int):
                if random.random() < share:
                    kept.append((offset, data))
                continue
            # Sectors of the file, not of the write.
            edges = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
            kept += [
                (offset + start, data[start:stop])
                for start, stop in itertools.pairwise(edges)
                if random.random() < share
            ]
        random.shuffle(kept)
        return self._after(kept, random.choice((b"\0", b"\xa5")))

    def _after(self, changes: list[tuple[int, bytes | int]], blank: bytes = b"\0") -> bytes:
        content = bytearray(self.synced)
        for offset, data in changes:
            end = data if isinstance(data, int) else offset + len(data)
            content += blank * (end - len(content))
            if not isinstance(data, int):
                content[offset:end] = data
        return bytes(content)


class Directory:
    """A directory: the entries the disk holds for certain, and those made and removed since."""

    def __init__(self) -> None:
        self.synced: dict[str, Any] = {}
        self.since: list[tuple[str, Any]] = []  # (name, node or None)

    @property
    def entries(self) -> dict[str, Any]:
        """What a living process sees."""
        entries = {**self.synced, **dict(self.since)}
        return {name: node for name, node in entries.items() if node is not None}

    def sync(self) -> None:
        self.synced, self.since = self.entries, []

    def left(self, random: Random) -> dict[str, Any]:
        """Return the entries that may be left: of each name's changes the first so many."""
        share = random.choice((0.0, 0.5, 1.0, random.random()))
        entries = dict(self.synced)
        stopped: set[str] = set()
        for name, node in self.since:
            if name in stopped or random.random() >= share:
                stopped.add(name)
            else:
                entries[name] = node
        return {name: node for name, node in sorted(entries.items()) if node is not None}


@dataclass
class Disk:
    """The disk below a folder, as operations change it."""

    folder: Path
    root: Directory = field(default_factory=Directory)
    _open: dict[int, tuple[File, int]] = field(default_factory=dict)  # descriptor -> file, position

    @classmethod
    def holding(cls, folder: Path) -> Disk:
        """Return the disk as it is now, everything synced."""
        disk = cls(folder)
        for path in sorted(folder.rglob("*")):
            node = Directory() if path.is_dir() else File(path.read_bytes())
            disk._directory(path.parent).synced[path.name] = node
        return disk

    def apply(self, operation: Operation, result: Any) -> None:
        """Take in an operation that was done."""
        path, kind = operation.path, operation.kind
        if kind == "sync directory":
            # What lies above the folder is no part of this disk.
            if path.is_relative_to(self.folder):
                self._directory(path).sync()
            return
        if kind == "sync":
            # By its name: a file may be synced that was opened for reading.
            self._directory(path.parent).entries[path.name].sync()
            return
        if path.name == "(scratch)":
            return  # it has no name: nothing of it is left
        if kind in ("reserve", "write"):
            file, position = self._open[operation.descriptor]
            if kind == "reserve":
                file.since.append((0, operation.n_bytes))
            else:
                file.since.append((position, bytes(operation.data[:result])))
                self._open[operation.descriptor] = file, position + result
            return
        directory = self._directory(path.parent)
        if kind == "mkdir":
            if path.name not in directory.entries:
                directory.since.append((path.name, Directory()))
        elif kind == "create":
            file = File()
            self._open[result] = file, 0
            directory.since.append((path.name, file))
        elif kind in ("link", "rename"):
            above = self._directory(operation.source.parent)
            directory.since.append((path.name, above.entries[operation.source.name]))
            if kind == "rename":
                above.since.append((operation.source.name, None))
        elif path.name in directory.entries:
            directory.since.append((path.name, None))

    def sync(self) -> None:
        """Let everything reach the disk."""
        for directory in self._directories(self.root):
            directory.sync()
            for node in directory.synced.values():
                if isinstance(node, File):
                    node.sync()

    def is_unsynced(self, path: Path) -> bool:
        """Return whether a directory, if it is there, has entries that the disk may lose."""
        node: Any = self.root
        for part in path.relative_to(self.folder).parts:
            node = node.entries.get(part)
            if node is None:
                return False
        return bool(node.since)

    def after_power_loss(self, random: Random) -> dict[str, Any]:
        """Return a tree that may be left: names to trees, or to the number and the bytes of a file."""
        torn: dict[File, tuple[int, bytes]] = {}

        def tree(directory: Directory) -> dict[str, Any]:
            left: dict[str, Any] = {}
            for name, node in directory.left(random).items():
                if isinstance(node, Directory):
                    left[name] = tree(node)
                else:
                    if node not in torn:
                        torn[node] = len(torn), node.torn(random)
                    left[name] = torn[node]
            return left

        return tree(self.root)

    def _directories(self, directory: Directory) -> Iterator[Directory]:
        yield directory
        for node in directory.entries.values():
            if isinstance(node, Directory):
                yield from self._directories(node)

    def _directory(self, path: Path) -> Directory:
        node = self.root
        for part in path.relative_to(self.folder).parts:
            node = node.entries[part]
        return node


class Killed(BaseException):
    """The process is gone: nothing it would still do happens."""


class RecordingFileSystem(FileSystem):
    """Does what it is told and tells a disk; optionally is "killed" after some operations.

    Parameters
    ----------
    disk : Disk
    lives : int, optional
        Operations until :class:`Killed` is raised, by this one and all later ones.
    after : callable, optional
        Called after each operation.
    leaves_out : callable, optional
        Says of which operations the disk is told nothing: what a sync was good for.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        lives: int | None = None,
        after: Callable[[], object] = lambda: None,
        leaves_out: Callable[[Operation], bool] = lambda _: False,
    ) -> None:
        self.disk, self.lives, self.after, self.leaves_out = disk, lives, after, leaves_out
        self.n_operations = 0

    def operate(self, operation: Operation, call: Callable[..., Any], *arguments: object) -> Any:
        if self.n_operations == self.lives:
            raise Killed
        self.n_operations += 1
        result = super().operate(operation, call, *arguments)
        if not self.leaves_out(operation):
            self.disk.apply(operation, result)
        self.after()
        return result


@dataclass(frozen=True)
class State:
    """A state of a disk after power loss, and what was wrong with the store in it."""

    scenario: str
    moment: str
    problems: list[str]


def states(
    scenario: Scenario,
    random: Random,
    folder: Path,
    *,
    share: float = 0.1,
    leaves_out: Callable[[Operation], bool] = lambda _: False,
    seen: set[bytes] | None = None,
) -> Iterator[State]:
    """Run a scenario once, and check states that a power cut at some of its operations may leave.

    In half of the runs the process was killed before, at any operation, and the job was begun again.

    Parameters
    ----------
    scenario : Scenario
    random : Random
    folder : Path
        Empty; used and emptied.
    share : float
        Of operations after which the power goes.
    leaves_out : callable, optional
        See :class:`RecordingFileSystem`.
    seen : set of bytes, optional
        Digests of states checked before, which are left out.
    """
    seen = set() if seen is None else seen
    living = folder / "living"
    living.mkdir()
    scenario.prepare(living)
    disk = Disk.holding(living)
    acknowledged: list[Sentence] = []
    found: list[tuple[str, dict[str, Any], list[Sentence]]] = []
    recording: RecordingFileSystem

    def after() -> None:
        if random.random() < share:
            moment = f"{recording.n_operations} operations after a start"
            found.append((moment, disk.after_power_loss(random), list(acknowledged)))

    for lives in (random.choice((None, random.randrange(1, 40))), None):
        recording = RecordingFileSystem(disk, lives=lives, after=after, leaves_out=leaves_out)
        try:
            scenario.act(living, recording, acknowledged.extend)
            break
        except Killed:
            pass
    found.append(("at the end", disk.after_power_loss(random), list(acknowledged)))
    for moment, tree, promised in found:
        digest = hashlib.sha256(repr(tree).encode()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        with memory_folder() as left:
            write_tree(left, tree)
            yield State(scenario.name, moment, check(left, scenario, promised))


def write_tree(folder: Path, tree: dict[str, Any], links: dict[int, Path] | None = None) -> None:
    """Make files and directories of a tree."""
    links = {} if links is None else links
    for name, node in tree.items():
        path = folder / name
        if isinstance(node, dict):
            path.mkdir()
            write_tree(path, node, links)
        elif node[0] in links:
            os.link(links[node[0]], path)
        else:
            path.write_bytes(node[1])
            links[node[0]] = path
