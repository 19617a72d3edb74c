"""Objects that hold sentences in another library's form, or in none: what to write to make a corpus of them.

They are known by where their classes come from; nothing here imports another library.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from types import GeneratorType
from typing import Any

from featurestore.errors import UsageError

_TEXT_NAMES = ("tokens", "words", "text", "sentence", "content", "review", "tweet")
_LABEL_NAMES = ("ner_tags", "pos_tags", "tags", "labels", "label", "target", "class", "category", "sentiment")
_LIST_NAMES = ("tokens", "words", "ner_tags", "pos_tags", "tags")
_IMPORT = "from featurestore import Example"
_INSTEAD = {
    "LazyFrame": "given.collect()",
    "RecordBatchReader": "given.read_all()",
    "Span": "given.as_doc()",
}
_INSTEAD_OF = {
    "pandas": "a DataFrame or a Series",
    "polars": "a DataFrame or a Series",
    "pyarrow": "a table: pyarrow.table({'tokens': given})",
    "spacy": "Doc objects, or a DocBin",
}
"""What is a corpus instead of an object, by the name of its class or by its library."""


def refuse_foreign(given: object) -> None:
    """Raise for an object that is no corpus but may hold one, saying what to give instead.

    Raises
    ------
    UsageError
        For objects of pandas, polars, pyarrow and spaCy that are no table or document, bytes, an open file, a
        mapping, and a generator that was used up.
    """
    kind, library = type(given).__name__, _library(given)
    if library is not None:
        instead = _INSTEAD.get(kind) or _INSTEAD_OF[library]
        raise UsageError(f"a {kind} of {library} is no corpus: give {instead}")
    if isinstance(given, (bytes, bytearray, memoryview)):
        raise UsageError(
            "bytes are no corpus: give a path, or lists of tokens: [line.split() for line in "
            "given.decode().splitlines()]"
        )
    if isinstance(given, io.IOBase):
        raise UsageError("an open file is no corpus: give its path")
    if isinstance(given, Mapping):
        raise UsageError(f"a {kind} is no corpus: expected a path, open_corpus(path), or lists of tokens")
    if isinstance(given, GeneratorType) and given.gi_frame is None:
        raise UsageError("the generator was used up before: make a list of it, which can be read again")


def refuse_foreign_item(item: object) -> None:
    """Raise for the first object of a corpus that is no sentence but holds one, saying what to write.

    Raises
    ------
    UsageError
        For a row as a mapping, or a pair of tokens and labels.
    """
    if isinstance(item, Mapping):
        raise UsageError(
            f"a {type(item).__name__} is no sentence: write\n{_IMPORT}\n"
            f"{_comprehension(*_chosen(item), lambda name: f'row[{name!r}]', 'row', 'given')}"
        )
    if isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], (tuple, list)):
        raise UsageError(
            "a sentence with another list is no sentence: tokens with their labels are an Example: write\n"
            f"{_IMPORT}\n[Example(tuple(tokens), tuple(labels)) for tokens, labels in given]"
        )


def _library(given: object) -> str | None:
    """Return the library that an object's class comes from, of those known here."""
    libraries = (base.__module__.partition(".")[0] for base in type(given).__mro__)
    return next((library for library in libraries if library in _INSTEAD_OF), None)


def _chosen(names: Iterable[object]) -> tuple[object, object | None]:
    """Return which of the names of columns are likely those of the text and of the label."""
    known = list(names)
    text = next((name for name in _TEXT_NAMES if name in known), known[0] if known else "text")
    return text, next((name for name in _LABEL_NAMES if name in known and name != text), None)


def _comprehension(text: object, label: object | None, of: Any, variables: str, rows: str) -> str:
    tokens = f"tuple({of(text)})" if text in _LIST_NAMES else f"tuple({of(text)}.split())"
    if label is None:
        return f"[Example({tokens}) for {variables} in {rows}]"
    labels = f"tuple(map(str, {of(label)}))" if label in _LIST_NAMES else f"str({of(label)})"
    return f"[Example({tokens}, {labels}) for {variables} in {rows}]"
