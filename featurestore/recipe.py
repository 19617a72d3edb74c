"""Recipes: everything that decides a vector, its hash (the fingerprint), and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from featurestore import limits
from featurestore.errors import ABSENT, FieldDifference, RecipeMismatchError, UsageError


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no blanks, ASCII, no NaN or infinity."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


_MOST_SHOWN = 12
"""Fields of two kinds of recipe that an error lists."""


class Recipe(Mapping[str, Any]):
    """An immutable set of named fields that together decide every vector of an encoder.

    Parameters
    ----------
    fields : mapping of str to JSON values
        At least ``kind`` and ``version``. Whatever changes a vector belongs here; what does not (paths, batch
        size, storage codec) must stay out.

    Raises
    ------
    UsageError
        If the fields are not plain JSON or lack ``kind`` or ``version``.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        try:
            self._canonical = canonical_json(dict(fields))
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"a recipe holds plain JSON values only: {error}") from error
        if len(self._canonical) > limits.MAX_RECIPE_BYTES:
            raise UsageError(
                f"a recipe of {len(self._canonical):,} bytes exceeds {limits.MAX_RECIPE_BYTES:,}"
            )
        self._fields: dict[str, Any] = json.loads(self._canonical)
        if _depth(self._fields) > limits.MAX_RECIPE_DEPTH:
            raise UsageError(f"a recipe is nested at most {limits.MAX_RECIPE_DEPTH} deep")
        for required in ("kind", "version"):
            if required not in self._fields:
                raise UsageError(f"a recipe needs the field {required!r}; found {sorted(self._fields)}")

    @classmethod
    def of(cls, given: object) -> Recipe:
        """Return a recipe as it is, a mapping as a recipe.

        Raises
        ------
        UsageError
            If it is neither, or the fields are not those of a recipe.
        """
        if isinstance(given, Recipe):
            return given
        if not isinstance(given, Mapping):
            raise UsageError(
                "a recipe is a featurestore.Recipe, or a mapping with kind, version and whatever else "
                f"decides a vector; found a {type(given).__name__}"
            )
        return cls(given)

    def __getitem__(self, field: str) -> Any:
        return self._fields[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and other._canonical == self._canonical

    def __repr__(self) -> str:
        return f"Recipe({self._canonical.decode()})"

    def _repr_html_(self) -> str:
        from featurestore.notebook.facts import facts_table  # only where there is a notebook

        return facts_table(f"Recipe {self.fingerprint[:16]}…", sorted(self.items()))

    @property
    def canonical(self) -> bytes:
        """The recipe as canonical JSON."""
        return self._canonical

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self._canonical).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a new dictionary."""
        copy: dict[str, Any] = json.loads(self._canonical)
        return copy

    def diff(self, other: Recipe) -> list[FieldDifference]:
        """Return the fields in which this recipe and another differ, sorted by name."""
        ours, theirs = _flatten(self._fields), _flatten(other._fields)
        return [
            FieldDifference(field, ours.get(field, ABSENT), theirs.get(field, ABSENT))
            for field in sorted(ours.keys() | theirs.keys())
            # Compared as JSON, as in the fingerprint: 1, 1.0 and true are three values.
            if canonical_json(ours.get(field, ABSENT)) != canonical_json(theirs.get(field, ABSENT))
        ]

    def require_equal(self, wanted: Recipe, *, where: str, remedy: str) -> None:
        """Raise unless another recipe equals this one.

        Parameters
        ----------
        wanted : Recipe
            The recipe asked for; this one is what ``where`` was made with.
        where, remedy : str
            The place this recipe comes from, and what the reader can do.

        Raises
        ------
        RecipeMismatchError
            Naming every field that differs and both values.
        """
        if self != wanted:
            differences = self.diff(wanted)
            shown = [difference for difference in differences if difference.field == "kind"]
            # Of another kind, it has other fields too, which say nothing more.
            if not shown or len(differences) <= _MOST_SHOWN:
                shown = list(differences)
            lines = ["  " + difference.described(f"in {where}", "asked for") for difference in shown]
            if len(shown) < len(differences):
                lines.append(f"  and {len(differences) - len(shown)} fields that go with the kind")
            listed = "\n".join(lines)
            raise RecipeMismatchError(
                f"{where} holds vectors of another recipe:\n{listed}\n{remedy}", differences=differences
            )


def _depth(value: Any) -> int:
    """Return how deeply objects and arrays are nested, without recursion."""
    depth, level = 0, [value]
    while nested := [found for found in level if isinstance(found, (dict, list))]:
        depth += 1
        level = [
            inner for outer in nested for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
