"""Which sign separates the fields of a table: the one its format has, another that the first rows show."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from featurestore.corpora.contract.options import SEPARATORS
from featurestore.errors import CorpusError

COMMA, TAB = ",", "\t"
_EXCEL_LINE = re.compile(r'"?sep=(.)"?\Z')


def name_of(separator: str) -> str:
    """Return the name of a separator."""
    return next(name for name, sign in SEPARATORS.items() if sign == separator)


def excel_separator(first_line: str) -> str | None:
    """Return the separator that a line ``sep=;``, as Excel writes it, names; None for any other line."""
    match = _EXCEL_LINE.match(first_line)
    return match[1] if match and match[1] in SEPARATORS.values() else None


def separator_of(
    lines: Sequence[str],
    *,
    is_whole: bool,
    default: str,
    names: Sequence[str],
    numbers: Sequence[int],
    path: str,
) -> str:
    """Return the sign that separates the fields.

    Parameters
    ----------
    lines : sequence of str
        The first lines, not blank ones.
    is_whole : bool
        Whether these are all lines.
    default : str
        What the format says.
    names, numbers : sequences
        The columns that are wanted, by name and by 1-based number.
    path : str
        The file, for messages.

    Raises
    ------
    CorpusError
        If the rows fit several.
    """
    if names:
        signs = (default, *(sign for sign in SEPARATORS.values() if sign != default))
        for sign in signs:
            first = next(iter(_rows(lines[:1], sign, True)), [])
            if set(names) <= set(first):
                return sign
    rows = {sign: _rows(lines, sign, is_whole) for sign in SEPARATORS.values()}
    even = [sign for sign, found in rows.items() if _is_even(found)]
    others = [sign for sign in even if sign != default]
    if not others or (default in even and (names or default == TAB)):
        return default
    if names and len(others) == 1:
        return others[0]  # so that the message names the columns as they are
    # By numbers alone: one column by the default is a table too, unless a second one is wanted.
    widths = {len(row) for row in rows[default]}
    is_table = len(widths) < 2 and max(numbers, default=0) <= max(widths, default=0)
    if default not in even and len(others) == 1 and not is_table and default != TAB:
        return others[0]
    raise _undecided(default, others, path)


def _rows(lines: Sequence[str], separator: str, is_whole: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True):
            if row:
                rows.append(row)
    except csv.Error:
        return rows
    return rows if is_whole else rows[:-1]


def _is_even(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether there are rows, all with the same number of fields, and more than one."""
    return len(rows) > 1 and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1


def _undecided(default: str, others: Sequence[str], path: str) -> CorpusError:
    signs = " or ".join(f"{name_of(sign)} ({sign!r})" for sign in others)
    names = " or ".join(f"--separator {name_of(sign)}" for sign in (*others, default))
    return CorpusError(
        f"cannot tell what separates the fields: expected {name_of(default)}, but the rows are even with "
        f"{signs}: give {names} (in Python separator=)",
        path=path,
        line=1,
    )
