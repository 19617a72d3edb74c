"""JSON Lines: one object per line, with the sentence as a list of tokens or as a text.

Blank lines are skipped; what an object means is said in :mod:`~featurestore.corpora.readers.records`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import Reader, ReadOptions
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.corpora.readers.records import Kind, RecordReader
from featurestore.errors import CorpusError


def jsonl_reader(options: ReadOptions) -> Reader:
    """Return a reader of JSON Lines."""
    reader = RecordReader(options, Kind("field", "object", "line", _json_type))

    def read(lines: Iterable[str]) -> Iterator[Example]:
        return reader.examples(
            (number, _parse(line, options.path, number))
            for number, line in enumerate(lines, 1)
            if line.strip(WHITESPACE)
        )

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


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return names[type(value)]
