"""The fields of a sentence's rows, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, repeat, zip_longest
from typing import NamedTuple

from featurestore.corpora.contract.whitespace import WHITESPACE

Column = tuple[str, ...]


def split_fields(line: str, tabs: bool) -> list[str]:
    """Return the fields of a line: what tabs separate, or what runs of spaces do."""
    if tabs:
        return line.split("\t")
    fields = line.split(" ")
    return [field for field in fields if field] if "" in fields else fields


def regular_columns(lines: list[str], tabs: bool, n_columns: int) -> list[Column] | None:
    """Return the columns of rows that have ``n_columns`` fields each; None if one has more or fewer.

    With spaces, None also if a row has several between two fields.
    """
    separator = "\t" if tabs else " "
    # All rows are split at once, with a field between them that only a row's end can be.
    fields = f"{separator}\n{separator}".join(lines).split(separator)
    step = n_columns + 1
    if len(fields) != step * len(lines) - 1 or fields[n_columns::step].count("\n") != len(lines) - 1:
        return None
    if not tabs and "" in fields:
        return None
    return [tuple(fields[column::step]) for column in range(n_columns)]


def first_columns(lines: list[str], n_kept: int, n_columns: int) -> list[Column] | None:
    """Return the first columns of rows of ``n_columns`` fields, and the rest of each row as one more.

    Returns
    -------
    list of tuples of str, or None
        None if a row seems to have another number of fields.
    """
    try:
        # A tenth faster than a list of their fields.
        rows = map(str.split, lines, repeat("\t"), repeat(n_kept))
        columns: list[Column] = list(zip(*rows, strict=True))
    except ValueError:
        return None
    rest = "".join(columns[-1]) if len(columns) == n_kept + 1 else ""
    return columns if rest.count("\t") == len(lines) * (n_columns - n_kept - 1) else None


def columns_of_rows(rows: Sequence[Sequence[str]]) -> list[Column]:
    """Return the columns of rows of any length; the shorter ones are filled up with empty fields."""
    return list(zip_longest(*rows, fillvalue=""))


def of_words(columns: Sequence[Column], words: Sequence[bool]) -> list[Column]:
    """Return the columns of the rows that are words."""
    return [tuple(compress(column, words)) for column in columns]


def stripped(column: Column) -> Column:
    """Return a column without ASCII blanks at the edges of its fields."""
    return checked(column)[0]


def checked(column: Column) -> tuple[Column, bool]:
    """Return a column without ASCII blanks at the edges of its fields, and whether none of these is empty."""
    if is_clean("\n".join(column)):
        return column, True
    column = tuple(field.strip(WHITESPACE) for field in column)
    return column, all(column)


class Words(NamedTuple):
    """The words of a sentence, of which the tokens have been checked.

    Attributes
    ----------
    tokens : tuple of str
        Without ASCII blanks at their edges.
    is_full : bool
        Whether none of them is empty.
    labels_are_clean : bool
        Whether their column of labels is known to need no check.
    """

    tokens: Column
    is_full: bool
    labels_are_clean: bool


def checked_words(tokens: Column, labels: Column = ()) -> Words:
    """Return the words of two columns; for most, one search of both shows that nothing else is to check."""
    if is_clean("\n".join(tokens + labels)):
        return Words(tokens, True, True)
    return Words(*checked(tokens), False)


def is_clean(text: str) -> bool:
    """Return whether no field holds an ASCII blank or is empty, of fields joined by line ends.

    Joining fields, of several columns at once, and searching the text is faster than to ask every field.
    """
    return not (
        not text
        or " " in text
        or "\n\n" in text
        or text[0] == "\n"
        or text[-1] == "\n"
        or "\r" in text
        or "\f" in text
        or "\v" in text
    )
