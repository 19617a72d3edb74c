"""Label sets: label names to the numbers a model is trained on, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from featurestore.errors import LabelError

PADDING_LABEL = -100
"""Label of padding positions: what torch's losses ignore by default."""


@dataclass(frozen=True)
class LabelSet:
    """Distinct label names; a label's number is its position.

    Attributes
    ----------
    names : tuple of str
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {name: number for number, name in enumerate(self.names)})
        if len(self._ids) != len(self.names):
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise LabelError(f"label names must differ; repeated: {repeated}")

    _ids: dict[str, int] = None  # type: ignore[assignment]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelSet:
        """Return the sorted distinct names."""
        return cls(tuple(sorted(set(names))))

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
