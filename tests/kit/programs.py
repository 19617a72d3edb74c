"""Modules of the tests run as programs: processes that find the tests from whatever folder they start in."""

from __future__ import annotations

import os
import sys

from tests.kit.places import ROOT


def program(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module; its process needs :func:`environment`."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program that imports from ``tests``: this one's, and more."""
    found = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([found] if found else [])]), **more}
