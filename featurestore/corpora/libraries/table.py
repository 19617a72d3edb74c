"""A table as a corpus: what each kind of table gives, and how its rows become examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from featurestore.corpora.contract.corpus import Corpus
from featurestore.corpora.contract.example import Example, RowExample
from featurestore.corpora.contract.identity import identity_of_reading
from featurestore.corpora.contract.label_names import named
from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.contract.sizes import check_size
from featurestore.corpora.libraries.token_rows import exported_columns, grouped
from featurestore.corpora.readers.records import Kind, Record, RecordReader
from featurestore.errors import CorpusChangedError, CorpusError, LabelError

_TEXT, _TOKENS = "text", "tokens"
_TYPE_NAMES: dict[type, str] = {
    type(None): "null", bool: "boolean", int: "whole number", float: "fraction", str: "string", list: "list",
    dict: "struct", bytes: "byte string",
}  # fmt: skip


class Table(Protocol):
    """Rows of named columns, in a file or in memory.

    Attributes
    ----------
    path : str
        The file, or what messages call a table in memory.
    format : str
    columns : tuple of str
        The names, in order; a name may be there twice.
    n_rows, n_bytes : int or None
        None where it is not known. The bytes are those of a file.
    """

    @property
    def path(self) -> str:
        """What messages call it."""

    @property
    def format(self) -> str:
        """The name of its format."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""

    @property
    def n_rows(self) -> int | None:
        """How many rows it has."""

    @property
    def n_bytes(self) -> int | None:
        """How large the file is."""

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """Return what the integers of a column, or of its lists, stand for; None where nobody says."""

    def batches(self, columns: Sequence[str]) -> Iterator[Sequence[list[Any]]]:
        """Yield the values of some columns, a few rows at a time, as Python has them.

        Raises
        ------
        CorpusError
            If the file is damaged, or a column cannot be read.
        """

    def state(self) -> object:
        """Return what is another value when the table has changed; None where that cannot be told."""

    def content(self, columns: Sequence[str]) -> str | None:
        """Return a hash of everything that decides the values of some columns; None where none is known.

        Raises
        ------
        OSError
            If a file cannot be read.
        """


def type_name(value: object) -> str:
    """Return what messages call the type of a value of a table."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


class TableCorpus(Corpus):
    """The rows of a table as examples.

    Parameters
    ----------
    table : Table
    options : ReadOptions
        Its path is the table's.

    Raises
    ------
    CorpusError, LabelError
        If a column that is asked for is not there, or there twice.
    """

    def __init__(self, table: Table, options: ReadOptions) -> None:
        self.path, self.format = table.path, table.format
        self._table = table
        self._options, self._columns = _resolved(table, options)
        names = table.label_names(self._options.label) if self._options.label is not None else None
        kind = Kind("column", "row", "row", type_name, RowExample, has_types=True)
        self._reader = RecordReader(self._options, kind, names)
        self._n_read = 0
        self._first_state: object = None
        self._latest_state: object = None

    def __iter__(self) -> Iterator[Example]:
        state = self._table.state()
        self._latest_state = None
        self._n_read = n_sentences = 0
        records = self._records()
        if self._options.sentence is not None:
            records = grouped(records, self._options)
        given = self._options.label_names
        for example in self._reader.examples(records):
            if given is not None:
                example = named(example, given)
            check_size(example)
            n_sentences += 1
            yield example
        # What changed meanwhile is told from both states.
        self._latest_state = state if self._table.state() == state else object()
        if self._first_state is None:
            self._first_state = self._latest_state
        if not n_sentences:
            raise CorpusError(f"no sentences in it, read as {self.format}: is it empty?", path=self.path)

    def _records(self) -> Iterator[tuple[int, Record]]:
        """Yield the rows with their numbers, of the columns that are wanted."""
        columns = self._columns
        for batch in self._table.batches(columns):
            for row in zip(*batch, strict=True):
                self._n_read += 1
                yield self._n_read, dict(zip(columns, row, strict=True))

    def check_unchanged(self) -> None:
        """Compare the state of the table at the latest complete pass with that at the first.

        Raises
        ------
        CorpusChangedError
            If a file is another one, or has another size or time of change.
        """
        if self._latest_state != self._first_state:
            raise CorpusChangedError(
                "the file changed between two passes over it: leave it alone while it is read, and run again",
                path=self.path,
            )

    @property
    def bytes_read(self) -> int:
        """Bytes of the file in proportion to the rows that the latest pass has read."""
        if not self._table.n_bytes or not self._table.n_rows:
            return 0
        return self._table.n_bytes * self._n_read // self._table.n_rows

    @property
    def n_bytes(self) -> int | None:
        """Size of the file; None for a table in memory."""
        return self._table.n_bytes

    @property
    def n_skipped(self) -> int:
        """How many rows and tokens the latest complete pass left out because they are empty."""
        return self._options.n_skipped

    def identity(self) -> dict[str, Any] | None:
        """Return a hash of the content, the name, the options, and a hash of the readers' code."""
        content = self._table.content(self._columns)
        if content is None:
            return None
        return {"content": content, **identity_of_reading(self._options, self.format)}

    def identity_read(self) -> dict[str, Any] | None:
        """Return the identity of what the latest complete pass read; None before one, or after a change.

        A file read out of order cannot be hashed on the way: it is hashed now, if its state is still that of
        the pass.
        """
        state = self._latest_state
        return self.identity() if state is not None and state == self._table.state() else None

    def findings(self) -> dict[str, Any]:
        """Return what was warned of and left out."""
        return self._options.findings()

    def recall(self, identity: Mapping[str, Any], findings: Mapping[str, Any]) -> None:
        """Be as after a pass over the table, which is not read: see :meth:`Corpus.recall`."""
        self._options.recall(findings)
        self._latest_state = self._table.state()
        self._n_read = self._table.n_rows or 0
        if self._first_state is None:
            self._first_state = self._latest_state


def _resolved(table: Table, options: ReadOptions) -> tuple[ReadOptions, list[str]]:
    """Return the options with the columns by their names, and the columns that are wanted."""
    found = exported_columns(table.columns, options)
    asked: dict[str, Any] = {
        "sentence": found.sentence,
        "label": found.label,
        "document": found.document,
        "text_column": found.text_column,
    }
    for name, column in asked.items():
        if column is not None:
            asked[name] = _column(table, column, name)
    if found.text_column is None:
        asked["text_column"] = _column(table, _default_text(table, found), "text_column")
    if asked["label"] is not None and asked["label"] == asked["text_column"]:
        raise LabelError(
            f"column {asked['label']!r} is asked for as text and as label; a number that names a column "
            "means that one",
            path=table.path,
        )
    wanted = [column for column in asked.values() if column is not None]
    return replace(found, **asked), list(dict.fromkeys(wanted))


def _default_text(table: Table, options: ReadOptions) -> str:
    if options.sentence is not None:
        default: tuple[str, ...] = ("token", "word", "text")
    else:
        default = (_TEXT,) if options.tokenize else (_TOKENS, _TEXT)
    for name in default:
        if name in table.columns:
            return name
    wanted = " or ".join(map(repr, default))
    raise CorpusError(
        f"no column {wanted} for the text: there are {listed(table.columns)}; name one with --text-column "
        "(in Python text_column=)",
        path=table.path,
    )


def _column(table: Table, column: str, what: str) -> str:
    """Return the name of a column given by its name or, where none has that name, by its number."""
    names = table.columns
    if names.count(column) == 1:
        return column
    if column not in names and column.isascii() and column.isdigit() and 1 <= int(column) <= len(names):
        return _column(table, names[int(column) - 1], what)
    problem = "is there twice" if column in names else "is not there"
    error = LabelError if what == "label" else CorpusError
    raise error(
        f"column {column!r}, asked for as {what.removesuffix('_column')}, {problem}: there are "
        f"{listed(names)}",
        path=table.path,
    )


def listed(names: Sequence[str]) -> str:
    """Return the names of columns for a message."""
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "") if names else "no columns"
