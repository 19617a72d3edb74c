"""Tables of figures: rows of ours, of alternatives, of ceilings, with ratios, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["ours", "alternative", "recorded", "ceiling"]
"""``recorded``: an alternative's figure from another day, whose date and machine the row names."""

Value = float | str | None


@dataclass
class Row:
    """One line.

    Attributes
    ----------
    name : str
    kind : Kind
        Whose it is.
    values : dict of str to Value
        By column; a column that is not there has no figure.
    limit : str
        The ceiling's row it is to be compared with; by default the best ceiling.
    """

    name: str
    kind: Kind
    values: dict[str, Value]
    limit: str = ""


@dataclass
class Table:
    """Figures side by side.

    Attributes
    ----------
    title : str
    columns : list of str
        With their units; the first is the one that ratios are of, unless ``ratio`` names another.
    rows : list of Row
    base : str
        The row that ratios are to; none are given where it is empty or has no figure.
    ratio : str
        The column that ratios are of.
    lower_is_better : bool
        Seconds, not speeds: ratios are turned round, so that more is always better.
    note : str
        What a reader must know to read it right.
    """

    title: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    base: str = ""
    ratio: str = ""
    lower_is_better: bool = False
    note: str = ""

    def add(self, name: str, kind: Kind, *values: Value, limit: str = "") -> None:
        """Add a row; values in the order of the columns."""
        self.rows.append(Row(name, kind, dict(zip(self.columns, values, strict=False)), limit))

    @property
    def ratio_column(self) -> str:
        return self.ratio or self.columns[0]

    def times(self, row: Row, other: Row | None) -> float | None:
        """Return how many times better a row is than another, None where either has no figure."""
        ours, theirs = (None if each is None else each.values.get(self.ratio_column) for each in (row, other))
        if (
            not isinstance(ours, (int, float))
            or not isinstance(theirs, (int, float))
            or not ours
            or not theirs
        ):
            return None
        return theirs / ours if self.lower_is_better else ours / theirs

    def share(self, row: Row) -> str:
        """Return how near a row is to its ceiling, in percent; empty where there is none."""
        ceiling = self.named(row.limit) if row.limit else self.best("ceiling")
        share = self.times(row, ceiling)
        return "" if share is None or row.kind == "ceiling" else f"{100 * share:.0f}%"

    def named(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def best(self, *kinds: Kind) -> Row | None:
        """Return the best row of a kind in the column that ratios are of."""
        column = self.ratio_column
        rows = [r for r in self.rows if r.kind in kinds and isinstance(r.values.get(column), (int, float))]
        choose = min if self.lower_is_better else max
        return choose(rows, key=lambda row: row.values[column], default=None)  # type: ignore[arg-type, return-value]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Table:
        return cls(**{**values, "rows": [Row(**row) for row in values["rows"]]})

    def markdown(self) -> str:
        """Return the table as aligned Markdown, ratios and shares of the ceiling in columns of their own."""
        base = self.named(self.base) if self.base else None
        bounded = self.best("ceiling") is not None
        head = ["", *self.columns]
        if base:
            head.append("ratio")
        if bounded:
            head.append("of the ceiling")
        lines = []
        for row in self.rows:
            name = {"ours": f"**{row.name}**", "ceiling": f"*ceiling: {row.name}*"}.get(row.kind, row.name)
            line = [name, *(shown(row.values.get(column)) for column in self.columns)]
            if base:
                line.append(with_sign(self.times(row, base), "x") if row.kind != "ceiling" else "")
            if bounded:
                line.append(self.share(row))
            lines.append(line)
        note = f"\n\n{self.note}" if self.note else ""
        return f"**{self.title}**\n\n{aligned(head, lines)}{note}"


def shown(value: Value) -> str:
    """Return a figure with three digits that count, or all of a larger one's whole digits."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    size = abs(value)
    if value == int(value) and size < 100:
        return f"{int(value)}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def with_sign(value: float | None, sign: str) -> str:
    return "–" if value is None else f"{value:.2g} {sign}" if value < 10 else f"{value:,.0f} {sign}"


def aligned(head: list[str], lines: Iterable[list[str]]) -> str:
    """Return a Markdown table whose columns stand under each other, figures on the right."""
    rows = [head, *lines]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    )
    return "\n".join([line(head), f"|{rule}|", *map(line, rows[1:])])


def summary(tables: dict[str, list[Table]]) -> Table:
    """Return the one table: for each table with a base our best row, the best alternative, the ceiling."""
    head = ["ours", "figure", "best alternative", "its figure", "times", "of the ceiling"]
    whole = Table("Summary: the best of ours beside the best of the others", head)
    for part in tables.values():
        for table in part:
            ours = table.best("ours")
            if not table.base or ours is None:
                continue
            theirs = table.best("alternative", "recorded")
            name = None if theirs is None else theirs.name
            if theirs is not None and theirs.kind == "recorded" and "recorded" not in theirs.name:
                name = f"{theirs.name} (recorded)"
            whole.add(
                f"{table.title}: {table.ratio_column}",
                "alternative",
                ours.name,
                ours.values[table.ratio_column],
                name,
                None if theirs is None else theirs.values[table.ratio_column],
                with_sign(table.times(ours, theirs), "x"),
                table.share(ours) or None,
            )
    return whole


def tables_from(title: str, values: dict[str, Any]) -> list[Table]:
    """Return the tables of a part's JSON: its own, or else plain ones of whatever figures it holds."""
    if "tables" in values:
        return [Table.from_dict(table) for table in values["tables"]]
    single = Table(title, ["value"])
    tables = [single]
    for name, value in _flat("", values):
        if isinstance(value, list) and value and all(isinstance(line, dict) for line in value):
            flat = [dict(_flat("", line, lists=True)) for line in value]
            first, *columns = dict.fromkeys(key for line in flat for key in line)
            table = Table(f"{title}: {name}", columns)
            for line in flat:
                table.add(str(line.get(first)), "alternative", *(_value(line.get(c)) for c in columns))
            tables.append(table)
        else:
            single.add(name, "alternative", _value(value))
    return [table for table in tables if table.rows]


def _flat(prefix: str, values: dict[str, Any], *, lists: bool = False) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, list) and lists:
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{key} ", value, lists=lists)
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> Value:
    return value if value is None or isinstance(value, (int, float, str)) else json.dumps(value)
