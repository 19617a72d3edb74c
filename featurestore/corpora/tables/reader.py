"""Tables, one sentence per row: CSV with the usual quoting, TSV with it or without, as its rows show.

The first row names the columns, unless these are wanted by number and the rows show that it is data
(:mod:`~featurestore.corpora.tables.header_row`). The separator is that of the format, or another that the
first rows show (:mod:`~featurestore.corpora.tables.separators`); of how a TSV is quoted see
:mod:`~featurestore.corpora.tables.quotes`. Blank lines are skipped; rows whose text is empty are skipped
with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from featurestore.corpora.contract.example import Example, Labels
from featurestore.corpora.contract.options import SEPARATORS, Reader, ReadOptions
from featurestore.corpora.contract.sample import read_ahead
from featurestore.corpora.contract.whitespace import WHITESPACE, whitespace_tokens
from featurestore.corpora.readers.columnar import not_text
from featurestore.corpora.tables.cells import holds_token_lists, label_split, list_items
from featurestore.corpora.tables.header_row import is_header
from featurestore.corpora.tables.rows import Row, Rows, rows_of
from featurestore.corpora.tables.separators import COMMA, TAB, excel_separator, separator_of
from featurestore.corpora.tokenizing.tokenizers import make_tokenizer
from featurestore.errors import CorpusError, LabelError, UsageError
from featurestore.keys import Sentence

DEFAULT_TEXT_COLUMN = "text"
_SAMPLE_ROWS = 500
"""Rows that tell the separator and whether the first one is a header."""

_SAMPLE_CELLS = 200
"""Rows that tell what the cells hold, and whether the file is a table."""

_TEXT_SHARE = 0.1
"""Share of rows with several words in a field that no column file has."""


def csv_reader(options: ReadOptions) -> Reader:
    """Return a reader of comma-separated values; a quoted field may span lines."""
    return lambda lines: _examples(lines, options, "csv", COMMA)


def tsv_reader(options: ReadOptions) -> Reader:
    """Return a reader of tab-separated values."""
    return lambda lines: _examples(lines, options, "tsv", TAB)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the text and the label of a row are.

    Attributes
    ----------
    names : tuple of str or None
        What the first row calls the columns; None if it is data.
    n_columns : int
    text : int
    label : int or None
    document : int or None
    """

    names: tuple[str, ...] | None
    n_columns: int
    text: int
    label: int | None
    document: int | None = None


def _examples(
    lines: Iterable[str], options: ReadOptions, format_name: str, default: str
) -> Iterator[Example]:
    first_lines, lines, is_whole = read_ahead(lines, _SAMPLE_ROWS, len)
    if options.format_is_guessed:
        _refuse_column_file(first_lines, options, format_name)
    named = excel_separator(first_lines[0]) if first_lines else None
    separator = options.separator or named or _separator(first_lines, is_whole, options, default)
    as_csv = format_name == "csv" or separator != TAB
    rows: Rows = rows_of(lines, options, separator, as_csv=as_csv)
    if named is not None:
        next(rows, None)
    first_rows, rows, _ = read_ahead(rows, _SAMPLE_ROWS, _n_characters)
    if not first_rows:
        next(rows, None)  # raises what was wrong with the first
        return iter(())
    columns = _columns(first_rows, options)
    if columns.names is not None:
        next(rows)
        first_rows = first_rows[1:]
    sample = [row for _, row in first_rows[:_SAMPLE_CELLS] if len(row) == columns.n_columns]
    return _read(rows, sample, columns, options)


def _n_characters(row: Row) -> int:
    return sum(map(len, row[1]))


def _read(
    rows: Rows, sample: Sequence[list[str]], columns: _Columns, options: ReadOptions
) -> Iterator[Example]:
    """Yield the examples of rows of data, of which a sample decides what their cells hold."""
    text, label, n_columns = columns.text, columns.label, columns.n_columns
    tokenizer = make_tokenizer(options)
    holds_lists = holds_token_lists([row[text] for row in sample])
    if holds_lists and tokenizer is not None:
        raise UsageError(
            f"{options.path}: the text column holds lists of tokens, which are not tokenised again: leave "
            "tokenize out"
        )
    split = None
    if label is not None:
        pairs = [
            ((list_items(row[text]) or ()) if holds_lists else whitespace_tokens(row[text]), row[label])
            for row in sample
        ]
        split = label_split(pairs)
    is_plain = tokenizer is None and not holds_lists
    n_empty, first_empty = 0, 0
    for number, row in rows:
        if len(row) != n_columns:
            _refuse_length(row, number, columns, options)
        if is_plain:
            tokens = whitespace_tokens(row[text])
        elif tokenizer is not None:
            tokens = tokenizer.tokens(row[text], number)
        else:
            tokens = _token_list(row[text], number, options)
        if not tokens:
            n_empty, first_empty = n_empty + 1, first_empty or number
            continue
        labels: Labels = None
        if label is not None:
            labels = row[label].strip(WHITESPACE)
            if not labels:
                _refuse_empty_label(row, number, columns, options)
            if split is not None:
                labels = _token_labels(split(labels), len(tokens), number, options)
        document = "" if columns.document is None else row[columns.document]
        if columns.document is not None and not document:
            raise CorpusError(
                f"column {options.document!r}, asked for as document, is empty: expected the document's name",
                path=options.path,
                line=number,
            )
        yield Example(tokens, labels, options.path, number, "", document)
    options.skipped(n_empty, first_empty, "rows without text")


def _token_list(cell: str, number: int, options: ReadOptions) -> Sentence:
    items = list_items(cell) if cell.strip() else []
    if items is None or "" in items:
        raise CorpusError(
            f"expected a list of tokens in the text column, as in the rows before, found {cell[:60]!r}",
            path=options.path,
            line=number,
        )
    return tuple(items)


def _token_labels(labels: list[str], n_tokens: int, number: int, options: ReadOptions) -> tuple[str, ...]:
    if len(labels) != n_tokens or "" in labels:
        raise LabelError(
            f"column {options.label!r} holds {len(labels)} labels for {n_tokens} tokens: in the first rows "
            "there is one per token",
            path=options.path,
            line=number,
        )
    return tuple(labels)


# --- Which separator, which columns ---


def _separator(first_lines: Sequence[str], is_whole: bool, options: ReadOptions, default: str) -> str:
    given = _asked(options)
    return separator_of(
        [line for line in first_lines if line.strip(WHITESPACE)],
        is_whole=is_whole,
        default=default,
        names=[] if options.header is False else [column for column in given if not _is_number(column)],
        numbers=[int(column) for column in given if _is_number(column)],
        path=options.path,
    )


def _asked(options: ReadOptions) -> list[str]:
    """Return the names or numbers of the columns asked for, the text's first."""
    text = DEFAULT_TEXT_COLUMN if options.text_column is None else options.text_column
    return [text, *(column for column in (options.label, options.document) if column is not None)]


def _columns(first_rows: Sequence[Row], options: ReadOptions) -> _Columns:
    """Find the columns that are wanted in the first row, if that names columns."""
    line, first = first_rows[0]
    text = DEFAULT_TEXT_COLUMN if options.text_column is None else options.text_column
    if _has_header(first_rows, text, options):
        names = tuple(first)
        text_index = _index(names, text, "text", options.path, line)
        label, document = (
            None if name is None else _index(names, name, what, options.path, line)
            for name, what in ((options.label, "label"), (options.document, "document"))
        )
        if (
            text_index == label
            and _is_number(text)
            and _is_number(options.label or "")
            and text != options.label
        ):
            raise LabelError(
                f"columns {text} and {options.label} are one: a number that names a column means that one: "
                "give names, or --no-header",
                path=options.path,
                line=line,
            )
        return _Columns(names, len(first), text_index, label, document)
    if options.text_column is None and len(first) == 1:
        text = "1"
    text_index = _numbered(len(first), text, "text", options.path, line)
    label, document = (
        None if number is None else _numbered(len(first), number, what, options.path, line)
        for number, what in ((options.label, "label"), (options.document, "document"))
    )
    return _Columns(None, len(first), text_index, label, document)


def _has_header(first_rows: Sequence[Row], text: str, options: ReadOptions) -> bool:
    if options.header is not None:
        return options.header
    line, first = first_rows[0]
    if any(not _is_number(column) for column in [text, *_asked(options)[1:]]):
        return True  # where they are not in the first row, the message says what is
    label = int(options.label) - 1 if options.label else -1
    return is_header(first, [row for _, row in first_rows[1:]], label, path=options.path, line=line)


def _index(names: Sequence[str], name: str, what: str, path: str, line: int) -> int:
    if names.count(name) == 1:
        return names.index(name)
    if name not in names and _is_number(name) and 1 <= int(name) <= len(names):
        return int(name) - 1
    problem = "is there twice" if name in names else "is not there"
    known = ", ".join(map(repr, names))
    message = f"column {name!r}, asked for as {what}, {problem}: the header row names {known}"
    if not _is_number(name):
        message += (
            "; if that row is data, give --no-header (in Python header=False) and the columns by number"
        )
    raise (LabelError if what == "label" else CorpusError)(message, path=path, line=line)


def _numbered(n_columns: int, column: str, what: str, path: str, line: int) -> int:
    if _is_number(column) and 1 <= int(column) <= n_columns:
        return int(column) - 1
    message = (
        f"no column {column!r}, asked for as {what}: without a header row columns have numbers, from 1 to "
        f"{n_columns}"
    )
    raise (LabelError if what == "label" else CorpusError)(message, path=path, line=line)


def _is_number(column: str) -> bool:
    return column.isascii() and column.isdigit()


# --- Refusals ---


def _refuse_column_file(lines: Sequence[str], options: ReadOptions, format_name: str) -> None:
    """Refuse a table by name that has a word in each row and blank lines between its sentences."""
    lines = lines[:_SAMPLE_CELLS]
    filled = [line for line in lines if line.strip(WHITESPACE) and not line.startswith("#")]
    if format_name == "csv" and any(sign in line for line in filled for sign in ",;"):
        return
    rows = [line.split(TAB) for line in filled]
    n_texts = sum(any(" " in field.strip(WHITESPACE) for field in row) for row in rows)
    if format_name == "tsv" and n_texts > _TEXT_SHARE * len(rows):
        return
    wanted = {DEFAULT_TEXT_COLUMN if options.text_column is None else options.text_column, options.label}
    is_named = bool(rows) and wanted - {None} <= set(rows[0])
    found = not_text(lines)
    is_column_file = found is not None and found.format in ("conll", "conllu") and not is_named
    if format_name == "tsv" and len(rows) > 1 and n_texts == 0 and all(len(row) > 1 for row in rows):
        is_column_file = is_column_file or _has_inner_blank_line(lines)
    if is_column_file:
        advice = found.format if found is not None else "conll"
        raise CorpusError(
            f"reads as a column file, with a word and its tags on each line: give --format {advice} (in "
            f"Python format={advice!r}), or the format {format_name} if each row is a sentence nevertheless",
            path=options.path,
            line=1,
        )


def _has_inner_blank_line(lines: Sequence[str]) -> bool:
    filled = [index for index, line in enumerate(lines) if line.strip(WHITESPACE)]
    return bool(filled) and len(filled) <= filled[-1] - filled[0]


def _refuse_length(row: list[str], number: int, columns: _Columns, options: ReadOptions) -> None:
    known = "" if columns.names is None else f" ({', '.join(columns.names)})"
    raise CorpusError(
        f"expected {columns.n_columns} fields{known}, found {len(row)}: a separator inside the text, or a "
        f"missing field? (--separator {'|'.join(SEPARATORS)} names another one)",
        path=options.path,
        line=number,
    )


def _refuse_empty_label(row: list[str], number: int, columns: _Columns, options: ReadOptions) -> None:
    names = columns.names or tuple(str(n) for n in range(1, columns.n_columns + 1))
    found = ", ".join(f"{name}={value[:40]!r}" for name, value in zip(names, row, strict=True))
    raise LabelError(
        f"column {options.label!r}, asked for as label, is empty (the row is {found})",
        path=options.path,
        line=number,
    )
