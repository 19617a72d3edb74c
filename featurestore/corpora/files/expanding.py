"""Folders and patterns as corpora: which files they mean.

A folder means the files in it and below it whose names tell a format, a pattern the files that match it, both
in the order of their paths. Hidden files and folders are left out, unless a pattern names their dot.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Callable, Iterator

from featurestore.errors import CorpusError

_logger = logging.getLogger(__name__)
_PATTERN = re.compile(r"(?!~|[a-z][a-z0-9+]+://).*[*?\[]", re.IGNORECASE | re.DOTALL)
"""What has a wildcard and is neither a URL nor begins with ~: these have errors of their own."""

_MOST_NAMED = 3

FormatOf = Callable[[str], str | None]
"""Returns the format that a path means, None for none; ``datasets`` for a folder that is one corpus."""


def means_several(path: str) -> bool:
    """Return whether a path is a folder, or a pattern and no file."""
    return os.path.isdir(path) or (_PATTERN.match(path) is not None and not os.path.lexists(path))


def expanded(path: str, format_by_name: FormatOf, asked: str | None) -> list[str]:
    """Return the corpora that a folder or a pattern means.

    Parameters
    ----------
    path : str
        For which :func:`means_several` is true.
    format_by_name : callable
    asked : str or None
        The format in which all are to be read.

    Raises
    ------
    CorpusError
        If there are none, a folder holds files of several formats, or it cannot be listed.
    """
    if os.path.isdir(path):
        return _in_folder(path, format_by_name, asked)
    matches = sorted(glob.glob(path, recursive=True))
    found = [match for match in matches if os.path.isfile(match) or format_by_name(match) == "datasets"]
    if not found:
        what = "only folders match" if matches else "no file matches"
        advice = "'**/*.conllu' also looks below a folder" if matches else "check the path"
        raise CorpusError(f"{what} the pattern: {advice}", path=path)
    formats = {} if asked else _counted(found, format_by_name)
    if len(formats) > 1:
        _logger.warning("%s: %d files, each read as its name says: %s", path, len(found), _listed(formats))
    return found


def _in_folder(folder: str, format_by_name: FormatOf, asked: str | None) -> list[str]:
    files = list(_files_below(folder, format_by_name))
    formats = _counted(files, format_by_name)
    if asked is not None and formats.get(asked):
        chosen = [file for file in files if format_by_name(file) == asked]
    elif asked is not None:
        chosen = [file for file in files if format_by_name(file) is None]
    else:
        chosen = [file for file in files if format_by_name(file) is not None]
        if len(formats) > 1:
            endings = sorted({os.path.splitext(file)[1] for file in chosen})
            raise CorpusError(
                f"the folder holds files of several formats ({_listed(formats)}): say which are meant by a "
                f"pattern, such as '{os.path.join(folder, '**', '*' + endings[0])}', or --format (in Python "
                "format=)",
                path=folder,
            )
    if not chosen:
        names = [os.path.relpath(file, folder) for file in files]
        held = f"; it holds {_named(names)}" if names else ", or is it empty?"
        raise CorpusError(
            f"no file in the folder has a name that tells {'a format' if asked is None else asked}{held}",
            path=folder,
        )
    left_out = sorted(set(files) - set(chosen))
    if left_out:
        names = [os.path.relpath(file, folder) for file in left_out]
        _logger.warning("%s: not read, as their names tell no format: %s", folder, _named(names))
    return chosen


def _files_below(folder: str, format_by_name: FormatOf) -> Iterator[str]:
    """Yield the files in a folder and below it that are not hidden, and the folders that are one corpus."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise CorpusError(f"cannot be listed: {error.strerror}", path=folder) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if format_by_name(entry.path) == "datasets":
                yield entry.path
            elif not entry.is_symlink():  # which may lead in a circle
                yield from _files_below(entry.path, format_by_name)
        else:
            yield entry.path


def _counted(files: list[str], format_by_name: FormatOf) -> dict[str, int]:
    formats: dict[str, int] = {}
    for file in files:
        name = format_by_name(file)
        if name is not None:
            formats[name] = formats.get(name, 0) + 1
    return formats


def _listed(formats: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(formats.items()))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
