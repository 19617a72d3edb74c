"""What a caller may ask of a corpus reader, checked before the file is opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.corpora.contract.boundaries import Boundaries
from featurestore.corpora.contract.example import Example
from featurestore.errors import UsageError

_logger = logging.getLogger(__name__)

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""Names of the signs that the fields of a table may be separated by."""

RULES, ICU, CHARACTERS = "rules", "icu", "characters"
TOKENIZERS = (RULES, ICU, CHARACTERS)
"""How raw text may be tokenised."""

IGNORE, REFUSE = "ignore", "error"
MISSING_LABEL = (REFUSE, IGNORE)
"""What may be done with a word that has no label."""

SKIP = "skip"
EMPTY_TOKEN = (REFUSE, SKIP)
"""What may be done with a row that has no token."""

SKIP_ADVICE = "--empty-token skip (in Python empty_token='skip') leaves such out, and counts them"
"""The remedy for empty tokens, for messages."""

CSV_QUOTES, TEXT_QUOTES = "csv", "text"
QUOTES = (CSV_QUOTES, TEXT_QUOTES)
"""What the quote marks of a table may be: signs around fields, or signs of the text."""

Reader = Callable[[Iterable[str]], Iterator[Example]]
"""Turns the lines of a file, without their line ends, into examples."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read one file.

    Attributes
    ----------
    path : str
        The file as the caller named it, for examples and messages.
    text_column : str or None
        Where the text is; None for the format's default.
    label : str or None
        Where the labels are; None to read no labels.
    tokenize : str or None
        How the text, which is raw, is tokenised: one of :data:`TOKENIZERS`; None if its tokens stand between
        spaces.
    header : bool or None
        Whether the first row names the columns; None to decide by the rows.
    separator : str or None
        The sign between the fields of a table; None for that of the format, or another that the rows show.
    label_names : tuple of str, or None
        What labels that are integers stand for.
    comments : bool or None
        Whether lines of a column file that begin with ``#`` before a sentence are comments; None to decide by
        the rows.
    missing_label : str
        What is done with a word that has no label: one of :data:`MISSING_LABEL`.
    empty_token : str
        What is done with a row or an item of a list that is an empty token: one of :data:`EMPTY_TOKEN`.
    boundaries : Boundaries or None
        Where sentences of a column file end beside its blank lines; None for nowhere.
    quotes : str or None
        What the quote marks of a table are: one of :data:`QUOTES`; None for what the format says or, where
        it says nothing, the rows.
    document : str or None
        The column or field that names the document of a sentence; None for none.
    sentence : str or None
        The column that tells the sentences apart in a table with a row for each token; None where a row is a
        sentence.
    format_is_guessed : bool
        Whether only the file's name, or nothing, tells the format.
    """

    path: str
    text_column: str | None = None
    label: str | None = None
    tokenize: str | None = None
    header: bool | None = None
    separator: str | None = None
    label_names: tuple[str, ...] | None = None
    comments: bool | None = None
    missing_label: str = REFUSE
    empty_token: str = REFUSE
    boundaries: Boundaries | None = None
    quotes: str | None = None
    document: str | None = None
    sentence: str | None = None
    format_is_guessed: bool = False
    _warned: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _skipped: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def n_skipped(self) -> int:
        """How many rows, objects and tokens the latest complete pass left out because they are empty."""
        return sum(self._skipped.values())

    def skipped(self, n: int, line: int, what: str, unit: str = "line") -> None:
        """Take note, at the end of a pass, of how many it left out and on which line first; warn once."""
        self._skipped[what] = n
        if n:
            self.warn_once(f"skipped %d {what}, first {unit} %d", n, line)

    def warn_once(self, message: str, *values: object) -> None:
        """Log a warning about the file as ``logging`` does, at the first of the passes over it only."""
        if message not in self._warned:
            self._warned[message] = message % values if values else message
            _logger.warning("%s: %s", self.path, self._warned[message])

    def findings(self) -> dict[str, dict[str, Any]]:
        """Return what the passes warned of and the latest left out, as values of JSON."""
        return {"warned": dict(self._warned), "skipped": dict(self._skipped)}

    def recall(self, findings: Mapping[str, Any]) -> None:
        """Be as after a pass over the same bytes that had these :meth:`findings`; its warnings are logged.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are something else; nothing has changed then.
        """
        warned = {str(message): str(text) for message, text in dict(findings["warned"]).items()}
        skipped = {str(what): int(n) for what, n in dict(findings["skipped"]).items()}
        self._skipped.update(skipped)
        for message, text in warned.items():
            if message not in self._warned:
                self._warned[message] = text
                _logger.warning("%s: %s", self.path, text)


def column_text(column: object, what: str) -> str | None:
    """Return a column as the readers take it: as text, None for none.

    Parameters
    ----------
    column : str, int or None
        What the caller gave, a name or a 1-based number.
    what : str
        The option it was given for, for the message.

    Raises
    ------
    UsageError
        If it is empty or neither.
    """
    if column is None:
        return None
    if not isinstance(column, (str, int)) or isinstance(column, bool):
        raise UsageError(
            f"{what} is a {type(column).__name__}, {column!r}: expected a column's name or number"
        )
    if column == "":
        raise UsageError(f"{what} is empty: give a column name or number, or leave the option out")
    return str(column)


def parse_column(text: str, what: str) -> int | str:
    """Read a column given as a 1-based number or as a name.

    Parameters
    ----------
    text : str
        What the caller gave.
    what : str
        The option it was given for, for the message.

    Returns
    -------
    int or str
        The 0-based index for a number, the name itself otherwise.

    Raises
    ------
    UsageError
        If the number is not positive.
    """
    if text.isascii() and text.removeprefix("-").isdigit():
        if int(text) < 1:
            raise UsageError(f"{what} {text}: columns are counted from 1")
        return int(text) - 1
    return text


def tokenizer_name(tokenize: object) -> str | None:
    """Return how to tokenise as the readers take it; None for not at all.

    Parameters
    ----------
    tokenize : bool, str or None
        What the caller gave; True means :data:`RULES`.

    Raises
    ------
    UsageError
        If there is no such tokeniser.
    """
    if tokenize is None or tokenize is False:
        return None
    if tokenize is True:
        return RULES
    if tokenize not in TOKENIZERS:
        raise UsageError(f"tokenize is {tokenize!r}: expected True or False, or {', '.join(TOKENIZERS)}")
    return str(tokenize)


def separator_sign(separator: object) -> str | None:
    """Return the sign between the fields of a table, given by itself or by its name; None for none.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if separator is None or separator in SEPARATORS.values():
        return None if separator is None else str(separator)
    if separator not in SEPARATORS:
        raise UsageError(f"separator is {separator!r}: expected {', '.join(SEPARATORS)}, or the sign itself")
    return SEPARATORS[str(separator)]


def missing_label_name(missing_label: object) -> str:
    """Return what is done with a word without a label, as the readers take it.

    Raises
    ------
    UsageError
        If it is not one of :data:`MISSING_LABEL`.
    """
    if missing_label not in MISSING_LABEL:
        raise UsageError(f"missing_label is {missing_label!r}: expected {' or '.join(MISSING_LABEL)}")
    return str(missing_label)


def empty_token_name(empty_token: object) -> str:
    """Return what is done with an empty token, as the readers take it.

    Raises
    ------
    UsageError
        If it is not one of :data:`EMPTY_TOKEN`.
    """
    if empty_token not in EMPTY_TOKEN:
        raise UsageError(f"empty_token is {empty_token!r}: expected {' or '.join(EMPTY_TOKEN)}")
    return str(empty_token)


def quotes_name(quotes: object) -> str | None:
    """Return what quote marks are, as the readers take it.

    Raises
    ------
    UsageError
        If it is neither None nor one of :data:`QUOTES`.
    """
    if quotes is not None and quotes not in QUOTES:
        raise UsageError(f"quotes is {quotes!r}: expected {' or '.join(QUOTES)}")
    return None if quotes is None else str(quotes)


def refuse_tokenize(options: ReadOptions, format_name: str) -> None:
    """Refuse to tokenise a format whose files are tokenised by definition.

    Raises
    ------
    UsageError
        If tokenisation was asked for.
    """
    if options.tokenize:
        raise UsageError(
            f"{options.path}: {format_name} files hold one token per line and are not tokenised again: "
            "leave tokenize out"
        )
