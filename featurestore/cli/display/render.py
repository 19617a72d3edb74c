"""How commands show things: sizes, times, aligned lines, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from featurestore.notebook.quantities import duration as duration
from featurestore.notebook.quantities import size as size

UNTRAINED_NOTE = (
    "NOTE: this encoder is UNTRAINED (random weights): fit for measuring speed, its vectors mean nothing"
)


def count(n: int, noun: str) -> str:
    """Return a number with its noun: 1 shard, 1,200 shards."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def estimate(seconds: float, low: float | None, high: float | None, basis: str) -> str:
    """Return a time that was estimated, with its bounds and what it was estimated from.

    Parameters
    ----------
    seconds : float
    low, high : float or None
        Seconds; 0 where unknown.
    basis : str
        What the estimate comes from.
    """
    bounds = f"{duration(low or 0.0)} to {duration(high or 0.0)}"
    return f"about {duration(seconds)} ({bounds}; from {basis})"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return name and value pairs, aligned; a value may have several lines."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(
        f"{name if number == 0 else '':{width}}  {printable(line)}"
        for name, value in listed
        for number, line in enumerate(value.split("\n"))
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return an aligned table; the first ``left`` columns are aligned to the left."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            f"{cell:{width}}" if column < left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def bar(share: float, width: int = 40) -> str:
    """Return a bar for a share of the largest value."""
    return "#" * round(share * width)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that shows its text as it is; only lone surrogates, which UTF-8 lacks, stay escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


PROJECT = "featurestore.project"
"""What a click context's ``meta`` has of the project's file where a command takes values from it."""


def echo_json(value: Any) -> None:
    """Print one JSON object; where the project's file had a part in it, that is said under ``project``."""
    context = click.get_current_context(silent=True)
    if context is not None and PROJECT in context.meta and isinstance(value, dict):
        value = {**value, "project": context.meta[PROJECT]}
    click.echo(json_text(value, indent=2))


def printable(text: str) -> str:
    """Return text that any terminal can show: lone surrogates and control characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text
    )


def value(of_recipe: Any) -> str:
    """Return a recipe field's value: text as it is, anything else as JSON."""
    return of_recipe if isinstance(of_recipe, str) else json.dumps(of_recipe, sort_keys=True)
