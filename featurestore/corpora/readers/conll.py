"""Column files (CoNLL-2003 and its relatives): one token per line, sentences apart by blank lines.

- Columns are separated by tabs if the first token line has one, else by runs of spaces. Every token line
  has as many columns as the first.
- A line of nothing but whitespace is blank. A ``-DOCSTART-`` line is skipped and ends a sentence.
- A line that starts with ``#`` is a comment only before the first token of a sentence, and only if it does
  not have the file's number of columns or reads ``# name = value``; otherwise ``#`` is a token.
- The token column is the first, unless that numbers the words of the first sentences, as in CoNLL-X.
- ``# global.columns = ID FORM ...`` (CoNLL-U Plus) names the columns. The token column is then FORM, and
  where there is an ID column, multiword ranges and empty nodes are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from featurestore.corpora.example import Example
from featurestore.corpora.options import Reader, ReadOptions, parse_column, refuse_tokenize
from featurestore.corpora.readers.conllu import SKIPPED_ID
from featurestore.corpora.readers.text import WHITESPACE
from featurestore.errors import CorpusError, LabelError

_LAST = "last"
_DOCSTART = "-DOCSTART-"
_MAX_HEAD_LINES = 10_000
_GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=(.*)")
_NAME_VALUE = re.compile(r"# +[A-Za-z][\w.:-]* += ")


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the first lines of a file tell about the others."""

    separator: str | None
    n_columns: int
    token: int
    token_is_guessed: bool
    label: int | None
    word_id: int | None
    source: str

    def split(self, line: str) -> list[str]:
        return line.split("\t") if self.separator == "\t" else _split_spaces(line)

    def is_comment(self, line: str, fields: list[str]) -> bool:
        return line.startswith("#") and (len(fields) != self.n_columns or _NAME_VALUE.match(line) is not None)


def conll_reader(options: ReadOptions) -> Reader:
    """Return a reader of column files.

    ``text_column`` (default the first, or FORM) and ``label`` are 1-based numbers or names given by a
    ``# global.columns`` line; ``label`` may also be ``last``.

    Raises
    ------
    UsageError
        If a column number is not positive, or tokenisation is asked for.
    """
    refuse_tokenize(options, "CoNLL")
    token = None if options.text_column is None else parse_column(options.text_column, "text column")
    label = None if options.label is None else parse_column(options.label, "label")

    def read(lines: Iterable[str]) -> Iterator[Example]:
        numbered = iter(enumerate(lines, 1))
        head, layout = _read_head(numbered, options.path, token, label)
        if layout is None:
            return iter(())
        examples = _examples(chain(head, numbered), layout, options)
        return _refuse_word_numbers(examples, options.path) if layout.token_is_guessed else examples

    return read


def _examples(lines: Iterable[tuple[int, str]], layout: _Layout, options: ReadOptions) -> Iterator[Example]:
    tokens: list[str] = []
    labels: list[str] = []
    start = 0
    for number, line in lines:
        fields = layout.split(line)
        if not line.strip(WHITESPACE) or fields[0].startswith(_DOCSTART):
            if tokens:
                yield _example(tokens, labels, options, start)
                tokens, labels = [], []
            continue
        if not tokens and layout.is_comment(line, fields):
            continue
        if len(fields) != layout.n_columns:
            raise CorpusError(
                f"expected {layout.n_columns} columns (as {layout.source}), found {len(fields)}: "
                f"{line[:60]!r}",
                path=options.path,
                line=number,
            )
        if layout.word_id is not None and not fields[layout.word_id].isdigit():
            continue
        if not fields[layout.token]:
            raise CorpusError("the token column is empty", path=options.path, line=number)
        start = start if tokens else number
        tokens.append(fields[layout.token])
        if layout.label is not None:
            if not fields[layout.label]:
                raise LabelError(
                    f"column {layout.label + 1}, asked for as label, is empty (the line is {fields})",
                    path=options.path,
                    line=number,
                )
            labels.append(fields[layout.label])
    if tokens:
        yield _example(tokens, labels, options, start)


def _refuse_word_numbers(examples: Iterator[Example], path: str) -> Iterator[Example]:
    """Yield the examples, unless the first ones hold the numbers of words, with one of several words."""
    for example in examples:
        words = [token for token in example.tokens if not SKIPPED_ID.fullmatch(token)]
        if words != [str(number) for number in range(1, len(words) + 1)]:
            yield example
            break
        if len(words) > 1:
            raise CorpusError(
                f"the first column numbers the words ({' '.join(words[:3])} ...): say which one holds them, "
                "--text-column 2 (in Python text_column=2), or 1 if the text is numbers; or read CoNLL-U as "
                "that, --format conllu",
                path=path,
                line=example.line,
            )
        yield example
    yield from examples


def _example(tokens: list[str], labels: list[str], options: ReadOptions, line: int) -> Example:
    return Example(tuple(tokens), None if options.label is None else tuple(labels), options.path, line)


def _split_spaces(line: str) -> list[str]:
    fields = line.split(" ")
    return [field for field in fields if field] if "" in fields else fields


def _read_head(
    numbered: Iterator[tuple[int, str]], path: str, token: int | str | None, label: int | str | None
) -> tuple[list[tuple[int, str]], _Layout | None]:
    """Read up to the first line that is surely a token line; return what was read and the layout it gives."""
    head: list[tuple[int, str]] = []
    names: list[str] = []
    for number, line in numbered:
        head.append((number, line))
        if match := _GLOBAL_COLUMNS.match(line):
            names = match[1].split()
        elif line.strip(WHITESPACE) and not line.startswith(("#", _DOCSTART)):
            return head, _layout(line, number, names, path, token, label)
        if len(head) > _MAX_HEAD_LINES:
            raise CorpusError(
                f"the first {_MAX_HEAD_LINES:,} lines hold no token line, only comments and blank lines: "
                "is this a column file?",
                path=path,
            )
    return head, None


def _layout(
    line: str, number: int, names: list[str], path: str, token: int | str | None, label: int | str | None
) -> _Layout:
    """Derive the layout from the first token line and the names of the columns, if there are any."""
    separator = "\t" if "\t" in line else None
    n_columns = len(line.split("\t") if separator else _split_spaces(line))
    source = f"on line {number}"
    if names:
        n_columns, source = len(names), f"the '# global.columns' line names: {' '.join(names)}"

    def index(column: int | str, what: str) -> int:
        if column == _LAST and what == "label":
            return n_columns - 1
        if isinstance(column, int) and column < n_columns:
            return column
        if isinstance(column, str) and column in names:
            return names.index(column)
        asked = f"number {column + 1}" if isinstance(column, int) else repr(column)
        if names:
            known = f"the file has {', '.join(names)}"
        else:
            known = f"the file has {n_columns} without names: give a number from 1 to {n_columns}"
        message = f"no column {asked}, asked for as {what}: {known}"
        raise (LabelError if what == "label" else CorpusError)(message, path=path, line=number)

    default = names.index("FORM") if "FORM" in names else 0
    return _Layout(
        separator=separator,
        n_columns=n_columns,
        token=default if token is None else index(token, "text column"),
        token_is_guessed=token is None and n_columns > 1 and "FORM" not in names,
        label=None if label is None else index(label, "label"),
        word_id=names.index("ID") if "ID" in names else None,
        source=source,
    )
