"""Label sets: from label names to the numbers a model is trained on, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from featurestore.errors import LabelError, UsageError

PADDING_LABEL = -100
"""Label of padding positions: what torch's losses ignore by default."""


@dataclass(frozen=True, init=False)
class LabelSet:
    """Distinct label names; a label's number is its position.

    Parameters
    ----------
    names : sequence of str

    Attributes
    ----------
    names : tuple of str

    Raises
    ------
    LabelError
        If a name is repeated, or not a str.
    UsageError
        If they are not a sequence (other collections have no positions), or hold the labels of sentences.
    """

    names: tuple[str, ...]
    _ids: dict[str, int] = field(repr=False, compare=False)

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise UsageError(
                f"label names are of type {type(names).__name__}, expected a list or tuple of str in the "
                "order of their numbers; LabelSet.from_names(names) sorts them"
            )
        given: Sequence[object] = names
        nested = next((name for name in given if isinstance(name, (list, tuple))), None)
        if nested is not None:
            raise UsageError(
                f"label names hold a {type(nested).__name__}, {nested!r:.40}: expected the names a model "
                "knows, each once. The labels of sentences are given with them: [Example(tokens, labels) for "
                "tokens, labels in zip(sentences, labels_of_sentences)]"
            )
        require_names(names)
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "_ids", {name: number for number, name in enumerate(names)})
        if len(self._ids) != len(self.names):
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise LabelError(f"label names must differ; repeated: {repeated}")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelSet:
        """Return the sorted distinct names.

        Raises
        ------
        LabelError
            If a name is not a str.
        """
        distinct = list(names)
        require_names(distinct)
        return cls(sorted(set(distinct)))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def id(self, name: str) -> int:
        """Return a label's number.

        Raises
        ------
        LabelError
            If it is not in the set.
        """
        if name not in self._ids:
            raise LabelError(f"label {name!r} is not one of {', '.join(self.names[:20])}")
        return self._ids[name]


def require_names(labels: Iterable[object]) -> None:
    """Check that labels are str.

    Raises
    ------
    LabelError
        For the first that is not.
    """
    for label in labels:
        if not isinstance(label, str):
            remedy = ": str(label)"
            if label is None:
                remedy = ": every token needs a label"
            elif type(label).__name__.startswith(("int", "uint")):
                remedy = ": str(label), or, where a list has their names, names[label]"
            raise LabelError(f"label {label!r:.40} is of type {type(label).__name__}, expected str{remedy}")
