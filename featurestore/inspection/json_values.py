"""What was measured as values that JSON has."""

from __future__ import annotations

import math
from typing import Any


def json_value(value: Any) -> Any:
    """Return a value with lists for tuples, and None for NaN and the infinities, which JSON does not have.

    Parameters
    ----------
    value : dict, list, tuple or a single value
        Of any depth; its numbers are Python's.
    """
    if isinstance(value, dict):
        return {name: json_value(below) for name, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
