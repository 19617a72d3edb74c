"""What stands before the first word of a sentence in a column file: comments, marks of documents, a header.

A ``-DOCSTART-`` row (CoNLL-2003) and ``#begin document`` (CoNLL-2012) end a sentence and are skipped; in a
file with ``# global.columns``, ``-DOCSTART-`` is a word. A line of nothing but characters that nobody
sees, such as a zero-width space, ends a sentence where there are several columns. The first row of words
gives the layout of the file.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

from featurestore.corpora.columns import comments, header
from featurestore.corpora.columns.blocks import Blocks
from featurestore.corpora.columns.fields import Column, split_fields
from featurestore.corpora.columns.layout import ColumnsAsked, Layout
from featurestore.corpora.columns.numbering import is_id, is_plain, word_rows
from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.errors import CorpusError

DOCSTART = "-DOCSTART-"
_INVISIBLE = WHITESPACE + "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_QUOTED = re.compile(r'"[^"]+"')
_QUOTED_ROWS = 20
_MAX_HEAD_LINES = 10_000
_EVIDENCE_LINES = 1000
_EVIDENCE_SENTENCES = 2000


class Preamble:
    """Finds where the words of a block begin.

    Parameters
    ----------
    asked : ColumnsAsked
    options : ReadOptions
    blocks : Blocks
        Of the file; those ahead are evidence of what a line is.

    Attributes
    ----------
    layout : Layout or None
        None before the first row of words.
    header_line : str
        The header row, "" without one. It may come again where files were joined.
    has_documents : bool
        Whether the file has comments of CoNLL-2012.
    numbered : int or None
        The column that numbers the words in a sentence read so far.
    document : str
        The document of the next sentence: its name or its number; "" before the first mark of one.
    """

    def __init__(self, asked: ColumnsAsked, options: ReadOptions, blocks: Blocks) -> None:
        self.layout: Layout | None = None
        self.header_line = ""
        self.has_documents = False
        self.numbered: int | None = None
        self.document, self._n_documents = "", 0
        self._asked, self._options, self._blocks = asked, options, blocks
        self._names: list[str] = []
        self._recent_ends: deque[Column] = deque(maxlen=_EVIDENCE_SENTENCES)

    def add_ends(self, column: Column) -> None:
        """Take in the last fields of a sentence, which tell words that begin with ``#`` from comments."""
        self._recent_ends.append(column)

    def skip(self, line: int, lines: list[str]) -> tuple[int, list[str]]:
        """Return the rest of a block from its first row of words on, and the line this stands on.

        Raises
        ------
        CorpusError
            If a line may be several things, naming the option that chooses; if the file's first lines hold no
            word, or not the columns asked for.
        """
        at = 0
        reference: str | None = None
        while at < len(lines):
            text = lines[at]
            if text[0] == "#":
                if reference is None:
                    reference = next(self._rows(lines[at:]), "")
                if not self._is_comment(text, line + at, lines[at + 1 :], reference):
                    self._require_layout(lines, at, line)
                    break
                if names := comments.GLOBAL_COLUMNS.match(text):
                    self._names = names[1].split()
                self.has_documents = self.has_documents or comments.DOCUMENT.match(text) is not None
                if "doc" in text and (name := comments.new_document(text)) is not None:
                    self._begin_document(name)
            elif not self.ends_sentence(text) and text != self.header_line:
                self._require_layout(lines, at, line)
                if text != self.header_line:
                    break
            elif text.startswith(DOCSTART):
                self._begin_document("")
            at += 1
            if at > _MAX_HEAD_LINES and self.layout is None:
                raise CorpusError(
                    f"the first {_MAX_HEAD_LINES:,} lines hold no token line, only comments and blank lines: "
                    "is this a column file?",
                    path=self._options.path,
                )
        return line + at, lines[at:]

    def _begin_document(self, name: str) -> None:
        self._n_documents += 1
        self.document = name or str(self._n_documents)

    def ends_sentence(self, text: str) -> bool:
        """Return whether a line marks the begin or the end of a document, or shows nothing at all."""
        if text[0] == "-":
            return text.startswith(DOCSTART) and not self._names
        if text[0] == "#":
            return self._options.comments is not False and comments.DOCUMENT.match(text) is not None
        return text[0] in _INVISIBLE and not text.strip(_INVISIBLE) and self._has_columns()

    def _rows(self, lines: list[str]) -> Iterator[str]:
        """Yield those of these lines, and of the blocks ahead, that are surely no comments."""
        for text in chain(lines, *(block.lines for block in self._blocks.ahead(_EVIDENCE_LINES))):
            if text[0] != "#" and not self.ends_sentence(text):
                yield text

    def _has_columns(self) -> bool:
        return self.layout is None or self.layout.n_columns > 1

    # --- comments ---

    def _is_comment(self, text: str, line: int, below: list[str], reference: str) -> bool:
        """Tell whether a line that begins with ``#`` before the first word of its sentence is a comment.

        ``below`` are the lines behind it, ``reference`` is the first row of words among these, or "".
        """
        if self._options.comments is not None:
            return self._options.comments
        if self._names and len(text.split("\t")) == len(self._names) and self._word_id() is None:
            return False
        if comments.CONVENTION.match(text) or comments.GLOBAL_COLUMNS.match(text):
            return True
        if self.layout is not None:
            tabs, n_columns = self.layout.tabs, self.layout.n_columns
        elif reference:
            tabs, n_columns = "\t" in reference, 0
        else:
            return True
        if reference:
            n_columns = len(split_fields(reference, tabs))
        fields = split_fields(text, tabs)
        if self._lacks_word_number(fields, [split_fields(row, tabs) for row in below]):
            return True
        is_known = any(fields[-1] in ends for ends in self._recent_ends)
        is_known = is_known or any(split_fields(row, tabs)[-1] == fields[-1] for row in self._rows(below))
        verdict = comments.judge(fields, n_columns, tabs=tabs, is_known=is_known)
        if verdict is comments.Verdict.UNCLEAR:
            raise CorpusError(
                f"cannot tell whether {text[:60]!r} is a comment or a word: give --comments if it is a "
                "comment, --no-comments if it is a word (in Python comments=True or False)",
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
            # Not known yet which column holds the words, and a single number may be one.
            ids = [row[0] for row in rows]
            return len(ids) > 1 and not is_id(fields[0]) and is_plain(tuple(ids))
        named = self._word_id()
        if named is not None:
            return named >= len(fields) or not is_id(fields[named])
        for index in reversed(range(token if isinstance(token, int) else 0)):
            if index < len(fields) and is_id(fields[index]):
                continue
            ids = [row[index] for row in rows if index < len(row)]
            if self.numbered == index or (len(ids) == len(rows) > 0 and word_rows(ids) is not None):
                return True
        return False

    def _word_id(self) -> int | None:
        return header.index_of("ID", self._names)

    # --- the first row ---

    def _require_layout(self, lines: list[str], at: int, line: int) -> None:
        """Derive the layout from the first row of the file, which may be a header, unless it is known."""
        if self.layout is not None:
            return
        tabs = "\t" in lines[at]
        row = [field.strip(WHITESPACE) for field in split_fields(lines[at], tabs)]
        if tabs and all(map(_QUOTED.fullmatch, row)):
            self._refuse_quotes(lines[at + 1 :], line + at)
        names, named_by_comment = self._names, bool(self._names)
        is_header = self._options.header
        if is_header is None:
            is_header = not named_by_comment and self._is_header(row, lines[at + 1 :], tabs, line + at)
        if is_header:
            self.header_line = lines[at]
            names = names or row
        self.layout = self._asked.layout(
            row, line + at, tabs=tabs, names=names, named_by_comment=named_by_comment
        )

    def _refuse_quotes(self, below: list[str], line: int) -> None:
        """Refuse a file all of whose fields stand between quote marks, as those of a table may."""
        rows = [split_fields(text, True) for text in islice(self._rows(below), _QUOTED_ROWS)]
        if len(rows[0] if rows else ()) > 1 and all(map(_QUOTED.fullmatch, chain.from_iterable(rows))):
            raise CorpusError(
                "all fields stand between quote marks, which would be part of the words: write the file "
                "without them (pandas: to_csv(..., quoting=csv.QUOTE_NONE))",
                path=self._options.path,
                line=line,
            )

    def _is_header(self, row: list[str], below: list[str], tabs: bool, line: int) -> bool:
        if self._asked.names:
            return all(header.index_of(name, row) is not None for name in self._asked.names)
        verdict = header.judge(row, (split_fields(text, tabs) for text in self._rows(below)))
        if verdict is header.Verdict.WORD and not header.named_like_columns(row) and row[0][:1] != "#":
            label = self._asked.label if isinstance(self._asked.label, int) else -1
            later = [
                [field.strip(WHITESPACE) for field in split_fields(text, tabs)] for text in self._rows(below)
            ]
            if header.is_unlike(row, later, label):
                verdict = header.Verdict.UNCLEAR
        if verdict is header.Verdict.UNCLEAR:
            raise CorpusError(
                f"cannot tell whether {' '.join(row)[:60]!r} names the columns or is a word: give --header "
                "if it names them, --no-header if it is a word (in Python header=True or False)",
                path=self._options.path,
                line=line,
            )
        return verdict is header.Verdict.HEADER
