"""Names of labels that are integers: what a ClassLabel of the package datasets says, as its JSON has it."""

from __future__ import annotations

import json
from typing import Any

_MOST_DEPTH = 8


def label_names(features: Any, column: str) -> tuple[str, ...] | None:
    """Return what the integers of a column, or of the lists in it, stand for; None where nothing says it.

    Parameters
    ----------
    features : dict or anything else
        ``Features.to_dict()``, or what a file holds in its place.
    column : str
    """
    found = features.get(column) if isinstance(features, dict) else None
    for _ in range(_MOST_DEPTH):
        if isinstance(found, list) and len(found) == 1:  # a list, as datasets wrote it before version 4
            found = {"feature": found[0]}
        if not isinstance(found, dict):
            return None
        names = found.get("names")
        if found.get("_type") == "ClassLabel" and isinstance(names, list):
            return tuple(names) if all(isinstance(name, str) and name for name in names) else None
        found = found.get("feature")
    return None


def features_in_schema(metadata: Any) -> Any:
    """Return the features that datasets keeps in the metadata of an Arrow schema; None without them."""
    try:
        return json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
