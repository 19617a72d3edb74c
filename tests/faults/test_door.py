"""The store changes the disk through one door: what the interpreter sees done is done there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featurestore.disk.filesystem import FileSystem
from featurestore.disk.operation import Operation
from tests.faults.trials.scenarios import SCENARIOS

_CHANGES = {
    "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.rename", "os.remove", "os.truncate", "os.chmod",
    "os.chown", "os.utime", "shutil.move", "shutil.rmtree", "shutil.copyfile", "tempfile.mkstemp",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Door(FileSystem):
    """Knows whether an operation is under way."""

    def __init__(self) -> None:
        self.is_open, self.n_operations = False, 0

    def operate(self, operation: Operation, call: Callable[..., Any], *arguments: object) -> Any:
        self.is_open, self.n_operations = True, self.n_operations + 1
        try:
            return super().operate(operation, call, *arguments)
        finally:
            self.is_open = False


class Watch:
    """Hears of every file opened or changed while it is told which door and which folder to watch."""

    def __init__(self) -> None:
        self.door: Door | None = None
        self.folder = ""
        self.past_the_door: list[tuple[str, str]] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.door is None or self.door.is_open:
            return
        if event not in _CHANGES and not (event == "open" and arguments[2] & _WRITING):
            return
        path = str(arguments[0])
        # Lock files are empty, and no promise rests on their being there.
        exempt = Path(path).name == "lock" or _only_locks(event, arguments) or _has_no_name(event, arguments)
        if path.startswith(self.folder) and not exempt:
            self.past_the_door.append((event, path))


def _only_locks(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a file is opened as network file systems want it for locking: writable, but as it is."""
    return event == "open" and arguments[2] & _WRITING == os.O_RDWR


def _has_no_name(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a scratch file is made that goes with its process: only for one is a folder opened to write."""
    return event == "open" and os.path.isdir(arguments[0])


WATCH = Watch()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_everything_passes_the_door(tmp_path, monkeypatch, scenario):
    scenario.prepare(tmp_path)
    door = Door()
    monkeypatch.setattr(WATCH, "folder", str(tmp_path))
    monkeypatch.setattr(WATCH, "past_the_door", [])
    monkeypatch.setattr(WATCH, "door", door)
    scenario.act(tmp_path, door, lambda _: None)
    assert WATCH.past_the_door == []
    assert door.n_operations > 5


def test_what_does_not_pass_the_door_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(WATCH, "folder", str(tmp_path))
    monkeypatch.setattr(WATCH, "past_the_door", [])
    monkeypatch.setattr(WATCH, "door", Door())
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").rename(tmp_path / "other")
    assert [event for event, _ in WATCH.past_the_door] == ["os.mkdir", "open", "os.rename"]
