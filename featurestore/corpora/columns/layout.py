"""The layout of a column file: what separates its columns, their names, which of them are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.corpora.columns import header
from featurestore.corpora.columns.fields import split_fields
from featurestore.corpora.columns.labels import NEVER_EMPTY, WordLabels, parted
from featurestore.corpora.contract.options import IGNORE, ReadOptions, parse_column
from featurestore.errors import CorpusError, LabelError

LAST = "last"
_FORM, _ID = "FORM", "ID"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a file lie.

    Attributes
    ----------
    tabs : bool
        Whether tabs separate them, not spaces.
    n_columns : int
        How many names there are, or fields in the first row of words.
    least : int
        How many fields a row must have.
    names : tuple of str
        Empty if nothing names them.
    named_by_comment : bool
        Whether a ``# global.columns`` line does.
    token : int
        Column of the words, from 0.
    token_is_guessed : bool
        Whether it is the first only because nothing says which one it is.
    labels : WordLabels or None
    label_is_last : bool
        Whether the label was asked for as ``last``.
    word_ids : tuple of int
        The columns that may number the words, the likeliest first.
    flags : int or None
        The column MISC of a header, whose flag ``EndOfSentence`` ends a sentence.
    source : str
        Where the number of columns comes from, for messages.
    """

    tabs: bool
    n_columns: int
    least: int
    names: tuple[str, ...]
    named_by_comment: bool
    token: int
    token_is_guessed: bool
    labels: WordLabels | None
    label_is_last: bool
    word_ids: tuple[int, ...]
    flags: int | None
    source: str

    def split(self, line: str) -> list[str]:
        """Return the fields of a line."""
        return split_fields(line, self.tabs)


class ColumnsAsked:
    """The columns a caller asks for, parsed.

    Raises
    ------
    UsageError
        If a column number is not positive.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.token = None if options.text_column is None else parse_column(options.text_column, "text column")
        self.label = None if options.label is None else parse_column(options.label, "label")

    @property
    def names(self) -> list[str]:
        """The columns that were asked for by name."""
        label = self.label if self.label != LAST else None
        return [parted(column)[0] for column in (self.token, label) if isinstance(column, str)]

    def layout(
        self, row: Sequence[str], line: int, *, tabs: bool, names: Sequence[str], named_by_comment: bool
    ) -> Layout:
        """Return the layout of a file.

        Parameters
        ----------
        row : sequence of str
            Its first row of words, or its header.
        line : int
            The row's.
        tabs : bool
        names : sequence of str
            Of the columns; empty if they have none.
        named_by_comment : bool

        Raises
        ------
        CorpusError, LabelError
            If a column that was asked for is not there.
        """
        n_columns = len(names) or len(row)
        source = f"on line {line}"
        if named_by_comment:
            source = f"the '# global.columns' line names: {' '.join(names)}"
        default = header.index_of(_FORM, names)
        if default is None and not named_by_comment:
            default = header.token_column(names)
        found = Columns(tuple(names), n_columns, self.options.path, line)
        token = (default or 0) if self.token is None else found.index(self.token, "text column")
        word_id = header.index_of(_ID, names)
        word_ids = tuple(range(token - 1, -1, -1)) if word_id is None else (word_id,)
        return Layout(
            tabs=tabs,
            n_columns=n_columns,
            least=n_columns if named_by_comment else min(n_columns, 2),
            names=tuple(names),
            named_by_comment=named_by_comment,
            token=token,
            token_is_guessed=self.token is None and default is None and n_columns > 1,
            labels=self._labels(found, named_by_comment),
            label_is_last=self.label == LAST,
            word_ids=word_ids,
            flags=None if named_by_comment else header.index_of("MISC", names),
            source=source,
        )

    def _labels(self, found: Columns, named_by_comment: bool) -> WordLabels | None:
        if self.label is None:
            return None
        ignore = self.options.missing_label == IGNORE
        names = found.names if named_by_comment else ()
        if self.label == LAST:
            return WordLabels(self.options, -1, needed=ignore)
        column, key = self.label, ""
        if isinstance(column, str) and header.index_of(column, found.names) is None:
            column, key = parted(column)
        index = found.index(column, "label")
        name = found.names[index].lower() if found.names else ""
        valued = ("form", "lemma", "feats")
        needed = not key and (
            name in NEVER_EMPTY if named_by_comment and not ignore else ignore and name not in valued
        )
        return WordLabels(self.options, index, key, names, needed=needed)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file, to find one of them."""

    names: tuple[str, ...]
    n_columns: int
    path: str
    line: int

    def index(self, column: int | str, what: str) -> int:
        """Return a column's 0-based number.

        Raises
        ------
        LabelError, CorpusError
            If there is no such column; a LabelError if it is the label's.
        """
        if isinstance(column, int) and column < self.n_columns:
            return column
        index = header.index_of(column, self.names) if isinstance(column, str) else None
        if index is not None:
            return index
        asked = f"number {column + 1}" if isinstance(column, int) else repr(column)
        if self.names:
            known = f"the file has {', '.join(self.names)}"
        else:
            known = f"the file has {self.n_columns} without names: give a number from 1 to {self.n_columns}"
        message = f"no column {asked}, asked for as {what}: {known}"
        raise (LabelError if what == "label" else CorpusError)(message, path=self.path, line=self.line)
