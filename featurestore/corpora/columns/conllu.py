"""CoNLL-U, the format of Universal Dependencies: ten tab-separated columns, one word per line.

Comment lines, multiword ranges (``1-2``) and empty nodes (``8.1``) are skipped. Labels come from a column,
or from one key of FEATS or MISC (``feats.Number``, ``misc.NER``). More columns may follow the ten; a
``# global.columns`` line (CoNLL-U Plus) names them, or other columns altogether.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

from featurestore.corpora.columns import header
from featurestore.corpora.columns.blocks import Blocks
from featurestore.corpora.columns.comments import GLOBAL_COLUMNS, new_document
from featurestore.corpora.columns.fields import checked_words, columns_of_rows, first_columns, of_words
from featurestore.corpora.columns.labels import NEVER_EMPTY, WordLabels, parted
from featurestore.corpora.columns.numbering import RANGE_OR_NODE, counted
from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import (
    SKIP,
    SKIP_ADVICE,
    Reader,
    ReadOptions,
    parse_column,
    refuse_tokenize,
)
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.errors import CorpusError, UsageError

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


def conllu_reader(options: ReadOptions) -> Reader:
    """Return a reader of CoNLL-U.

    ``text_column`` is a column's name or 1-based number (default ``form``). ``label`` is the same, or
    ``feats.KEY`` or ``misc.KEY``. A word without the FEATS key has the label ``_``, since most features do
    not apply to most words; a word without the MISC key has none.

    Raises
    ------
    UsageError
        If a column number is not positive, or the options ask to tokenise; when the file is read, if they
        name no column of it.
    """
    refuse_tokenize(options, "CoNLL-U")
    for what, column in (("text column", options.text_column), ("label", options.label)):
        if column is not None:
            parse_column(column, what)
    return lambda lines: _Pass(options, lines).examples()


class _Pass:
    """One pass over a file."""

    def __init__(self, options: ReadOptions, lines: Iterable[str]) -> None:
        self._options = options
        self._blocks = Blocks(lines, options.path)
        self._names: tuple[str, ...] = COLUMNS
        self._n_columns, self._n_kept, self._id, self._form = len(COLUMNS), len(COLUMNS), 0, 1
        self._labels: WordLabels | None = None

    def examples(self) -> Iterator[Example]:
        is_begun, path = False, self._options.path
        n_skipped = first_skipped = 0
        document, n_documents = "", 0
        for line, lines in self._blocks:
            at = 0
            for text in lines:
                if text[0] != "#":
                    break
                at += 1
                if not is_begun and (names := GLOBAL_COLUMNS.match(text)):
                    self._names = tuple(names[1].split())
                if "doc" in text and (name := new_document(text)) is not None:
                    n_documents += 1
                    document = name or str(n_documents)
            lines = lines[at:]
            if not lines:
                continue
            if not is_begun:
                self._begin(lines[0].count("\t") + 1, line + at)
                is_begun = True
            numbers: Sequence[int] = range(line + at, line + at + len(lines))
            columns = first_columns(lines, self._n_kept, self._n_columns)
            if columns is not None and columns[self._id] != counted(len(lines)):
                # Ranges and empty nodes, most likely.
                words = [RANGE_OR_NODE.fullmatch(word_id) is None for word_id in columns[self._id]]
                columns, numbers = of_words(columns, words), list(compress(numbers, words))
                if not numbers:
                    continue
            if columns is None or columns[self._id] != counted(len(numbers)):
                numbers, rows = self._words(range(line + at, line + at + len(lines)), lines)
                if not rows:
                    continue
                columns = columns_of_rows(rows)
            tokens, is_full, labels_are_clean = checked_words(
                columns[self._form], () if self._labels is None else self._labels.column(columns)
            )
            if not is_full:
                if self._options.empty_token != SKIP:
                    raise CorpusError(
                        f"the {self._names[self._form].upper()} column is empty: a word needs at least one "
                        f"character; {SKIP_ADVICE}",
                        path=path,
                        line=numbers[tokens.index("")],
                    )
                n_skipped += tokens.count("")
                first_skipped = first_skipped or numbers[tokens.index("")]
                is_word = list(map(bool, tokens))
                columns, numbers = of_words(columns, is_word), list(compress(numbers, is_word))
                tokens = tuple(filter(None, tokens))
                if not tokens:
                    continue
            labels = None
            if self._labels is not None:
                labels = self._labels.of(columns, numbers, is_clean=labels_are_clean)
            yield Example(tokens, labels, path, numbers[0], "", document)
        self._options.skipped(n_skipped, first_skipped, "words without a form")
        if self._labels is not None and is_begun:
            self._labels.require_found()

    def _begin(self, n_columns: int, line: int) -> None:
        """Find the columns asked for, once the first row shows how many there are."""
        options, names = self._options, self._names
        word_id, form = header.index_of("id", names), header.index_of("form", names)
        if word_id is None or form is None:
            raise CorpusError(
                f"the '# global.columns' line names no column ID or FORM ({' '.join(names)}): give the "
                "format conll",
                path=options.path,
                line=line,
            )
        self._n_columns, self._id, self._form = max(n_columns, len(names)), word_id, form
        if n_columns > len(names) > 9:
            names += tuple(f"column {number}" for number in range(len(names) + 1, n_columns + 1))
        if options.text_column is not None:
            self._form = self._column(options.text_column, "text column", names)
        # What lies behind the columns asked for need not be split.
        self._n_kept = min(max(self._id, self._form) + 1, self._n_columns - 1)
        if options.label is None:
            return
        name, key = parted(options.label)
        if header.index_of(options.label, names) is not None:
            name, key = options.label, ""
        column = self._column(name, "label", names)
        self._n_kept = min(max(self._n_kept, column + 1), self._n_columns - 1)
        needed = not key and names[column].lower() in NEVER_EMPTY
        self._labels = WordLabels(options, column, key, names, needed=needed)

    def _column(self, text: str, what: str, names: Sequence[str]) -> int:
        column = parse_column(text, what)
        index = header.index_of(column, names) if isinstance(column, str) else column
        if index is None or index >= len(names):
            raise UsageError(
                f"{self._options.path}: {what} {text!r} is no CoNLL-U column: give 1 to {len(names)}, one of "
                f"{', '.join(names)}, or for labels feats.KEY or misc.KEY"
            )
        return index

    def _words(self, numbers: Sequence[int], sentence: list[str]) -> tuple[list[int], list[list[str]]]:
        """Return the rows that are words, and their lines, of a sentence that may hold others."""
        words: list[list[str]] = []
        lines: list[int] = []
        for number, text in zip(numbers, sentence, strict=True):
            if text[0] == "#":
                continue
            row = text.split("\t")
            if len(row) < len(self._names):
                raise self._bad_line(row, number)
            found = row[self._id].strip(WHITESPACE)
            if found != str(len(words) + 1):
                if RANGE_OR_NODE.fullmatch(found):
                    continue
                raise self._bad_id(found, len(words) + 1, number)
            words.append(row)
            lines.append(number)
        return lines, words

    def _bad_line(self, row: list[str], line: int) -> CorpusError:
        hint = " (is it separated by spaces?)" if len(row) == 1 else ""
        return CorpusError(
            f"expected the {len(self._names)} tab-separated columns of CoNLL-U, found {len(row)}{hint}: "
            "for other column files give the format conll",
            path=self._options.path,
            line=line,
        )

    def _bad_id(self, found: str, expected: int, line: int) -> CorpusError:
        hint = "is a blank line missing?" if found == "1" else "a sentence's words are numbered 1, 2, 3, ..."
        message = f"expected word number {expected}, found {found!r}: {hint}"
        return CorpusError(message, path=self._options.path, line=line)
