"""Column files (CoNLL-2003 and its relatives): one word per line, sentences apart by blank lines.

What a line is, is decided by the rows around it, never by its count of fields alone:

- **Separator**: tabs if the first row of words has one, else runs of spaces. ASCII blanks at the edges of a field
  do not belong to it; others, such as a no-break space, do. A row whose token has nothing else is refused.
- **Columns**: a row needs the columns asked for. With tabs, rows may have more or fewer. With spaces, which a
  token may hold too, all rows of a sentence have as many; sentences may differ from each other where that is
  not a token in two pieces (five columns and more: CoNLL-2005 and 2012 have a column per predicate).
- **Names**: ``# global.columns = ID FORM ...`` (CoNLL-U Plus) or a header row name the columns;
  :mod:`~featurestore.corpora.columns.header` tells a header from words. The words then stand in the column FORM,
  TOKEN or WORD; without names in the first.
- **Word numbers**: a column left of the words that numbers them in all rows of a sentence shows which rows are
  ranges and empty nodes, which are skipped: :mod:`~featurestore.corpora.columns.numbering`. If nothing says which
  column holds the words and the first one numbers them, the file is refused.
- **Comments**: :mod:`~featurestore.corpora.columns.comments` tells them from words that begin with ``#``. Behind the
  first word of a sentence only ``# name = value`` without a tab is one, in a file of tabs.
- **Documents**: a ``-DOCSTART-`` row (CoNLL-2003) and ``#begin document`` (CoNLL-2012) end a sentence and are
  skipped. In a file with ``# global.columns``, ``-DOCSTART-`` is a word.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress

from featurestore.corpora.columns import comments, header
from featurestore.corpora.columns.blocks import Blocks
from featurestore.corpora.columns.fields import (
    Column,
    columns_of_rows,
    of_words,
    regular_columns,
    split_fields,
    stripped,
)
from featurestore.corpora.columns.layout import ColumnsAsked, Layout
from featurestore.corpora.columns.numbering import is_garbled, is_id, is_plain, word_rows
from featurestore.corpora.columns.plausibility import Plausibility
from featurestore.corpora.example import Example
from featurestore.corpora.options import Reader, ReadOptions, refuse_tokenize
from featurestore.corpora.readers.text import WHITESPACE
from featurestore.errors import CorpusError, LabelError

_DOCSTART = "-DOCSTART-"
_MAX_HEAD_LINES = 10_000
_EVIDENCE_LINES = 1000
_RECENT_SENTENCES = 2000
_MANY_COLUMNS = 5
_FIRST_ID = re.compile(r"[01]|[0-9]+[-.]1")
_CHOOSE_COMMENTS = (
    "--comments if it is a comment, --no-comments if it is a word (in Python comments=True or False)"
)
_CHOOSE_HEADER = (
    "--header if they are names, --no-header if they are a word's (in Python header=True or False)"
)


def conll_reader(options: ReadOptions) -> Reader:
    """Return a reader of column files.

    ``text_column`` (default the first, or FORM) and ``label`` are 1-based numbers or names given by a
    ``# global.columns`` line or a header row; ``label`` may also be ``last``.

    Raises
    ------
    UsageError
        If a column number is not positive, or tokenisation is asked for.
    """
    refuse_tokenize(options, "CoNLL")
    asked = ColumnsAsked(options)
    return lambda lines: _Pass(asked, options, lines).examples()


class _Pass:
    """One pass over a file: its blocks, and what those read so far tell about the others."""

    _layout: Layout

    def __init__(self, asked: ColumnsAsked, options: ReadOptions, lines: Iterable[str]) -> None:
        self._asked = asked
        self._options = options
        self._blocks = Blocks(lines, options.path)
        self._has_layout = False
        self._names: list[str] = []
        self._header_line = ""
        self._recent_ends: deque[Column] = deque(maxlen=_RECENT_SENTENCES)
        self._widths: set[int] = set()
        self._has_documents = False
        self._numbered: int | None = None
        self._first_may_number = True
        self._plausibility = Plausibility(options)

    def examples(self) -> Iterator[Example]:
        for line, lines in self._blocks:
            begins = lines[0]
            if begins[0] == "#" or begins == self._header_line or not self._has_layout:
                line, lines = self._without_comments(line, lines)
                if not lines:
                    continue
            columns = self._usual_columns(lines)
            if columns is not None:
                example = self._example(columns, range(line, line + len(lines)))
                if example is not None:
                    yield example
                continue
            for numbers, columns in self._unusual_columns(line, lines):
                example = self._example(columns, numbers)
                if example is not None:
                    yield example
        self._plausibility.finish()
        if self._has_layout and self._layout.labels is not None:
            self._layout.labels.require_found()

    def _example(self, columns: list[Column], numbers: Sequence[int]) -> Example | None:
        """Return the sentence of these rows; None if none of them is a word."""
        layout, options = self._layout, self._options
        if layout.word_ids:
            words = self._word_rows(columns, numbers)
            if words is not None:
                numbers = list(compress(numbers, words))
                if not numbers:
                    return None
                columns = of_words(columns, words)
        tokens = stripped(columns[layout.token])
        if not all(tokens):
            raise CorpusError(
                "the token column is empty: a word needs a character that is not a blank; delete the row",
                path=options.path,
                line=numbers[tokens.index("")],
            )
        if not layout.tabs and "\t" in "".join(tokens):
            at = next(i for i, token in enumerate(tokens) if "\t" in token)
            raise CorpusError(
                f"expected {layout.n_columns} columns separated by spaces (as {layout.source}), found a tab in "
                f"the token {tokens[at]!r}",
                path=options.path,
                line=numbers[at],
            )
        if layout.token_is_guessed and self._first_may_number:
            self._refuse_word_numbers(columns, numbers)
        labels = None if layout.labels is None else layout.labels.of(columns, numbers)
        self._recent_ends.append(columns[-1])
        self._plausibility.add(tokens, numbers[0])
        return Example(tokens, labels, options.path, numbers[0])

    # --- rows ---

    def _usual_columns(self, lines: list[str]) -> list[Column] | None:
        """Return the columns of rows like the file's first; None for rows that need a closer look."""
        columns = regular_columns(lines, self._layout.tabs, self._layout.n_columns)
        if columns is not None and _DOCSTART in "".join(columns[0]) and any(map(self._ends_document, lines)):
            return None
        return columns

    def _unusual_columns(self, line: int, lines: list[str]) -> Iterator[tuple[list[int], list[Column]]]:
        """Yield the line numbers and the columns of each sentence of a block that marks of documents part."""
        while lines:
            end = next((i for i, text in enumerate(lines) if self._ends_document(text)), len(lines))
            numbers, rows = [], []
            for number, text in enumerate(lines[:end], line):
                if not self._is_comment_between_words(text):
                    numbers.append(number)
                    rows.append(self._layout.split(text))
            if rows:
                self._check_widths(rows, numbers)
                yield numbers, columns_of_rows(rows)
            line, lines = self._without_comments(line + end, lines[end:])

    def _is_comment_between_words(self, text: str) -> bool:
        return (
            text[0] == "#"
            and self._layout.tabs
            and "\t" not in text
            and self._options.comments is not False
            and comments.CONVENTION.match(text) is not None
        )

    def _check_widths(self, rows: list[list[str]], numbers: list[int]) -> None:
        """Refuse rows that lack the columns asked for, or in which fields may have moved."""
        layout, widths = self._layout, list(map(len, rows))
        for at, width in enumerate(widths):
            if width < layout.least:
                raise self._bad_width(rows[at], numbers[at], layout.n_columns, layout.source)
        if layout.tabs:
            if layout.label_is_last and len(set(widths)) > 1:
                at = next(i for i, width in enumerate(widths) if width != widths[0])
                raise LabelError(
                    f"the row has {widths[at]} columns, the one on line {numbers[0]} {widths[0]}, so that the "
                    "last column, asked for as label, is not the same: give its number",
                    path=self._options.path,
                    line=numbers[at],
                )
            return
        usual = widths.index(layout.n_columns) if layout.n_columns in widths else 0
        for at, width in enumerate(widths):
            if width != widths[usual]:
                raise self._bad_width(rows[at], numbers[at], widths[usual], f"on line {numbers[usual]}")
        width = widths[0]
        if width != layout.n_columns and width not in self._widths:
            is_alone = len(rows) == 1 and not self._has_documents
            if is_alone or layout.n_columns < _MANY_COLUMNS:
                raise self._bad_width(rows[0], numbers[0], layout.n_columns, layout.source)
            self._widths.add(width)

    def _bad_width(self, row: list[str], line: int, expected: int, source: str) -> CorpusError:
        separator = "\t" if self._layout.tabs else " "
        hint = "" if self._layout.tabs else "; where tokens hold spaces, separate the columns by tabs"
        return CorpusError(
            f"expected {expected} columns (as {source}), found {len(row)}: {separator.join(row)[:60]!r}{hint}",
            path=self._options.path,
            line=line,
        )

    # --- word numbers ---

    def _word_rows(self, columns: list[Column], numbers: Sequence[int]) -> list[bool] | None:
        """Return which rows are words, by the column that numbers them; None if all are."""
        layout = self._layout
        for index in layout.word_ids:
            if index >= len(columns) or (index == layout.token and not layout.named_by_comment):
                continue
            ids = columns[index]
            if is_plain(ids):
                self._numbered = index
                return None
            ids = stripped(ids)
            words = word_rows(ids)
            if words is not None:
                self._numbered = index
                return None if all(words) else words
            if layout.named_by_comment or is_garbled(ids) or (index == self._numbered and _has_nodes(ids)):
                shown = " ".join(ids[:8])
                raise CorpusError(
                    f"column {index + 1} numbers the words, but does not count them: {shown}"
                    f"{' ...' if len(ids) > 8 else ''}; is a blank line missing?",
                    path=self._options.path,
                    line=numbers[0],
                )
        return None

    def _refuse_word_numbers(self, columns: list[Column], numbers: Sequence[int]) -> None:
        """Refuse a file whose first column numbers the words, known by its first sentence of several words."""
        ids = columns[0]
        words = word_rows(ids)
        found = [] if words is None else list(compress(ids, words))
        if not found or not _FIRST_ID.fullmatch(found[0]):
            self._first_may_number = False
            return
        if len(found) == 1:
            return
        number = next((i for i in range(1, len(columns)) if not all(map(is_id, columns[i]))), 1) + 1
        raise CorpusError(
            f"the first column numbers the words ({' '.join(found[:3])} ...): say which one holds them, "
            f"--text-column {number} (in Python text_column={number}), or 1 if the text is numbers; or read "
            "CoNLL-U as that, --format conllu",
            path=self._options.path,
            line=numbers[0],
        )

    # --- comments, headers, documents ---

    def _without_comments(self, line: int, lines: list[str]) -> tuple[int, list[str]]:
        """Return the rest of a block from its first word on; the first word of the file shows the layout."""
        at = 0
        reference: str | None = None
        while at < len(lines):
            text = lines[at]
            if text[0] == "#":
                if reference is None:
                    reference = self._first_row(lines[at:])
                if not self._is_comment(text, line + at, lines[at + 1 :], reference):
                    if self._has_layout:
                        break
                    self._find_layout(lines, at, line + at)
                    break
                if names := comments.GLOBAL_COLUMNS.match(text):
                    self._names = names[1].split()
                self._has_documents = self._has_documents or comments.DOCUMENT.match(text) is not None
            elif not self._ends_document(text) and text != self._header_line:
                if self._has_layout:
                    break
                self._find_layout(lines, at, line + at)
                if text != self._header_line:
                    break
            at += 1
            if at > _MAX_HEAD_LINES and not self._has_layout:
                raise CorpusError(
                    f"the first {_MAX_HEAD_LINES:,} lines hold no token line, only comments and blank lines: "
                    "is this a column file?",
                    path=self._options.path,
                )
        return line + at, lines[at:]

    def _first_row(self, lines: list[str]) -> str:
        """Return the first line that is surely no comment, of these or of the next blocks; "" if there is none."""
        later = (text for block in self._blocks.ahead(_EVIDENCE_LINES) for text in block.lines)
        return next(
            (text for text in chain(lines, later) if text[0] != "#" and not self._ends_document(text)), ""
        )

    def _is_comment(self, text: str, line: int, below: list[str], reference: str) -> bool:
        """Tell whether a line that begins with ``#`` before the first word of its sentence is a comment."""
        if self._options.comments is not None:
            return self._options.comments
        if (
            comments.CONVENTION.match(text)
            or comments.GLOBAL_COLUMNS.match(text)
            or not (reference or self._has_layout)
        ):
            return True
        tabs = self._layout.tabs if self._has_layout else "\t" in reference
        n_columns = len(split_fields(reference, tabs)) if reference else self._layout.n_columns
        fields = split_fields(text, tabs)
        if self._lacks_word_number(fields, [split_fields(row, tabs) for row in below]):
            return True
        is_known = any(fields[-1] in ends for ends in self._recent_ends)
        is_known = is_known or fields[-1] in self._ends_nearby(below, tabs)
        verdict = comments.judge(fields, n_columns, tabs=tabs, is_known=is_known)
        if verdict is comments.Verdict.UNCLEAR:
            raise CorpusError(
                f"cannot tell whether {text[:60]!r} is a comment or a word: give {_CHOOSE_COMMENTS}",
                path=self._options.path,
                line=line,
            )
        if verdict is comments.Verdict.PROBABLY_COMMENT:
            self._options.warn_once(
                "line %d is the first taken for a comment though it has as many columns as words have: %r; "
                "--no-comments reads it as a word",
                line,
                text[:60],
            )
        return verdict is not comments.Verdict.WORD

    def _lacks_word_number(self, fields: list[str], rows: list[list[str]]) -> bool:
        """Tell whether the rows below a line are numbered in a column in which the line has no number."""
        token = self._asked.token
        if token is None and not self._names:
            # Not known yet which column holds the words: one number may be a word.
            ids = [row[0] for row in rows]
            return len(ids) > 1 and not is_id(fields[0]) and is_plain(tuple(ids))
        named = header.index_of("ID", self._names)
        if named is not None:
            return named >= len(fields) or not is_id(fields[named])
        for index in reversed(range(token if isinstance(token, int) else 0)):
            if index < len(fields) and is_id(fields[index]):
                continue
            ids = [row[index] for row in rows if index < len(row)]
            if self._numbered == index or (len(ids) == len(rows) > 0 and word_rows(ids) is not None):
                return True
        return False

    def _ends_nearby(self, below: list[str], tabs: bool) -> set[str]:
        """Return the last fields of this block's other rows and of the next blocks'."""
        later = (text for block in self._blocks.ahead(_EVIDENCE_LINES) for text in block.lines)
        return {split_fields(text, tabs)[-1] for text in chain(below, later) if text[0] != "#"}

    def _ends_document(self, text: str) -> bool:
        if text[0] == "-":
            # CoNLL-U Plus has no such row.
            return text.startswith(_DOCSTART) and not self._names
        return (
            text[0] == "#"
            and self._options.comments is not False
            and comments.DOCUMENT.match(text) is not None
        )

    def _find_layout(self, lines: list[str], at: int, line: int) -> None:
        """Derive the layout from the first row of the file, which may be a header."""
        tabs = "\t" in lines[at]
        row = [field.strip(WHITESPACE) for field in split_fields(lines[at], tabs)]
        named_by_comment = bool(self._names)
        names = self._names
        if self._options.header or (
            not named_by_comment and self._is_header(row, lines[at + 1 :], tabs, line)
        ):
            self._header_line = lines[at]
            names = names or row
        self._layout = self._asked.layout(
            row, line, tabs=tabs, names=names, named_by_comment=named_by_comment
        )
        self._has_layout = True

    def _is_header(self, row: list[str], below: list[str], tabs: bool, line: int) -> bool:
        if self._options.header is not None:
            return self._options.header
        if self._asked.names:
            return all(header.index_of(name, row) is not None for name in self._asked.names)
        if not header.named_like_columns(row):
            return False
        later = (text for block in self._blocks.ahead(_EVIDENCE_LINES) for text in block.lines)
        rows = (
            split_fields(text, tabs) for text in chain(below, later) if not text.startswith(("#", _DOCSTART))
        )
        verdict = header.judge(row, rows)
        if verdict is header.Verdict.UNCLEAR:
            raise CorpusError(
                f"cannot tell whether {' '.join(row)[:60]!r} names the columns or is a word: give {_CHOOSE_HEADER}",
                path=self._options.path,
                line=line,
            )
        return verdict is header.Verdict.HEADER


def _has_nodes(ids: Sequence[str]) -> bool:
    return all(map(is_id, ids)) and any("." in text for text in ids)
