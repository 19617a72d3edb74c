"""Column files (CoNLL-2003 and its relatives): one word per line, sentences apart by blank lines.

What a line is, is decided by the rows around it, never by its count of fields alone:

- **Separator**: tabs if the first row of words has one, else runs of spaces. ASCII blanks at the edges of a
  field do not belong to it; others, such as a no-break space, do. A token of nothing else is refused, or
  its row is skipped and counted where the caller says so.
- **Columns**: a row needs the columns asked for. With tabs, rows may have more or fewer. With spaces, which a
  token may hold too, all rows of a sentence have as many; sentences may differ from each other where that is
  not a token in two pieces (five columns and more: CoNLL-2005 and 2012 have a column per predicate).
- **Names**: ``# global.columns = ID FORM ...`` (CoNLL-U Plus) or a header row name the columns;
  :mod:`~featurestore.corpora.columns.header` tells a header from words. The words then stand in the column
  FORM, TOKEN or WORD; without names in the first.
- **Word numbers**: a column left of the words that numbers them in all rows of a sentence shows which rows
  are ranges and empty nodes, and these are skipped: :mod:`~featurestore.corpora.columns.numbering`. If
  nothing says which column holds the words and the first one numbers them, the file is refused.
- **Comments**: :mod:`~featurestore.corpora.columns.comments` tells them from words that begin with ``#``.
  Behind the first word of a sentence only ``# name = value`` without a tab is one, in a file of tabs.
- **Sentences** end at blank lines; in a file whose header names a column MISC also at its flag
  ``EndOfSentence`` (HIPE, where blank lines are between documents), and where the caller says so
  (:mod:`~featurestore.corpora.contract.boundaries`).
- **Documents**: :mod:`~featurestore.corpora.columns.preamble` knows their marks, which end sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

from featurestore.corpora.columns import comments
from featurestore.corpora.columns.blocks import Blocks
from featurestore.corpora.columns.fields import (
    Column,
    checked_words,
    columns_of_rows,
    of_words,
    regular_columns,
    stripped,
)
from featurestore.corpora.columns.layout import ColumnsAsked, Layout
from featurestore.corpora.columns.numbering import is_garbled, is_id, is_plain, names_rows, word_rows
from featurestore.corpora.columns.preamble import DOCSTART, Preamble
from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import SKIP, SKIP_ADVICE, Reader, ReadOptions, refuse_tokenize
from featurestore.errors import CorpusError, LabelError

_MANY_COLUMNS = 5
_END = "EndOfSentence"
_FIRST_ID = re.compile(r"[01]|[0-9]+[-.]1")


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
    return lambda lines: _examples(asked, options, lines)


def _examples(asked: ColumnsAsked, options: ReadOptions, lines: Iterable[str]) -> Iterator[Example]:
    blocks = Blocks(lines, options.path)
    preamble = Preamble(asked, options, blocks)
    sentences: _Sentences | None = None
    for line, rows in blocks:
        begins = rows[0]
        if sentences is None or begins[0] == "#" or begins == preamble.header_line:
            line, rows = preamble.skip(line, rows)
            if not rows:
                continue
        if sentences is None:
            if preamble.layout is None:
                continue
            sentences = _Sentences(preamble, preamble.layout, options)
        columns = sentences.usual_columns(rows)
        if columns is not None:
            yield from sentences.examples(columns, range(line, line + len(rows)))
            continue
        for numbers, columns in sentences.unusual_columns(line, rows):
            yield from sentences.examples(columns, numbers)
    if sentences is None:
        return
    options.skipped(sentences.n_skipped, sentences.first_skipped, "rows without a token")
    if sentences.layout.labels is not None:
        sentences.layout.labels.require_found()


class _Sentences:
    """Makes sentences of blocks of rows, in one pass over a file.

    Attributes
    ----------
    layout : Layout
    n_skipped, first_skipped : int
        Rows without a token that were skipped, and the line of the first.
    """

    def __init__(self, preamble: Preamble, layout: Layout, options: ReadOptions) -> None:
        self.layout = layout
        self.n_skipped = self.first_skipped = 0
        self._preamble, self._options = preamble, options
        self._widths: set[int] = set()
        self._first_may_number = layout.token_is_guessed

    def examples(self, columns: list[Column], numbers: Sequence[int]) -> Iterable[Example]:
        """Return the sentence of these rows, whose line numbers are given, or the sentences if it is parted.

        There is none where no row is a word.
        """
        layout, options, path = self.layout, self._options, self._options.path
        if layout.word_ids:
            words = self._word_rows(columns, numbers)
            if words is not None:
                numbers = list(compress(numbers, words))
                if not numbers:
                    return ()
                columns = of_words(columns, words)
        wanted = layout.labels
        tokens, is_full, labels_are_clean = checked_words(
            columns[layout.token], () if wanted is None else wanted.column(columns)
        )
        if not is_full:
            if options.empty_token != SKIP:
                raise CorpusError(
                    "the token column is empty: a word needs a character that is not a blank; delete the "
                    f"row, or {SKIP_ADVICE}",
                    path=path,
                    line=numbers[tokens.index("")],
                )
            columns, numbers = self._without_empty(tokens, columns, numbers)
            if not numbers:
                return ()
            tokens = tuple(filter(None, tokens))
        if not layout.tabs and "\t" in "".join(tokens):
            at = next(i for i, token in enumerate(tokens) if "\t" in token)
            raise CorpusError(
                f"expected {layout.n_columns} columns separated by spaces (as {layout.source}), found a tab "
                f"in the token {tokens[at]!r}",
                path=path,
                line=numbers[at],
            )
        if self._first_may_number:
            self._refuse_word_numbers(columns, numbers)
        labels = None if wanted is None else wanted.of(columns, numbers, is_clean=labels_are_clean)
        self._preamble.add_ends(columns[-1])
        example = Example(tokens, labels, path, numbers[0], "", self._preamble.document)
        return (example,) if options.boundaries is None else options.boundaries.parts(example, numbers)

    def _without_empty(
        self, tokens: Column, columns: list[Column], numbers: Sequence[int]
    ) -> tuple[list[Column], Sequence[int]]:
        """Return the rows that have a token, and count the others."""
        self.n_skipped += tokens.count("")
        self.first_skipped = self.first_skipped or numbers[tokens.index("")]
        is_word = list(map(bool, tokens))
        return of_words(columns, is_word), list(compress(numbers, is_word))

    # --- rows ---

    def usual_columns(self, lines: list[str]) -> list[Column] | None:
        """Return the columns of rows like the file's first; None for rows that need a closer look."""
        columns = regular_columns(lines, self.layout.tabs, self.layout.n_columns)
        if columns is not None and DOCSTART in "".join(columns[0]):
            return None if any(map(self._preamble.ends_sentence, lines)) else columns
        if columns is not None and self.layout.flags is not None:
            return None if _END in "|".join(columns[self.layout.flags]) else columns
        return columns

    def unusual_columns(self, line: int, lines: list[str]) -> Iterator[tuple[list[int], list[Column]]]:
        """Yield the line numbers and the columns of each sentence of a block that marks of documents part."""
        while lines:
            ends = (i for i, text in enumerate(lines) if self._preamble.ends_sentence(text))
            end = next(ends, len(lines))
            numbers, rows = [], []
            for number, text in enumerate(lines[:end], line):
                if self._is_comment_between_words(text):
                    continue
                row = self.layout.split(text)
                numbers.append(number)
                rows.append(row)
                if self._has_end_flag(row):
                    self._check_widths(rows, numbers)
                    yield numbers, columns_of_rows(rows)
                    numbers, rows = [], []
            if rows:
                self._check_widths(rows, numbers)
                yield numbers, columns_of_rows(rows)
            line, lines = self._preamble.skip(line + end, lines[end:])

    def _has_end_flag(self, row: list[str]) -> bool:
        flags = self.layout.flags
        return flags is not None and flags < len(row) and _END in row[flags].split("|")

    def _is_comment_between_words(self, text: str) -> bool:
        return (
            text[0] == "#"
            and self.layout.tabs
            and "\t" not in text
            and self._options.comments is not False
            and comments.CONVENTION.match(text) is not None
        )

    def _check_widths(self, rows: list[list[str]], numbers: list[int]) -> None:
        """Refuse rows that lack the columns asked for, or in which fields may have moved."""
        layout, widths = self.layout, list(map(len, rows))
        for at, width in enumerate(widths):
            if width < layout.least:
                raise self._bad_width(rows[at], numbers[at], layout.n_columns, layout.source)
        if layout.tabs:
            if layout.label_is_last and len(set(widths)) > 1:
                at = next(i for i, width in enumerate(widths) if width != widths[0])
                raise LabelError(
                    f"the row has {widths[at]} columns, the one on line {numbers[0]} {widths[0]}, so that "
                    "the last column, asked for as label, is not the same: give its number",
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
            is_alone = len(rows) == 1 and not self._preamble.has_documents
            if is_alone or layout.n_columns < _MANY_COLUMNS:
                raise self._bad_width(rows[0], numbers[0], layout.n_columns, layout.source)
            self._widths.add(width)

    def _bad_width(self, row: list[str], line: int, expected: int, source: str) -> CorpusError:
        text = ("\t" if self.layout.tabs else " ").join(row)[:60]
        hint = "" if self.layout.tabs else "; where tokens hold spaces, separate the columns by tabs"
        return CorpusError(
            f"expected {expected} columns (as {source}), found {len(row)}: {text!r}{hint}",
            path=self._options.path,
            line=line,
        )

    # --- word numbers ---

    def _word_rows(self, columns: list[Column], numbers: Sequence[int]) -> list[bool] | None:
        """Return which rows are words, by the column that numbers them; None if all are."""
        layout = self.layout
        for index in layout.word_ids:
            if index >= len(columns) or (index == layout.token and not layout.named_by_comment):
                continue
            ids = columns[index]
            if is_plain(ids):
                self._preamble.numbered = index
                return None
            ids = stripped(ids)
            words = word_rows(ids)
            if words is not None:
                self._preamble.numbered = index
                return None if all(words) else words
            is_numbered = index == self._preamble.numbered and _has_nodes(ids)
            if layout.named_by_comment or is_numbered or is_garbled(ids):
                shown = " ".join(ids[:8]) + (" ..." if len(ids) > 8 else "")
                raise CorpusError(
                    f"column {index + 1} numbers the words, but does not count them ({shown}): is a blank "
                    "line missing?",
                    path=self._options.path,
                    line=numbers[0],
                )
        return None

    def _refuse_word_numbers(self, columns: list[Column], numbers: Sequence[int]) -> None:
        """Refuse a file whose first column numbers the words, by its first sentence of several words."""
        ids = columns[0]
        words = word_rows(ids)
        found = [] if words is None else list(compress(ids, words))
        if not found or not _FIRST_ID.fullmatch(found[0]):
            self._first_may_number = False
            if len(ids) == 1 or not names_rows(ids, columns[1:]):
                return
            found = list(ids)
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


def _has_nodes(ids: Sequence[str]) -> bool:
    return all(map(is_id, ids)) and any("." in text for text in ids)
