"""Frames of pandas and polars as tables, by the libraries' own calls: nothing here imports them.

Lists may be lists, tuples or arrays of NumPy; what these libraries take for a missing value is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_ROWS = 1024
_MISSING_TYPES = ("NAType", "NaTType")


class FrameTable:
    """A frame in memory; see :class:`~.table.Table`.

    Parameters
    ----------
    frame : pandas.DataFrame or polars.DataFrame
    path : str
        What messages call it.
    library : {"pandas", "polars"}
    """

    n_bytes = None

    def __init__(self, frame: Any, path: str, library: str) -> None:
        self.path, self.format, self._frame = path, library, frame
        self._keys = list(frame.columns)  # of pandas: anything that can be hashed
        self.columns = tuple(map(str, self._keys))
        self.n_rows: int | None = len(frame)

    def label_names(self, column: str) -> None:
        """Return None: categories are names already."""

    def batches(self, columns: Sequence[str]) -> Iterator[Sequence[list[Any]]]:
        """Yield the values of some columns, a few rows at a time."""
        chosen = [self._column(name) for name in columns]
        for start in range(0, len(self._frame), _ROWS):
            yield [list(map(_plain, part(start))) for part in chosen]

    def _column(self, name: str) -> Any:
        """Return what gives the values of a column from a row on."""
        column = self._frame[self._keys[self.columns.index(name)]]
        if self.format == "polars":
            return lambda start: column.slice(start, _ROWS).to_list()
        return lambda start: column.iloc[start : start + _ROWS].tolist()

    def state(self) -> None:
        """Return None: a frame may change in place."""

    def content(self, columns: Sequence[str]) -> None:
        """Return None: hashing Python's values takes as long as reading them."""


def _plain(value: Any) -> Any:
    """Return a value of a cell as one of Python's types."""
    kind = type(value)
    if kind is str or value is None or kind is int or kind is bool:
        return value
    if kind is list or kind is tuple:
        return list(map(_plain, value))
    if kind is float:
        return None if value != value else value
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist()) if kind.__name__ != "str_" else str(value)
    if kind.__name__ in _MISSING_TYPES:
        return None
    return str(value) if isinstance(value, str) else value
