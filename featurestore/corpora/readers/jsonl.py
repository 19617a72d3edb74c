"""JSON Lines: one object per line, with the sentence as a list of tokens or as a text.

Labels are one string for the sentence or a list of strings, one per token; numbers and booleans become
their JSON text. Blank lines are skipped; objects whose text is empty are skipped with a warning, and so are
tokens that are empty strings where the caller says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any

from featurestore.corpora.contract.example import IGNORED, Example, Labels
from featurestore.corpora.contract.options import IGNORE, SKIP, SKIP_ADVICE, Reader, ReadOptions
from featurestore.corpora.contract.whitespace import WHITESPACE, whitespace_tokens
from featurestore.corpora.tokenizing.tokenizers import Tokenizer, make_tokenizer
from featurestore.errors import CorpusError, LabelError, UsageError
from featurestore.keys import Sentence

_LIST_AS_TEXT = re.compile(r"""\[\s*(['"]).*['"]\s*,?\s*\]""", re.DOTALL)


def jsonl_reader(options: ReadOptions) -> Reader:
    """Return a reader of JSON Lines.

    ``text_column`` names the field that holds the sentence; by default it is ``tokens`` where an object has
    it, else ``text`` (with ``tokenize`` always ``text``). ``label`` names the field of the label or labels.
    """

    tokenizer = make_tokenizer(options)

    def read(lines: Iterable[str]) -> Iterator[Example]:
        n_empty, first_empty = 0, 0
        n_tokens_skipped, first_skipped = 0, 0
        for number, line in enumerate(lines, 1):
            if not line.strip(WHITESPACE):
                continue
            record = _parse(line, options.path, number)
            tokens = _tokens(record, options, tokenizer, number)
            if not any(tokens):
                n_empty, first_empty = n_empty + 1, first_empty or number
                continue
            labels = None
            if options.label is not None:
                labels = _labels(record, options, tokens, number)
            if "" in tokens:
                n_tokens_skipped += tokens.count("")
                first_skipped = first_skipped or number
                tokens = tuple(filter(None, tokens))
            document = "" if options.document is None else _document(record, options, number)
            yield Example(tokens, labels, options.path, number, "", document)
        options.skipped(n_empty, first_empty, "objects without text")
        options.skipped(n_tokens_skipped, first_skipped, "empty tokens")

    return read


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse(line: str, path: str, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        # A list or an object that goes on behind the line is JSON, but not JSON Lines.
        filter_ = {"[": ".[]", "{": "."}.get(line.strip(WHITESPACE)) if number == 1 else None
        advice = "" if filter_ is None else f": `jq -c '{filter_}' FILE > OUT.jsonl` makes that of other JSON"
        raise CorpusError(
            f"not valid JSON: {reason}: expected one object per line{advice}", path=path, line=number
        ) from error
    if not isinstance(record, dict):
        is_records = isinstance(record, list) and any(isinstance(item, dict) for item in record)
        advice = ": `jq -c '.[]' FILE > OUT.jsonl` puts each on a line" if is_records else ""
        raise CorpusError(
            f"expected a JSON object with named fields, found a {_json_type(record)}{advice}",
            path=path,
            line=number,
        )
    return record


def _tokens(
    record: dict[str, Any], options: ReadOptions, tokenizer: Tokenizer | None, number: int
) -> Sentence:
    field = options.text_column
    if field is None:
        field = "tokens" if "tokens" in record and not options.tokenize else "text"
    if field not in record:
        wanted = repr(field) if options.text_column is not None or options.tokenize else "'tokens' or 'text'"
        raise CorpusError(
            f"no field {wanted} for the text: the object has {_names(record)}", path=options.path, line=number
        )
    value = record[field]
    if isinstance(value, str):
        if value[:1] == "[" and _LIST_AS_TEXT.fullmatch(value.strip(WHITESPACE)):
            raise CorpusError(
                f"field {field!r} is a text that looks like a list of tokens ({value[:40]!r}): write it as a "
                "JSON list",
                path=options.path,
                line=number,
            )
        return tokenizer.tokens(value, number) if tokenizer else whitespace_tokens(value)
    if not isinstance(value, list):
        raise CorpusError(
            f"field {field!r} is a {_json_type(value)}: expected a list of tokens or a string",
            path=options.path,
            line=number,
        )
    if options.tokenize:
        raise UsageError(
            f"{options.path}, line {number}: field {field!r} is a list of tokens, which is not tokenised "
            "again: leave tokenize out"
        )
    for position, token in enumerate(value):
        if not isinstance(token, str) or not (token or options.empty_token == SKIP):
            what = "an empty string" if token == "" else f"a {_json_type(token)}"
            advice = f"; {SKIP_ADVICE}" if token == "" else ""
            raise CorpusError(
                f"token {position} of field {field!r} is {what}: expected a string of at least one "
                f"character{advice}",
                path=options.path,
                line=number,
            )
    return tuple(value)


def _labels(record: dict[str, Any], options: ReadOptions, tokens: Sentence, number: int) -> Labels:
    field, path = str(options.label), options.path
    value = record.get(field)
    if value is None or value == "":
        problem = "is missing" if field not in record else "is empty"
        raise LabelError(
            f"field {field!r}, asked for as label, {problem}: the object has {_names(record)}",
            path=path,
            line=number,
        )
    if not isinstance(value, list):
        return _label(value, field, path, number)
    if len(value) != len(tokens):
        raise LabelError(
            f"field {field!r} has {len(value)} labels for {len(tokens)} tokens: there must be one per token",
            path=path,
            line=number,
        )
    ignored = (None, "") if options.missing_label == IGNORE else ()
    labelled = compress(value, tokens)  # a token that is skipped needs no label
    return tuple(IGNORED if item in ignored else _label(item, field, path, number) for item in labelled)


def _label(value: object, field: str, path: str, number: int) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    advice = "; several labels of one token are not read" if isinstance(value, list) else ""
    if value is None or value == "":
        advice = "; --missing-label ignore leaves tokens without one out"
    raise LabelError(
        f"a label in field {field!r} is {value!r}: expected a string, a number, or a list of them{advice}",
        path=path,
        line=number,
    )


def _document(record: dict[str, Any], options: ReadOptions, number: int) -> str:
    value = record.get(str(options.document))
    if value is None or value == "" or isinstance(value, (list, dict)):
        raise CorpusError(
            f"field {options.document!r}, asked for as document, is {value!r}: expected the name of "
            f"the document, a string or a number; the object has {_names(record)}",
            path=options.path,
            line=number,
        )
    return value if isinstance(value, str) else json.dumps(value)


def _names(record: dict[str, Any]) -> str:
    return ", ".join(map(repr, record)) or "no fields"


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return names[type(value)]
