"""What decides the examples of a file beside its bytes: the options, the readers' code, its surroundings."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import unicodedata
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from featurestore import keys, limits
from featurestore._version import __version__
from featurestore.corpora.contract.options import ICU, ReadOptions

_READERS = Path(__file__).parent.parent


def identity_of_reading(options: ReadOptions, format_name: str) -> dict[str, Any]:
    """Return what, beside its bytes, decides the examples of a file, as values of JSON.

    The folder that the file lies in is no part of it, its name is: compression may be told by it.

    Parameters
    ----------
    options : ReadOptions
    format_name : str
        The format that is read.
    """
    given = {each.name: repr(getattr(options, each.name)) for each in fields(options) if each.init}
    del given["path"]
    return {
        "name": os.path.basename(options.path),
        "format": format_name,
        "options": given,
        "readers": readers_identity(),
        "icu": _icu_version() if options.tokenize == ICU else None,
    }


@functools.cache
def readers_identity() -> str:
    """Return a hash of the code that reads files, with the versions of Python and of its Unicode tables.

    A number that whoever changes a reader has to raise would be forgotten once.
    """
    return hash_of_sources(_READERS, Path(keys.__file__), Path(limits.__file__))


def hash_of_sources(*places: Path) -> str:
    """Return a hash of modules, those in folders and below them, and of the versions they run with.

    Raises
    ------
    OSError
        If a source cannot be read, as where a program is one archive.
    """
    versions = (__version__, platform.python_implementation(), platform.python_version())
    digest = hashlib.blake2b(repr((*versions, unicodedata.unidata_version)).encode(), digest_size=16)
    for place in places:
        for path in _sources(place) if place.is_dir() else (place,):
            source = path.read_bytes()
            digest.update(f"{path.name} {len(source)} ".encode())
            digest.update(source)
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    """Yield the modules in a folder and those below it, in a fixed order."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _sources(Path(entry.path))
        elif entry.name.endswith(".py"):
            yield Path(entry.path)


@functools.cache
def _icu_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("icu4py")
    except PackageNotFoundError:
        return ""
