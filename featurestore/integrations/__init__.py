"""Other libraries on top of the store; ``featurestore.integrations.flair`` needs Flair and loads it."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    # Flair takes seconds and half a gigabyte to import: only whoever names it pays.
    if name == "flair":
        return importlib.import_module("featurestore.integrations.flair")
    raise AttributeError(f"module 'featurestore.integrations' has no attribute {name!r}")
