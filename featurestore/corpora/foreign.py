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


def refuse_foreign(given: object) -> None:
    """Raise for an object that is no corpus but holds one, saying what to write.

    Raises
    ------
    UsageError
        For tables and data sets of pandas, polars, pyarrow and datasets, bytes, an open file, a mapping, and
        a generator that was used up.
    """
    kind, library = type(given).__name__, _library(given)
    if library == "datasets":
        is_parts = isinstance(given, Mapping)
        which = f": give one of its parts, such as given[{_first_key(given)!r}]" if is_parts else ""
        raise UsageError(f"a {kind} is no corpus{which}: write\n{_IMPORT}\n{_from_rows(given)}")
    if kind == "LazyFrame" and library is not None:
        raise UsageError("a LazyFrame is no corpus: collect() it, and write what is said of a DataFrame")
    if library is not None:
        raise UsageError(
            f"a {kind} of {library} is no corpus: write\n{_IMPORT}\n{_from_columns(given, library)}"
        )
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


def _first_key(parts: Any) -> object:
    return next(iter(parts), "train")


def _library(given: object) -> str | None:
    """Return the library that an object's class comes from, of those known here."""
    for base in type(given).__mro__:
        library = base.__module__.partition(".")[0]
        if library in ("pandas", "polars", "pyarrow", "datasets"):
            return library
    return None


def _from_columns(given: Any, library: str) -> str:
    """Return code that makes examples of a table."""
    names = getattr(given, "column_names", None) or getattr(given, "columns", None)
    if names is None or not isinstance(names, Iterable):
        return "[text.split() for text in given]"
    text, label = _chosen(names)
    take = "given[{!r}].to_pylist()" if library == "pyarrow" else "given[{!r}]"
    columns = take.format(text) if label is None else f"zip({take.format(text)}, {take.format(label)})"
    variables = "text" if label is None else "text, label"
    return _comprehension(text, label, lambda name: "text" if name == text else "label", variables, columns)


def _from_rows(given: Any) -> str:
    """Return code that makes examples of a data set."""
    if isinstance(given, Mapping):
        given = next(iter(given.values()), None)
    text, label = _chosen(getattr(given, "column_names", None) or ())
    features = getattr(given, "features", None) or {}
    if label not in _LIST_NAMES or not hasattr(getattr(features.get(label), "feature", None), "names"):
        return _comprehension(text, label, lambda name: f"row[{name!r}]", "row", "given")
    return (
        f"names = given.features[{label!r}].feature.names\n"
        f"[Example(tuple(row[{text!r}]), tuple(names[i] for i in row[{label!r}])) for row in given]"
    )


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
