"""Labels of the words of a sentence: a column, or one key of a column of ``Key=Value|Key=Value``."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.corpora.columns.fields import Column, checked
from featurestore.corpora.contract.example import IGNORED, MissingLabel
from featurestore.corpora.contract.options import IGNORE, ReadOptions
from featurestore.errors import LabelError

KEYED = ("feats", "misc")
"""Columns that hold ``Key=Value`` pairs."""

NEVER_EMPTY = ("upos", "xpos", "head", "deprel")
"""Columns of CoNLL-U where ``_`` means "not annotated"; in the others it is a value (no features, a word)."""

_NOTHING = "_"


class WordLabels:
    """Takes the labels of words out of the columns of their sentence.

    Where a word has no label, that is an error, or by ``missing_label="ignore"`` it gets
    :data:`~featurestore.corpora.contract.example.IGNORED`. A word without the key of FEATS has the label
    ``_``, since most features do not apply to most words.

    Parameters
    ----------
    options : ReadOptions
    column : int
        0-based; -1 for the last.
    key : str
        The key of the column to take; empty for the whole column.
    names : sequence of str
        Of the columns; empty if they have none.
    needed : bool
        Whether ``_`` in the column means that the word has no label. Otherwise it is a label like any other.
    """

    def __init__(
        self, options: ReadOptions, column: int, key: str = "", names: Sequence[str] = (), *, needed: bool
    ) -> None:
        self._column, self._key, self._names = column, key, names
        self._options = options
        self._ignore = options.missing_label == IGNORE
        self._name = names[column].upper() if names else str(column + 1)
        self._absent = _NOTHING if key and self._name == "FEATS" else ""
        self._needed = needed
        self._may_miss = bool(key) or self._ignore
        self._found = False

    def column(self, columns: Sequence[Column]) -> Column:
        """Return the column that holds the labels, or their keys."""
        return columns[self._column]

    def of(
        self, columns: Sequence[Column], numbers: Sequence[int], *, is_clean: bool = False
    ) -> tuple[str | MissingLabel, ...]:
        """Return the labels of a sentence's words.

        Parameters
        ----------
        columns : sequence of tuples of str
            Of the words alone.
        numbers : sequence of int
            The words' lines.
        is_clean : bool
            Whether the column is known to have no blanks and no empty fields.

        Raises
        ------
        LabelError
            For the first word without a label, unless these are ignored.
        """
        labels, is_full = columns[self._column], True
        if not is_clean:
            labels, is_full = checked(labels)
        if self._key:
            labels = self._keyed(labels)
            is_full = all(labels)
        if not self._found:
            self._found = not self._may_miss or any(label not in ("", _NOTHING) for label in labels)
        if is_full and not (self._needed and _NOTHING in labels):
            return labels
        missing = ("", _NOTHING) if self._needed else ("",)
        if self._ignore:
            return tuple(IGNORED if label in missing else label for label in labels)
        at = next(i for i, label in enumerate(labels) if label in missing)
        raise LabelError(
            self._message([field for column in columns for field in column[at].split("\t")]),
            path=self._options.path,
            line=numbers[at],
        )

    def require_found(self) -> None:
        """Refuse a file in which no word has the label.

        Raises
        ------
        LabelError
        """
        if self._found:
            return
        what = f"column {self._name}" if not self._names else self._name
        if self._key and self._name == "FEATS":
            what = f"the feature {self._key!r} in FEATS: check the spelling (Number, Tense, ...)"
        elif self._key:
            what = f"the key {self._key!r} in {self._name}: check the spelling"
        else:
            what = f"a label in {what}"
        raise LabelError(f"no word has {what}", path=self._options.path)

    def _keyed(self, values: Column) -> Column:
        prefix = f"{self._key}="
        length = len(prefix)
        labels = []
        for value in values:
            label = self._absent
            if prefix in value:
                for item in value.split("|"):
                    if item.startswith(prefix) and len(item) > length:
                        label = item[length:]
                        break
            labels.append(label)
        return tuple(labels)

    def _message(self, row: list[str]) -> str:
        """Say that a word has no label."""
        remedy = "--missing-label ignore (in Python missing_label='ignore') leaves such words out of account"
        if not self._names:
            return f"column {self._name}, asked for as label, is empty (the line is {row}): {remedy}"
        if self._key:
            items = row[self._column].split("|")
            return (
                f"the word {row[self._form()]!r} has no {self._key!r} in {self._name}, which was asked for "
                f"as label (it has {', '.join(items)}): write {self._key}=O for a word without; {remedy}"
            )
        pairs = [(name.lower(), value) for name, value in zip(self._names, row, strict=False)]
        there = ", ".join(f"{n}={value}" for n, value in pairs if n != "id" and value not in ("", _NOTHING))
        return f"the word has no {self._name}, which was asked for as label (it has {there}): {remedy}"

    def _form(self) -> int:
        lowered = [name.lower() for name in self._names]
        return lowered.index("form") if "form" in lowered else 0


def parted(label: str) -> tuple[str, str]:
    """Return the column and the key that ``feats.KEY`` or ``misc.KEY`` names; for others the label and ""."""
    column, dot, key = label.partition(".")
    return (column, key) if dot and key and column.lower() in KEYED else (label, "")
