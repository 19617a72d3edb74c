"""What a caller may ask of a corpus reader, checked before the file is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from featurestore.corpora.example import Example
from featurestore.errors import UsageError

Reader = Callable[[Iterable[str]], Iterator[Example]]
"""Turns the lines of a file, without their line ends, into examples."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read one file.

    Attributes
    ----------
    path : str
        The file as the caller named it, for examples and messages.
    text_column : str or None
        Where the text is; None for the format's default.
    label : str or None
        Where the labels are; None to read no labels.
    tokenize : bool
        Whether the text is raw and has to be tokenised.
    """

    path: str
    text_column: str | None = None
    label: str | None = None
    tokenize: bool = False


def parse_column(text: str, what: str) -> int | str:
    """Read a column given as a 1-based number or as a name.

    Parameters
    ----------
    text : str
        What the caller gave.
    what : str
        The option it was given for, for the message.

    Returns
    -------
    int or str
        The 0-based index for a number, the name itself otherwise.

    Raises
    ------
    UsageError
        If the text is empty or the number is not positive.
    """
    if text.isascii() and text.removeprefix("-").isdigit():
        if int(text) < 1:
            raise UsageError(f"{what} {text}: columns are counted from 1")
        return int(text) - 1
    if not text:
        raise UsageError(f"{what} is empty: give a column name or number, or leave the option out")
    return text


def refuse_tokenize(options: ReadOptions, format_name: str) -> None:
    """Refuse to tokenise a format whose files are tokenised by definition.

    Raises
    ------
    UsageError
        If tokenisation was asked for.
    """
    if options.tokenize:
        raise UsageError(
            f"{options.path}: {format_name} files hold one token per line and are not tokenised again: "
            "leave tokenize out"
        )
