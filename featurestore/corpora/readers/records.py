"""Records to examples: objects of JSON Lines, rows of Parquet, of a data set or a frame.

A record holds its sentence as a list of tokens or as a text. Labels are one value for the sentence or a list
of values, one per token; strings stay what they are, numbers and booleans become their JSON text. Records
whose text is empty are skipped with a warning, and so are tokens that are empty strings where the caller says
so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from featurestore.corpora.contract.example import IGNORED, Example, Labels
from featurestore.corpora.contract.options import IGNORE, SKIP, SKIP_ADVICE, ReadOptions
from featurestore.corpora.contract.whitespace import WHITESPACE, whitespace_tokens
from featurestore.corpora.tokenizing.tokenizers import Tokenizer, make_tokenizer
from featurestore.errors import CorpusError, LabelError, UsageError
from featurestore.keys import Sentence

Record = Mapping[str, Any]
"""A record by the names of its fields: strings, numbers, booleans, None, lists and dicts."""

_LIST_AS_TEXT = re.compile(r"""\[\s*(['"]).*['"]\s*,?\s*\]""", re.DOTALL)
_MISSING_NUMBER = -1
"""What a ClassLabel of the package datasets holds where there is no label."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the records of a format are called, and what they hold.

    Attributes
    ----------
    field, record, unit : str
        What messages call a field, a record, and what records are counted in.
    type_name : callable
        Returns what messages call the type of a value.
    make : type
        The examples' class.
    has_types : bool
        Whether a whole number is told from another one, so that fractions as labels are a mistake.
    """

    field: str
    record: str
    unit: str
    type_name: Callable[[object], str]
    make: type[Example] = Example
    has_types: bool = False


class RecordReader:
    """Makes examples of records.

    ``text_column`` names the field that holds the sentence; by default it is ``tokens`` where a record has
    it, else ``text`` (with ``tokenize`` always ``text``). ``label`` names the field of the label or labels.

    Parameters
    ----------
    options : ReadOptions
    kind : Kind
    label_names : sequence of str, optional
        What labels that are integers stand for, as the file says.
    """

    def __init__(self, options: ReadOptions, kind: Kind, label_names: Sequence[str] | None = None) -> None:
        self._options, self._kind = options, kind
        self._names = label_names if options.label_names is None else None
        self._tokenizer: Tokenizer | None = make_tokenizer(options, kind.unit)

    def examples(self, records: Iterable[tuple[int, Record]]) -> Iterator[Example]:
        """Yield the examples of records, each with its number."""
        options, kind, make = self._options, self._kind, self._kind.make
        n_empty, first_empty = 0, 0
        n_tokens_skipped, first_skipped = 0, 0
        for number, record in records:
            tokens = self._tokens(record, number)
            if not any(tokens):
                n_empty, first_empty = n_empty + 1, first_empty or number
                continue
            labels = None
            if options.label is not None:
                labels = self._labels(record, tokens, number)
            if "" in tokens:
                n_tokens_skipped += tokens.count("")
                first_skipped = first_skipped or number
                tokens = tuple(filter(None, tokens))
            document = "" if options.document is None else self._document(record, number)
            yield make(tokens, labels, options.path, number, "", document)
        options.skipped(n_empty, first_empty, f"{kind.record}s without text", kind.unit)
        options.skipped(n_tokens_skipped, first_skipped, "empty tokens", kind.unit)

    def _tokens(self, record: Record, number: int) -> Sentence:
        options, noun = self._options, self._kind.field
        field = options.text_column
        if field is None:
            field = "tokens" if "tokens" in record and not options.tokenize else "text"
        if field not in record:
            is_chosen = options.text_column is not None or options.tokenize
            wanted = repr(field) if is_chosen else "'tokens' or 'text'"
            raise CorpusError(
                f"no {noun} {wanted} for the text: the {self._kind.record} has {_listed(record)}"
                + ("" if is_chosen else "; name one with --text-column (in Python text_column=)"),
                **self._where(number),
            )
        value = record[field]
        if isinstance(value, str):
            if value[:1] == "[" and _LIST_AS_TEXT.fullmatch(value.strip(WHITESPACE)):
                raise CorpusError(
                    f"{noun} {field!r} is a text that looks like a list of tokens ({value[:40]!r}): write it "
                    f"as a {'JSON list' if self._kind.unit == 'line' else 'list'}",
                    **self._where(number),
                )
            return self._tokenizer.tokens(value, number) if self._tokenizer else whitespace_tokens(value)
        if not isinstance(value, list):
            raise CorpusError(
                f"{noun} {field!r} is a {self._kind.type_name(value)}: expected a list of tokens or a string",
                **self._where(number),
            )
        if options.tokenize:
            raise UsageError(
                f"{options.path}, {self._kind.unit} {number}: {noun} {field!r} is a list of tokens, which is "
                "not tokenised again: leave tokenize out"
            )
        if _are_texts(value):
            return tuple(value)
        for position, token in enumerate(value):
            if not isinstance(token, str) or not (token or options.empty_token == SKIP):
                self._refuse_token(token, position, field, number)
        return tuple(value)

    def _refuse_token(self, token: object, position: int, field: str, number: int) -> None:
        what = "an empty string" if token == "" else f"a {self._kind.type_name(token)}"
        advice = f"; {SKIP_ADVICE}" if token == "" else ""
        if self._kind.has_types and isinstance(token, int):
            advice = ": are these the numbers of tokens? The tokens themselves are wanted"
        elif isinstance(token, list):
            advice = ": are these the sentences of a document? Give each a record of its own"
        raise CorpusError(
            f"token {position} of {self._kind.field} {field!r} is {what}: expected a string of at least one "
            f"character{advice}",
            **self._where(number),
        )

    def _labels(self, record: Record, tokens: Sentence, number: int) -> Labels:
        options, noun = self._options, self._kind.field
        field = str(options.label)
        value = record.get(field)
        if value is None or value == "" or (self._names is not None and value == _MISSING_NUMBER):
            problem = "is missing" if field not in record else "is empty"
            raise LabelError(
                f"{noun} {field!r}, asked for as label, {problem}: the {self._kind.record} has "
                f"{_listed(record)}",
                **self._where(number),
            )
        if not isinstance(value, list):
            return self._label(value, field, number)
        if len(value) != len(tokens):
            raise LabelError(
                f"{noun} {field!r} has {len(value)} labels for {len(tokens)} tokens: there must be one per "
                "token",
                **self._where(number),
            )
        ignored: tuple[object, ...] = ()
        if options.missing_label == IGNORE:
            ignored = (None, "") if self._names is None else (None, "", _MISSING_NUMBER)
        labelled = list(compress(value, tokens))  # a token that is skipped needs no label
        if _are_texts(labelled):
            return tuple(labelled)
        return tuple(IGNORED if item in ignored else self._label(item, field, number) for item in labelled)

    def _label(self, value: object, field: str, number: int) -> str:
        if isinstance(value, str) and value:
            return value
        names = self._names
        if names is not None and isinstance(value, int) and 0 <= value < len(names):
            return names[value]
        has_number = isinstance(value, (bool, int)) or (isinstance(value, float) and not self._kind.has_types)
        if has_number and names is None:
            return json.dumps(value)
        advice = ""
        if value is None or value == "" or value == _MISSING_NUMBER:
            advice = "; --missing-label ignore leaves tokens without one out"
        elif names is not None and isinstance(value, int):
            advice = f"; the {self._kind.field} has names for 0 to {len(names) - 1}"
        elif isinstance(value, list):
            advice = "; several labels of one token are not read"
        elif isinstance(value, float):
            advice = "; make integers of it (in pandas astype('Int64')), or strings"
        raise LabelError(
            f"a label in {self._kind.field} {field!r} is {value!r}: expected a string, a "
            f"{'whole ' if self._kind.has_types else ''}number, or a list of them{advice}",
            **self._where(number),
        )

    def _document(self, record: Record, number: int) -> str:
        value = record.get(str(self._options.document))
        if value is None or value == "" or not isinstance(value, (str, int, float)):
            raise CorpusError(
                f"{self._kind.field} {self._options.document!r}, asked for as document, is {value!r}: "
                "expected the name of the document, a string or a number; the "
                f"{self._kind.record} has {_listed(record)}",
                **self._where(number),
            )
        return value if isinstance(value, str) else json.dumps(value)

    def _where(self, number: int) -> dict[str, Any]:
        return {"path": self._options.path, "line": number, "unit": self._kind.unit}


def _are_texts(values: list[Any]) -> bool:
    """Return whether all are strings that are not empty: several times as fast as looking at each."""
    return {*map(type, values)} == {str} and "" not in values


def _listed(record: Record) -> str:
    return ", ".join(map(repr, record)) or "no fields"
