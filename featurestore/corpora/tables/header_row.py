"""Evidence that the first row of a table names its columns, or holds data.

Only asked where columns are wanted by number: a name that stands in the first row makes it a header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from featurestore.errors import CorpusError

_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d+)*|\.\d+)(?:[eE][-+]?\d+)?%?")
_NAMES = frozenset([
    "text", "texts", "sentence", "sentences", "sentence1", "sentence2", "tokens", "words", "word", "token",
    "review", "reviews", "comment", "comments", "content", "body", "tweet", "tweets", "utterance", "question",
    "title", "document", "doc", "headline", "abstract", "message", "phrase", "query", "label", "labels",
    "class", "classes", "category", "categories", "target", "targets", "tag", "tags", "sentiment", "polarity",
    "stars", "score", "scores", "rating", "intent", "emotion", "topic", "y", "id", "ids", "idx", "index",
    "key", "uid", "guid", "name", "lang", "language", "split", "source",
])  # fmt: skip
"""What headers call their columns, in lower case."""

_SENTENCE_END = re.compile(r"\s[^\s].*[.!?…][\"'”’)]*\s*\Z", re.DOTALL)
_LEAST_WORDS = 6
_LEAST_ROWS_OF_LABELS = 50
_SHOWN = 30


def is_header(
    first: Sequence[str], below: Sequence[Sequence[str]], label: int, *, path: str, line: int
) -> bool:
    """Return whether the first row names the columns.

    Parameters
    ----------
    first : sequence of str
        The first row.
    below : sequence of sequences of str
        Rows below it.
    label : int
        The column of the label, from 0; -1 for none.
    path, line : str, int
        Where the first row is, for messages.

    Raises
    ------
    CorpusError
        If that cannot be told: nothing speaks for either, or something for both.
    """
    rows = [row for row in below if len(row) == len(first) and list(row) != list(first)]
    names, data = list(_of_names(first, rows, label)), list(_of_data(first, rows))
    if bool(names) != bool(data):
        return bool(names)
    shown = ", ".join(repr(field[:_SHOWN]) for field in first[:6]) + (", ..." if len(first) > 6 else "")
    found = f": {names[0]}, but {data[0]}" if names else ""
    raise CorpusError(
        f"cannot tell whether the first row ({shown}) names the columns or is data{found}: give --header or "
        "--no-header (in Python header=True or False)",
        path=path,
        line=line,
    )


def _of_names(first: Sequence[str], rows: Sequence[Sequence[str]], label: int) -> Iterator[str]:
    """Yield what speaks for names."""
    for number, field in enumerate(first, 1):
        if field.strip().lower() in _NAMES:
            yield f"{field!r} is a usual name of a column"
        column = [row[number - 1] for row in rows if row[number - 1]]
        if field and column and not _is_number(field) and all(map(_is_number, column)):
            yield f"column {number} holds numbers below the first row"
    if _is_numbered(first) and any(not _is_number(field) for row in rows for field in row):
        yield "its fields number the columns"
    if 0 <= label < len(first) and len(rows) >= _LEAST_ROWS_OF_LABELS:
        counts = Counter(row[label] for row in rows)
        if min(counts.values()) > 1 and first[label] not in counts:
            yield f"{first[label][:_SHOWN]!r} is the only label that does not occur again"


def _of_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield what speaks for data."""
    for number, field in enumerate(first, 1):
        column = [row[number - 1] for row in rows]
        if _is_number(field) and column and all(_is_number(other) for other in column if other):
            yield f"column {number} holds numbers, in the first row too"
        if field.strip() and field in column:
            yield f"{field[:_SHOWN]!r} occurs again in column {number}"
        if len(field.split()) >= _LEAST_WORDS or _SENTENCE_END.search(field):
            yield f"column {number} holds a sentence"


def _is_number(field: str) -> bool:
    return _NUMBER.fullmatch(field.strip()) is not None


def _is_numbered(first: Sequence[str]) -> bool:
    """Return whether the fields are 0, 1, 2, ..., as pandas names columns that have no names."""
    fields = list(first[1:] if first and not first[0] else first)
    return bool(fields) and fields == [str(number) for number in range(len(fields))]
