"""What a corpus yields: a sentence with its labels and the place it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from featurestore.keys import Sentence


class MissingLabel(Enum):
    """What stands in the place of a token's label where the corpus has none, and that is intended."""

    IGNORED = "ignored"


IGNORED: Final = MissingLabel.IGNORED
"""Label of tokens that count neither in training nor in evaluation."""

Labels = str | tuple[str | MissingLabel, ...] | None
"""One label for the sentence, one per token, or none."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence with labels.

    Attributes
    ----------
    tokens : tuple of str
        The sentence, never empty.
    labels : str, tuple of str, or None
        One label for the whole sentence, one per token, or none. A token's may be :data:`IGNORED`.
    path : str
        The file it was read from (``-`` for standard input), empty if it was made in memory.
    line : int
        1-based line on which the sentence starts, 0 if it was made in memory.
    """

    tokens: Sentence
    labels: Labels = None
    path: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """``path, line n``, for messages."""
        return f"{self.path}, line {self.line}" if self.path else "an example made in memory"
