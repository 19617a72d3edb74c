"""A project's settings: ``featurestore.toml``, or ``[tool.featurestore]`` of pyproject.toml.

It is looked for in the current folder and those above, up to the root of the repository or the home folder.
One that lies above and belongs to somebody else is not used: an encoder that it names would run its code.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.errors import UsageError

OWN_FILE = "featurestore.toml"
SHARED_FILE = "pyproject.toml"

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Project:
    """A project file.

    Attributes
    ----------
    path : Path
        As it is found from the current folder.
    values : dict
        Its keys, or those of its table ``[tool.featurestore]``.
    """

    path: Path
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """What messages call it, relative to the current folder."""
        table = " [tool.featurestore]" if self.path.name == SHARED_FILE else ""
        return os.path.relpath(self.path) + table

    def relative(self, path: str) -> str:
        """Return a path that the file gives, as it is from the current folder."""
        path = os.path.expanduser(path)
        if path == "-" or os.path.isabs(path) or re.match(r"[a-z][a-z0-9+.-]+://", path):
            return path
        found = os.path.relpath(self.path.parent / path)
        return f"./{found}" if found.startswith("-") else found


def find_project() -> tuple[Project | None, str]:
    """Return the project file of the current folder, and a note on one that is not used.

    Raises
    ------
    UsageError
        If the file cannot be read, or is no TOML.
    """
    try:
        here = Path.cwd()
        mine = {os.geteuid(), 0, here.stat().st_uid} if hasattr(os, "geteuid") else None
    except OSError:  # the current folder is gone
        return None, ""
    for folder in _folders(here):
        for name in (OWN_FILE, SHARED_FILE):
            path = folder / name
            try:
                owner = path.stat().st_uid
            except OSError:
                continue
            if name == SHARED_FILE and not _names_us(path):
                continue
            if mine is not None and owner not in mine:
                return (
                    None,
                    f"{path} is another user's and is not used: name it with --config if it may be",
                )
            found = read_project(path)
            if found is not None:
                return found, ""
    return None, ""


def read_project(path: Path) -> Project | None:
    """Return a project file, or None for a pyproject.toml without ``[tool.featurestore]``.

    Raises
    ------
    UsageError
        If it cannot be read, or is no TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise UsageError(f"{path} has more than {_MOST_BYTES:,} bytes: expected a few settings in TOML")
        values = tomllib.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}; mend it, or leave it out by --no-config") from error
    if path.name == SHARED_FILE:
        tools = values.get("tool", {})
        values = tools.get("featurestore") if isinstance(tools, dict) else None
        if values is None:
            return None
        if not isinstance(values, dict):
            raise UsageError(f"{path}: tool.featurestore is no table: write [tool.featurestore]")
    return Project(path, values)


def _folders(here: Path) -> Iterator[Path]:
    home = os.path.expanduser("~")
    for folder in (here, *here.parents):
        yield folder
        if str(folder) == home or (folder / ".git").exists():
            return


def _names_us(path: Path) -> bool:
    """Whether a pyproject.toml may have our table; most have none, and are not parsed."""
    try:
        with open(path, "rb") as file:
            return b"featurestore" in file.read(_MOST_BYTES)
    except OSError:
        return False
