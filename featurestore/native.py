"""C code of this package that installing compiled, where it found a compiler: optional, loaded by ctypes."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SWITCH = "FEATURESTORE_COMPILED"
"""Environment variable: 0 does without compiled code, to rule it out when something looks wrong."""


def switched_off() -> bool:
    """Return whether the user wants no compiled code."""
    return os.environ.get(SWITCH) == "0"


def load_library(
    folder: Path,
    name: str,
    *,
    prefix: str,
    version: int,
    instead: str,
    functions: Mapping[str, Sequence[Any]],
) -> ctypes.CDLL | None:
    """Load a library that is of the right version and has code for this processor.

    Parameters
    ----------
    folder : Path
        Where it was installed.
    name : str
        Its file name without the suffix.
    prefix : str
        Of the functions ``<prefix>_version`` and ``<prefix>_supported``, which take nothing and return int.
    version : int
        Expected of ``<prefix>_version``.
    instead : str
        What is done without it; ends the sentences that are logged.
    functions : mapping of str to sequence
        What is called, by name: the ctypes of its result and of its arguments.

    Returns
    -------
    CDLL or None
        None where it cannot be used; the log says why.
    """
    path = next((path for s in EXTENSION_SUFFIXES if (path := folder / f"{name}{s}").exists()), None)
    if path is None:
        logger.info("installing featurestore did not compile %s: %s", name, instead)
        return None
    try:
        library = ctypes.CDLL(str(path))
        found = library[f"{prefix}_version"]()
        supported = library[f"{prefix}_supported"]()
        for function, (gives, *takes) in functions.items():
            called = getattr(library, function)
            called.restype, called.argtypes = gives, takes
    except (OSError, AttributeError) as error:
        logger.warning("%s cannot be loaded (%s): %s", path, error, instead)
        return None
    if found != version:
        logger.warning(
            "%s is of version %d, expected %d: %s; install featurestore again", path, found, version, instead
        )
        return None
    if not supported:
        logger.info("%s has nothing for this processor: %s", name, instead)
        return None
    return library
