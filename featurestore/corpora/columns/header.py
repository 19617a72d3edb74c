"""Header rows of column files: a first row that names the columns, told from a row of words by its values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from featurestore.corpora.columns.numbering import is_id

TOKEN_NAMES = ("form", "token", "tokens", "word", "words", "text", "tok")
"""Names of the column of words, the likeliest first."""

_ID_NAMES = {"id", "ids", "#", "token_id", "word_id", "index", "idx", "position"}
_OTHER_NAME = re.compile(
    r"(?:ner?|nel|pos|upos|xpos|chunk|lemma|tag|label|class|feats|head|deprel|deps|misc|entity|segment|iob|bio"
    r"|gold|render|seg|ocr.?info)s?(?:[-_.: ].*|[0-9]*)",
    re.IGNORECASE,
)
_BEGINNING = re.compile(r"[BIESLUM]-", re.IGNORECASE)


_SPAN_LABEL = re.compile(r"[oO0_]|[BIESLUM][-_].+")
_CLASS_LABEL = re.compile(r"[^a-z]*[A-Z][^a-z]*|[^\w\s]+")
_LEAST_ROWS = 3


class Verdict(Enum):
    """What the first row of a file is."""

    HEADER = "a header"
    WORD = "a word"
    UNCLEAR = "either"


def named_like_columns(row: Sequence[str]) -> bool:
    """Return whether a row may name columns at all: it has the name of a column of words or of labels."""
    names = [field.lower() for field in row]
    return any(name in TOKEN_NAMES for name in names) or (len(names) > 1 and _is_name(row[-1]))


def is_unlike(row: Sequence[str], later: Iterable[Sequence[str]], column: int) -> bool:
    """Return whether a row alone has a word where later ones have labels, as a header in any language has.

    Parameters
    ----------
    row : sequence of str
    later : iterable of sequences of str
        Rows after it.
    column : int
        Of the labels, -1 for the last.
    """
    if len(row) < 2 or column >= len(row) or not any(map(str.islower, row[column])):
        return False
    labels = [fields[column] for fields in later if column < len(fields) and len(fields) > 1]
    if len(labels) < _LEAST_ROWS or not 1 < len(set(labels)) < len(labels):
        return False
    return any(
        pattern.fullmatch(row[column]) is None and all(map(pattern.fullmatch, labels))
        for pattern in (_SPAN_LABEL, _CLASS_LABEL)
    )


def judge(row: Sequence[str], later: Iterable[Sequence[str]]) -> Verdict:
    """Tell whether the first row of a file is a header.

    It is where all its fields are known names of columns and one is that of the words, provided that none of
    the others is a value of its own column further on. Where only some are known names, it may be either.

    Parameters
    ----------
    row : sequence of str
    later : iterable of sequences of str
        Rows after it.
    """
    if not named_like_columns(row):
        return Verdict.WORD
    others = [(i, field) for i, field in enumerate(row) if field.lower() not in TOKEN_NAMES and field]
    for fields in later:
        # The same row again is the header of a file that was joined to this one.
        if any(i < len(fields) and fields[i] == field for i, field in others) and fields != row:
            return Verdict.WORD
    has_token = any(field.lower() in TOKEN_NAMES for field in row)
    if len(row) == 1:
        return Verdict.UNCLEAR
    if has_token and others and all(_is_name(field) for _, field in others):
        return Verdict.HEADER
    return Verdict.UNCLEAR


def token_column(names: Sequence[str]) -> int | None:
    """Return which column the names say holds the words; None if they do not say it."""
    lowered = [name.lower() for name in names]
    for name in TOKEN_NAMES:
        if lowered.count(name) == 1:
            return lowered.index(name)
    return None


def index_of(name: str, names: Sequence[str]) -> int | None:
    """Return which column has a name, as it is written or, where that is no column's, in any case."""
    for asked, known in ((name, list(names)), (name.lower(), [known.lower() for known in names])):
        if known.count(asked) == 1:
            return known.index(asked)
    return None


def _is_name(field: str) -> bool:
    return field.lower() in _ID_NAMES or (
        _OTHER_NAME.fullmatch(field) is not None and not _BEGINNING.match(field) and not is_id(field)
    )
