"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from featurestore.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNITS = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for unit, base in (("B", 1000), ("", 1024), ("IB", 1024))
}


def options(*decorators: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Return one decorator for several options, listed in the order in which help shows them."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")

reading_options = options(
    click.option("--format", "format_", metavar="NAME",
                 help="Corpus format: text, conll, conllu, csv, tsv or jsonl; by default, by the file name; "
                 "standard input is text."),
    click.option("--text-column", metavar="NAME|N", help="Column or field with the text or the tokens."),
    click.option("--tokenize", is_flag=True, help="The text is raw: split it into tokens."),
)  # fmt: skip


def reading_arguments(format_: str | None, text_column: str | None, tokenize: bool) -> list[str]:
    """Return words of a command line that mean the same values of :data:`reading_options`."""
    words = [] if format_ is None else ["--format", format_]
    words += [] if text_column is None else ["--text-column", text_column]
    return [*words, "--tokenize"] if tokenize else words


def parse_size(text: str) -> int:
    """Return the bytes that a size such as ``64MiB`` or ``500 MB`` means.

    Raises
    ------
    UsageError
        If it means nothing.
    """
    stripped = text.strip().replace(" ", "")
    digits = stripped.rstrip("BKMGTIbkmgti")
    unit = stripped[len(digits) :].upper()
    try:
        n_bytes = int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a size: write 67108864, 64MiB or 500MB") from error
    if n_bytes < 1:
        raise UsageError(f"a size of {text!r} is less than a byte")
    return n_bytes
