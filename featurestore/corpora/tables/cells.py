"""Lists in one cell of a table: a label for each token, or the tokens themselves.

A cell holds a list if it is written as JSON, Python or NumPy write one (``["B-PER", "O"]``,
``['B-PER' 'O']``), or if it has as many labels as the sentence has tokens, separated by blanks, commas or the
like. As a label of the whole sentence may have several words too, the latter is decided by the first rows:
they all fit, and the labels look like tags, or there are rows enough that this is no chance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from featurestore.corpora.contract.whitespace import WHITESPACE, whitespace_tokens
from featurestore.corpora.readers.columnar import SPAN_TAG

Split = Callable[[str], list[str]]
"""Takes the content of a cell apart."""

_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"\[\]]+))\s*(?:,|(?=[\s'"])|\Z)"""
)
_QUOTED_LIST = re.compile(r"""\[\s*['"]""")
_ESCAPE = re.compile(r"\\(.)")
_SEPARATORS = (",", ";", "|", None)  # None: blanks
_TAG = re.compile(r"[A-Z][A-Z0-9$]*(?:[-_:|=.][A-Za-z0-9$]+)*|[^\w\s]+|[0-9]+")
_SAME_SHARE = 0.9
_LEAST_ROWS = 5


def list_items(cell: str) -> list[str] | None:
    """Return the items of a list written in brackets; None if the cell is not one."""
    stripped = cell.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        values = json.loads(stripped)
        if all(isinstance(value, (str, int, float)) for value in values):
            return [value if isinstance(value, str) else json.dumps(value) for value in values]
    except (ValueError, RecursionError):
        pass
    inner, items, position = stripped[1:-1].rstrip(), list[str](), 0
    while position < len(inner):
        match = _ITEM.match(inner, position)
        if match is None:
            return None
        single, double, bare = match.groups()
        quoted = single if single is not None else double
        items.append(bare if quoted is None else _ESCAPE.sub(r"\1", quoted))
        position = match.end()
    return items


def holds_token_lists(cells: Sequence[str]) -> bool:
    """Return whether every cell that is not empty holds a list of quoted strings."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return bool(filled) and all(_QUOTED_LIST.match(cell) and list_items(cell) for cell in filled)


def label_split(pairs: Sequence[tuple[Sequence[str], str]]) -> Split | None:
    """Return what takes the label cells apart into labels of tokens; None if a cell is the sentence's label.

    Parameters
    ----------
    pairs : sequence of (tokens, cell)
        Of the first rows.
    """
    pairs = [(tokens, cell) for tokens, cell in pairs if tokens and cell.strip()]
    if pairs and all(list_items(cell) is not None for _, cell in pairs):
        return lambda cell: list_items(cell) or []
    telling = [
        (tokens, cell) for tokens, cell in pairs if len(tokens) > 1 or len(whitespace_tokens(cell)) > 1
    ]
    for separator in _SEPARATORS:
        split = _splitter(separator)
        matching = [(tokens, cell) for tokens, cell in telling if _fits(split(cell), len(tokens))]
        if matching and len(matching) >= _SAME_SHARE * len(telling) and _is_no_chance(matching, split):
            return split
    return None


def _fits(labels: Sequence[str], n_tokens: int) -> bool:
    return len(labels) == n_tokens and "" not in labels


def _splitter(separator: str | None) -> Split:
    def split(cell: str) -> list[str]:
        if separator is None:
            return list(whitespace_tokens(cell))
        return [part.strip(WHITESPACE) for part in cell.split(separator)]

    return split


def _is_no_chance(pairs: Sequence[tuple[Sequence[str], str]], split: Split) -> bool:
    labels = [label for _, cell in pairs for label in split(cell)]
    if all(SPAN_TAG.fullmatch(label) or _TAG.fullmatch(label) for label in labels):
        return True
    return len(pairs) >= _LEAST_ROWS and len({len(tokens) for tokens, _ in pairs}) > 1
