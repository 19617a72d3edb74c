"""Whether a table separated by tabs is quoted as csv quotes, decided by its rows.

A field that csv quotes stands between quote marks, each mark inside it doubled (``"a ""b"" c"``). Writers
quote what needs it (a mark, a tab, a line end inside: csv.writer, pandas; commas too: Excel) or whole columns
(R). In other tables the mark is a sign of the text like any other. So a table is quoted if all its fields
with marks are so written, and one of them could not be meant otherwise: it has a doubled mark, spans fields
or lines, or its whole column is quoted. Marks around a field that needs none, in some rows, are text.

Where the lines between two marks are rows as well, the marks may be around a field that holds tabs and line
ends, or in the texts of several rows. They are text if each of these lines repeats a value that its column
has in other rows, such as a label, or if blanks part the marks from the words, as in tokenised text. Else the
file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.errors import CorpusError

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DOUBLED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_WRAPPED = re.compile(r'".+"')
_UNFINISHED = re.compile(r'"(?:[^"]|"")*\Z')
_LEAST_WITH_COMMA = 3


@dataclass(frozen=True, slots=True)
class _Field:
    is_quoted: bool
    text: str


def is_quoted(
    lines: Sequence[str], *, is_whole: bool, n_columns: int | None, separator: str, path: str, line: int
) -> bool:
    """Return whether fields are quoted as csv quotes.

    Parameters
    ----------
    lines : sequence of str
        Lines from the first with a quote mark on.
    is_whole : bool
        Whether these are all lines that follow.
    n_columns : int or None
        Fields of the rows before; None if there are none.
    separator : str
    path, line : str, int
        Where the first of the lines is, for messages.

    Raises
    ------
    CorpusError
        If some fields are quoted as csv quotes and others cannot be.
    """
    text = "".join(f"{line}\n" for line in lines)
    rows, end = _parse(text, separator)
    split = [line.split(separator) for line in lines if line.strip(WHITESPACE)]
    width = n_columns or (len(rows[0]) if rows else len(split[0]))
    is_well_formed = end == len(text) or (not is_whole and _UNFINISHED.match(text, end) is not None)
    doubled = any(_DOUBLED.fullmatch(field) for row in split for field in row)
    if is_well_formed and rows and all(len(row) == width for row in rows):
        # Where each line is a row, marks on two of them are no field that spans both.
        lines_are_rows = all(len(row) == width for row in split)
        if (
            doubled
            or not lines_are_rows
            or (n_columns is None and _has_quoted_columns(rows))
            or _quotes_commas([field for row in rows for field in row])
        ):
            return True
        spans = [field.text for row in rows for field in row if field.is_quoted and "\n" in field.text]
        if all(text[0] == " " or text[-1] == " " for text in spans) or _is_rows(text, separator):
            return False
        raise CorpusError(
            f"cannot tell whether the quote marks around {spans[0][:60]!r} enclose one field that holds line "
            "ends or are text in several rows: give --quotes csv if they enclose a field, --quotes text if "
            "they are text (in Python quotes=)",
            path=path,
            line=line,
        )
    all_quoted = n_columns is None and len(split) > 1 and all(map(_WRAPPED.fullmatch, split[0]))
    if doubled or all_quoted:
        bad = line + text.count("\n", 0, min(end, len(text) - 1))
        raise CorpusError(
            "some fields are quoted as csv quotes (marks around them, those inside doubled), and one on this "
            "line is not: quote all fields that hold a mark in that way, or none",
            path=path,
            line=bad,
        )
    return False


def _parse(text: str, separator: str) -> tuple[list[list[_Field]], int]:
    """Return the rows of a text of fields quoted as csv quotes, and where it stops being one."""
    sign = re.escape(separator)
    pattern = re.compile(rf'(?:("(?:[^"]|"")*")|([^"\n{sign}]*))([{sign}\n])')
    rows: list[list[_Field]] = []
    row: list[_Field] = []
    position = 0
    while match := pattern.match(text, position):
        quoted, plain, end = match.groups()
        row.append(_Field(quoted is not None, (quoted or plain or "")[1:-1] if quoted else plain or ""))
        if end == "\n":
            if len(row) > 1 or row[0].is_quoted or row[0].text.strip(WHITESPACE):
                rows.append(row)
            row = []
        position = match.end()
    return rows, position


def _is_rows(text: str, separator: str) -> bool:
    """Return whether each line that would begin inside a quoted field shares a value with other rows."""
    inside, lines, between = False, text.split("\n")[:-1], list[list[str]]()
    seen: list[set[str]] = []
    for line in lines:
        fields = line.split(separator)
        if inside:
            between.append(fields)
        else:
            seen.extend(set() for _ in fields[len(seen) :])
            for values, field in zip(seen, fields, strict=False):
                values.add(field)
        inside ^= line.count('"') % 2 == 1
    return all(any(f in values for f, values in zip(row, seen, strict=False) if f) for row in between)


def _has_quoted_columns(rows: Sequence[Sequence[_Field]]) -> bool:
    """Return whether every column is quoted in all rows but perhaps the first, or in none; and one in all."""
    columns = [[field.is_quoted for field in column] for column in zip(*rows, strict=True)]
    return len(rows) > 1 and any(map(all, columns)) and all(len(set(column[1:])) == 1 for column in columns)


def _quotes_commas(fields: Sequence[_Field]) -> bool:
    """Return whether just the fields with a comma are quoted, as Excel does."""
    n_quoted = sum(field.is_quoted for field in fields)
    return n_quoted >= _LEAST_WITH_COMMA and all(("," in field.text) == field.is_quoted for field in fields)
