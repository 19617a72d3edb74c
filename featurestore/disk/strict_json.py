"""JSON from a stranger: bounded before it is parsed, and with one meaning only.

Python's parser alone accepts repeated names (the last counts), NaN, infinities, numbers of thousands of
digits and UTF-16, and builds objects of twenty times the size of a file of brackets.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

_MOST_DIGITS = 24
"""Above every 64-bit number and every float that Python writes."""


def parse_json(raw: bytes, *, most_values: int) -> Any:
    """Return the value of a JSON text in UTF-8.

    Parameters
    ----------
    raw : bytes
        The caller bounds its size.
    most_values : int
        Numbers, strings, objects and arrays it may hold, counted generously.

    Raises
    ------
    ValueError
        If it is not JSON, repeats a name in an object, has a number that is not finite or does not fit 64
        bits, is nested too deeply, or has more values.
    """
    # Every value but the first follows one of these; those within strings make the count generous.
    n_values = sum(raw.count(mark) for mark in (b",", b"[", b"{", b":"))
    if n_values > most_values:
        raise ValueError(f"about {n_values:,} values, over the bound of {most_values:,}")
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_int=_integer,
            parse_float=_float,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated[:80]!r} occurs twice in an object")
    return fields


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or not -(1 << 63) <= int(digits) < 1 << 64:
        raise ValueError(f"a number of {len(digits):,} digits does not fit 64 bits")
    return int(digits)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is not finite")
    return value
