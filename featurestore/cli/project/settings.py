"""Which values of a project file a command gets: those it shares with others, and those of its own table.

Keys are called as the options are, without the dashes before them (``shard-size``), and arguments by their
names (``store``, ``corpora``). At the top stand the nouns that several commands share; a table such as
``[train]`` may hold any option of its command. What a table says comes before what the top says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import click

from featurestore.cli.options import READING_NAMES
from featurestore.cli.project.finding import Project
from featurestore.errors import UsageError

_EXTRACTION = frozenset({"extract", "plan"})
_CHOICE = frozenset({"extract", "plan", "why"})
_OTHERS_TEXT = frozenset({"pretrain", "warm-up", "import"})
"""Commands whose corpora are not those of the project."""

_ONLY: dict[str, frozenset[str]] = {
    "encoder": _CHOICE,
    "layers": _CHOICE,
    "precision": _CHOICE,
    "initial-state": _CHOICE,
    "codec": _EXTRACTION,
    "shard-size": _EXTRACTION,
    "allow-cut": _EXTRACTION,
    "label": _EXTRACTION | {"train tagger", "train classifier"},
}
"""Shared keys that only these commands get: in others an option of this name means something else."""

_EXCEPT: dict[str, frozenset[str]] = {
    "store": frozenset({"import", "merge"}),
    "corpora": _OTHERS_TEXT,
    "device": frozenset(),
    **dict.fromkeys(READING_NAMES, _OTHERS_TEXT),
}
"""Shared keys that all commands with such an option get, but for these commands."""

SHARED = (*_ONLY, *_EXCEPT)

_PATHS = frozenset(
    {"store", "corpora", "corpus", "train", "dev", "output", "keys", "keep", "options", "list"}
)
"""Keys whose values are paths, relative to the file."""

_TABLES = {"plan": "extract", "train tagger": "train", "train classifier": "train"}
"""Commands that read another one's table."""

_NEVER = frozenset({"help", "json", "config", "no-config", "version"})


def key_of(parameter: click.Parameter) -> str:
    """Return what a project file calls an option or argument."""
    if isinstance(parameter, click.Argument):
        return parameter.name or ""
    return next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0]).lstrip("-")


def values_for(
    project: Project, command: str, parameters: Iterable[click.Parameter], commands: Iterable[str]
) -> dict[str, Any]:
    """Return the values that a command gets from a project file, by key, paths as from the current folder.

    Raises
    ------
    UsageError
        If the file has a key that means nothing, or a value of the wrong type.
    """
    known = {key_of(parameter): parameter for parameter in parameters}
    known = {key: parameter for key, parameter in known.items() if key not in _NEVER}
    tables = sorted({_TABLES.get(name, name) for name in commands})
    found: dict[str, Any] = {}
    for key, value in project.values.items():
        if isinstance(value, dict):
            if key not in tables:
                raise _unknown(project, f"table [{key}]", key, [*tables, *SHARED])
        elif key not in SHARED:
            hint = f"; of one command, it goes into its table: [{_table(command)}]" if key in known else ""
            raise _unknown(project, f"key {key!r}", key, [*SHARED, *tables], hint)
        elif key in known and _is_given(key, command):
            found[key] = value
    own = project.values.get(_table(command))
    for key, value in (own if isinstance(own, dict) else {}).items():
        if key in known:
            found[key] = value
        elif not (command == "plan" or key in SHARED):
            raise _unknown(project, f"key {key!r} in [{_table(command)}]", key, known)
    return {key: _checked(project, key, value, known[key], command) for key, value in found.items()}


def _table(command: str) -> str:
    return _TABLES.get(command, command)


def _is_given(key: str, command: str) -> bool:
    return command in _ONLY[key] if key in _ONLY else command not in _EXCEPT[key]


def _unknown(project: Project, what: str, key: str, known: Iterable[str], hint: str = "") -> UsageError:
    names = list(known)
    near = get_close_matches(key.replace("_", "-"), names, n=2)
    meant = f": did you mean {' or '.join(near)}?" if near else f": expected one of {', '.join(names)}"
    return UsageError(f"{project.name}: no such {what}{hint or meant}")


def _checked(project: Project, key: str, value: Any, parameter: click.Parameter, command: str) -> Any:
    """Return a value as click takes it: a flag, a text or number, or a list of them where several may be."""
    if getattr(parameter, "is_flag", False) and getattr(parameter, "is_bool_flag", True):
        if not isinstance(value, bool):
            raise _wrong(project, key, "true or false", value)
        return value
    several = parameter.multiple if isinstance(parameter, click.Option) else parameter.nargs == -1
    values = value if isinstance(value, list) else [value]
    if several and parameter.nargs > 1:
        pairs = values if all(isinstance(one, list) for one in values) else [values]
        return [_pair(project, key, one, parameter.nargs) for one in pairs]
    if several:
        return [_single(project, key, one, command) for one in values]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list) and key == "store":
        raise UsageError(f"{project.name}: store names {len(value)}, and {command} wants one: name it here")
    if isinstance(value, list) and key in ("layers", "label-names"):
        value = ",".join(map(str, value))
    return _single(project, key, value, command)


def _pair(project: Project, key: str, value: Any, n: int) -> list[str]:
    """Return a value of several words; the last one is a path, as of ``log-to``."""
    if not isinstance(value, list) or len(value) != n or not all(isinstance(one, str) for one in value):
        raise _wrong(project, key, f"a list of {n} texts", value)
    return [*value[:-1], project.relative(value[-1])]


def _single(project: Project, key: str, value: Any, command: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _wrong(project, key, "a text or a number", value)
    text = str(value)
    if key in _PATHS or (key == "model" and command in ("evaluate", "predict")):
        return project.relative(text)
    if key == "encoder" or (key == "model" and command == "warm-up"):
        return encoder_of_project(project, text)
    return text


def _wrong(project: Project, key: str, expected: str, value: Any) -> UsageError:
    return UsageError(f"{project.name}: {key} must be {expected}, found {str(value)[:60]!r}")


def encoder_of_project(project: Project, spec: str) -> str:
    """Return an encoder's specification with the paths in it as from the current folder."""
    first, *others = re.split(r"([:=,+?])", spec)
    for number, part in enumerate(others):
        is_path = part.startswith(("./", "../", "~"))
        if is_path or (re.search("[/.]", part) and (project.path.parent / part).exists()):
            path = project.relative(part)
            others[number] = path if path.startswith(("./", "../", os.sep)) else f"./{path}"
    return first + "".join(others)


def of_options(values: Mapping[str, Any], parameters: Iterable[click.Parameter]) -> dict[str, Any]:
    """Return the values of options by the names that click gives them."""
    return {
        str(parameter.name): values[key_of(parameter)]
        for parameter in parameters
        if isinstance(parameter, click.Option) and key_of(parameter) in values
    }
