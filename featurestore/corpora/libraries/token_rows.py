"""Tables with a row for each token: consecutive rows of one sentence become one record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.readers.records import Record
from featurestore.errors import CorpusError

_EXPORTED = ("sentence", "position", "token")
"""Columns of what ``export --rows token`` writes."""


def exported_columns(columns: Sequence[str], options: ReadOptions) -> ReadOptions:
    """Return the options, those of a table that we exported where it is one and nothing else is asked for."""
    if options.sentence is None and options.text_column is None and set(_EXPORTED) <= set(columns):
        return replace(options, sentence="sentence", text_column="token")
    return options


def grouped(rows: Iterable[tuple[int, Record]], options: ReadOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a record for each sentence, with lists of its tokens and labels, and the number of its first row.

    A row whose sentence is null belongs to that before it, as where only the first row of each names it.

    Raises
    ------
    CorpusError
        If no row names the first sentence.
    """
    name, text, label = str(options.sentence), str(options.text_column), options.label
    latest: Any = None
    begin, record = 0, dict[str, Any]()
    for number, row in rows:
        sentence = row[name]
        if sentence is None and not record:
            raise CorpusError(
                f"column {name!r}, which tells the sentences apart, is null in the first row",
                path=options.path,
                line=number,
                unit="row",
            )
        if not record or (sentence is not None and sentence != latest):
            if record:
                yield begin, record
            begin, latest = number, sentence
            record = {**row, text: []}
            if label is not None:
                record[label] = []
        record[text].append(row[text])
        if label is not None:
            record[label].append(row[label])
    if record:
        yield begin, record
