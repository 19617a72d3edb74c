"""Lines to the rows of a table: fields between separators, quoted as csv quotes or not at all."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterable, Iterator
from itertools import chain

from featurestore import limits
from featurestore.corpora.contract.options import CSV_QUOTES, TEXT_QUOTES, ReadOptions
from featurestore.corpora.contract.sample import read_ahead
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.corpora.tables.quotes import is_quoted
from featurestore.errors import CorpusError

Row = tuple[int, list[str]]
"""The line on which a row starts, and its fields."""

Rows = Iterator[Row]

_SAMPLE_LINES = 500
_FIELD_LIMIT = threading.Lock()


def rows_of(lines: Iterable[str], options: ReadOptions, separator: str, *, as_csv: bool) -> Rows:
    """Yield the rows of a table.

    Parameters
    ----------
    lines : iterable of str
    options : ReadOptions
        Of the file.
    separator : str
    as_csv : bool
        Whether fields are quoted as csv quotes, unless the options say so or not.
    """
    if options.quotes == TEXT_QUOTES:
        return _plain_rows(lines, separator, 1)
    if as_csv or options.quotes == CSV_QUOTES:
        return csv_rows(lines, options.path, separator)
    return tsv_rows(lines, options.path, separator)


def tsv_rows(lines: Iterable[str], path: str, separator: str) -> Rows:
    """Yield rows that may be quoted as csv quotes, which is decided at the first quote mark."""
    numbered = iter(lines)
    n_columns: int | None = None
    for number, line in enumerate(numbered, 1):
        if '"' in line:
            ahead, again, is_whole = read_ahead(chain([line], numbered), _SAMPLE_LINES, len)
            quoted = is_quoted(
                ahead, is_whole=is_whole, n_columns=n_columns, separator=separator, path=path, line=number
            )
            if quoted:
                yield from csv_rows(again, path, separator, number)
            else:
                yield from _plain_rows(again, separator, number)
            return
        if line.strip(WHITESPACE):
            fields = line.split(separator)
            n_columns = n_columns or len(fields)
            yield number, fields


def _plain_rows(lines: Iterable[str], separator: str, start: int) -> Rows:
    for number, line in enumerate(lines, start):
        if line.strip(WHITESPACE):
            yield number, line.split(separator)


def csv_rows(lines: Iterable[str], path: str, separator: str, start: int = 1) -> Rows:
    """Yield rows quoted as csv quotes; a quoted field may span lines.

    Raises
    ------
    CorpusError
        If a row is not well quoted, naming it.
    """
    row_lines: list[str] = []

    def feed() -> Iterator[str]:
        for line in lines:
            # The csv module needs the line ends to keep a quoted field that spans lines apart.
            row_lines.append(line + "\n")
            yield row_lines[-1]

    fed = feed()
    rows = csv.reader(fed, delimiter=separator, strict=True)
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            # Perhaps a cell is over the csv module's limit: read again with our own.
            rows = csv.reader(chain(row_lines.copy(), fed), delimiter=separator, strict=True)
            row = _next_long_row(rows, path, start)
        if row is None:
            return
        if row:
            yield start, row
        start += len(row_lines)
        row_lines.clear()


def _next_long_row(rows: Iterator[list[str]], path: str, line: int) -> list[str] | None:
    """Return the next row with cells as long as a line of any format may be."""
    # The module has one limit for the whole process, others' tables included.
    with _FIELD_LIMIT:
        before = csv.field_size_limit(limits.MAX_LINE_BYTES)
        try:
            return next(rows, None)
        except csv.Error as error:
            # A quote never closed swallows lines up to the limit: the row's start helps more.
            raise CorpusError(
                f"not valid CSV: {error}: check the quotes of this row", path=path, line=line
            ) from error
        finally:
            csv.field_size_limit(before)
