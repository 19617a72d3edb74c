"""Tables with a header row: CSV with the usual quoting, TSV without any; one sentence per row.

TSV has no quoting because the tab cannot occur in a tokenised text while the quotation mark does: ``"`` is
an ordinary character there. Blank lines are skipped; rows whose text is empty are skipped with a warning.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterable, Iterator
from itertools import chain

from featurestore import limits
from featurestore.corpora.example import Example
from featurestore.corpora.options import Reader, ReadOptions
from featurestore.corpora.readers.whitespace import WHITESPACE, whitespace_tokens
from featurestore.corpora.tokenizing.tokenizers import make_tokenizer
from featurestore.errors import CorpusError, LabelError

DEFAULT_TEXT_COLUMN = "text"
_FIELD_LIMIT = threading.Lock()
_Rows = Iterator[tuple[int, list[str]]]


def csv_reader(options: ReadOptions) -> Reader:
    """Return a reader of comma-separated values; a quoted field may span lines."""
    return lambda lines: _examples(_csv_rows(lines, options.path), options)


def tsv_reader(options: ReadOptions) -> Reader:
    """Return a reader of tab-separated values."""
    return lambda lines: _examples(_tsv_rows(lines), options)


def _tsv_rows(lines: Iterable[str]) -> _Rows:
    for number, line in enumerate(lines, 1):
        if line.strip(WHITESPACE):
            yield number, line.split("\t")


def _csv_rows(lines: Iterable[str], path: str) -> _Rows:
    row_lines: list[str] = []

    def feed() -> Iterator[str]:
        for line in lines:
            # The csv module needs the line ends to keep a quoted field that spans lines apart.
            row_lines.append(line + "\n")
            yield row_lines[-1]

    fed = feed()
    rows = csv.reader(fed, strict=True)
    start = 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            # Perhaps a cell beyond the csv module's limit: once more, with our own.
            rows = csv.reader(chain(row_lines.copy(), fed), strict=True)
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


def _examples(rows: _Rows, options: ReadOptions) -> Iterator[Example]:
    header_line, header = next(rows, (0, []))
    if not header:
        return
    text_column = DEFAULT_TEXT_COLUMN if options.text_column is None else options.text_column
    text = _index(header, text_column, "text", options.path, header_line)
    label = None
    if options.label is not None:
        label = _index(header, options.label, "label", options.path, header_line)
    tokenizer = make_tokenizer(options)
    n_empty, first_empty = 0, 0
    for number, row in rows:
        if len(row) != len(header):
            raise CorpusError(
                f"expected {len(header)} fields ({', '.join(header)}), found {len(row)}: "
                "a separator inside the text, or a missing field?",
                path=options.path,
                line=number,
            )
        tokens = tokenizer.tokens(row[text], number) if tokenizer else whitespace_tokens(row[text])
        if not tokens:
            n_empty, first_empty = n_empty + 1, first_empty or number
            continue
        if label is None:
            yield Example(tokens, None, options.path, number)
            continue
        if not row[label]:
            found = ", ".join(f"{name}={value[:40]!r}" for name, value in zip(header, row, strict=True))
            raise LabelError(
                f"column {options.label!r}, asked for as label, is empty (the row is {found})",
                path=options.path,
                line=number,
            )
        yield Example(tokens, row[label], options.path, number)
    if n_empty:
        options.warn_once("skipped %d rows without text, first line %d", n_empty, first_empty)


def _index(header: list[str], name: str, what: str, path: str, line: int) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name not in header and name.isascii() and name.isdigit() and 1 <= int(name) <= len(header):
        return int(name) - 1
    problem = "is there twice" if name in header else "is not there"
    known = ", ".join(map(repr, header))
    message = f"column {name!r}, asked for as {what}, {problem}: the header row names {known}"
    raise (LabelError if what == "label" else CorpusError)(message, path=path, line=line)
