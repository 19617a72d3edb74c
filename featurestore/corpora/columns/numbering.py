"""Columns that number the words of a sentence: which rows of them are words.

Three ways of numbering are known:

- CoNLL-U and CoNLL-X: 1, 2, 3, ... (or from 0, or on from the sentence before); a range such as ``2-3``
  stands before the words it spans and is the text they were split from, an empty node such as ``2.1`` stands
  behind a word and is not in the text. Neither is a word.
- WebAnno TSV: ``1-1``, ``1-2``, ...: the sentence's number, then the word's. A part of a word such as
  ``1-2.1`` is not a word.
- The same with a dot, ``1.1``, ``1.2``, ..., in rows that have no plain number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

RANGE_OR_NODE = re.compile(r"([0-9]+)([-.])([0-9]+)")
_IN_SENTENCE = re.compile(r"([0-9]+)([-.])([0-9]+)(\.[0-9]+)?")
_PLAIN = re.compile(r"[0-9]+")
_NAMED = re.compile(r"(.*[0-9][^0-9A-Za-z]+[A-Za-z]*)([0-9]+)")
_MAX_COUNTS = 1000
_NUMBERS = tuple(map(str, range(_MAX_COUNTS + 1)))
_COUNTED = [_NUMBERS[1 : n + 1] for n in range(200)]


def counted(n: int, first: int = 1) -> tuple[str, ...]:
    """Return ``n`` numbers from the first on, as text."""
    if first == 1 and n < len(_COUNTED):
        return _COUNTED[n]
    if n <= _MAX_COUNTS - first:
        return _NUMBERS[first : first + n]
    return tuple(map(str, range(first, first + n)))


def is_plain(ids: tuple[str, ...]) -> bool:
    """Return whether these are the numbers from 1, or from 0, on."""
    return ids[0] in ("0", "1") and ids == counted(len(ids), int(ids[0]))


def is_id(text: str) -> bool:
    """Return whether a row of a numbered sentence may begin with this."""
    return _PLAIN.fullmatch(text) is not None or _IN_SENTENCE.fullmatch(text) is not None


def word_rows(ids: Sequence[str]) -> list[bool] | None:
    """Tell which rows are words by the column that numbers them.

    Parameters
    ----------
    ids : sequence of str
        One column of all rows of a sentence.

    Returns
    -------
    list of bool or None
        True for each row that is a word; None if the column does not number the rows.
    """
    if any(map(_PLAIN.fullmatch, ids)):
        return _counted(ids)
    return _counted_in_sentence(ids)


def names_rows(column: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Return whether a column says where its rows are, not what they say: ``s1_1``, ``s1_2``, ``s1_3``.

    Also a document's or a sentence's name in all rows, where another column numbers them (CoNLL-2012).

    Parameters
    ----------
    column : sequence of str
        One column of all rows of a sentence, of which there are several.
    others : sequence of sequences of str
        The columns to the right of it.
    """
    if len(set(column)) == 1:
        return any(is_plain(tuple(other)) for other in others)
    parts = [_NAMED.fullmatch(text) for text in column]
    found = [(part[1], int(part[2])) for part in parts if part is not None]
    if len(found) < len(column) or found[0][1] > 1:
        return False
    name, begin = found[0]
    return found == [(name, begin + i) for i in range(len(found))]


def is_garbled(ids: Sequence[str]) -> bool:
    """Return whether these look like word numbers with ranges or empty nodes but do not count the words."""
    plain = [int(text) for text in ids if _PLAIN.fullmatch(text)]
    if not plain or len(plain) == len(ids) or not all(map(is_id, ids)) or _counted(ids) is not None:
        return False
    # A column of decimals is another thing, unless its whole numbers alone count the rows.
    counts = plain == list(range(plain[0], plain[0] + len(plain)))
    return any("-" in text for text in ids) or (counts and len(plain) > 1)


def _counted(ids: Sequence[str]) -> list[bool] | None:
    expected: int | None = None
    words = []
    for text in ids:
        if _PLAIN.fullmatch(text):
            if expected is not None and int(text) != expected:
                return None
            expected = int(text) + 1
            words.append(True)
            continue
        parts = RANGE_OR_NODE.fullmatch(text)
        if parts is None:
            return None
        first, is_range = int(parts[1]), parts[2] == "-"
        if is_range:
            if first != (first if expected is None else expected) or int(parts[3]) < first:
                return None
            expected = first
        else:
            if expected is not None and first != expected - 1:
                return None
            expected = first + 1
        words.append(False)
    return words


def _counted_in_sentence(ids: Sequence[str]) -> list[bool] | None:
    sentence = None
    n_words = 0
    words = []
    for text in ids:
        parts = _IN_SENTENCE.fullmatch(text)
        if parts is None or (parts[1], parts[2]) != (sentence or (parts[1], parts[2])):
            return None
        sentence = (parts[1], parts[2])
        is_word = parts[4] is None
        n_words += is_word
        if int(parts[3]) != n_words:
            return None
        words.append(is_word)
    return words
