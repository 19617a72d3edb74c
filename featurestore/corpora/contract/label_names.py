"""Labels that are integers, and the names they stand for: what a ClassLabel of the package datasets holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from featurestore.corpora.contract.example import Example
from featurestore.errors import LabelError, UsageError


def checked_label_names(names: Sequence[str] | None, label: object) -> tuple[str, ...] | None:
    """Return the names of labels as readers take them.

    Raises
    ------
    UsageError
        If they are not different strings, or no label is read.
    """
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"label_names are {names!r}: expected a list of names")
    if len(set(names)) != len(names):
        raise UsageError(f"label_names hold a name twice: {', '.join(map(repr, names))}")
    if label is None:
        raise UsageError("label_names name labels, but none are read: say which with label (--label)")
    return tuple(names)


def named(example: Example, names: Sequence[str]) -> Example:
    """Return an example with the names of its labels.

    Raises
    ------
    LabelError
        If a label is not the number of a name.
    """
    labels = example.labels
    if isinstance(labels, str):
        return replace(example, labels=_name(labels, names, example))
    if labels is None:
        return example
    return replace(
        example,
        labels=tuple(_name(label, names, example) if isinstance(label, str) else label for label in labels),
    )


def _name(label: str, names: Sequence[str], example: Example) -> str:
    if label.isascii() and label.isdigit() and int(label) < len(names):
        return names[int(label)]
    raise LabelError(
        f"the label {label!r} is no number from 0 to {len(names) - 1}, as label_names (--label-names) want",
        **example.where,
    )
