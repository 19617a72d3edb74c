"""What a corpus yields: a sentence with its labels and the place it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final

from featurestore.keys import Sentence


class MissingLabel(Enum):
    """What stands in the place of a token's label where the corpus has none, and that is intended."""

    IGNORED = "ignored"


IGNORED: Final = MissingLabel.IGNORED
"""Label of tokens that count neither in training nor in evaluation."""

Labels = str | tuple[str | MissingLabel, ...] | None
"""One label for the sentence, one per token, or none."""


@dataclass(frozen=True, slots=True, init=False)
class Example:
    """A sentence with labels.

    Attributes
    ----------
    tokens : tuple of str
        The sentence, never empty.
    labels : str, tuple of str, or None
        One label for the whole sentence, one per token, or none. A token's may be :data:`IGNORED`.
    path : str
        The file it was read from (``-`` for standard input), empty if it was made in memory; in parentheses
        what messages call an object it was read from.
    line : int
        1-based line on which the sentence starts, 0 if it was made in memory. Where sentences are rows or
        documents, of Parquet or spaCy for instance, the number of that.
    id : str
        Its name in the file (of a FASTA record), empty if it has none. No part of the sentence's key.
    document : str
        The document it belongs to: its name where the file gives one, else its 1-based number in the file;
        empty where the file does not tell documents apart. Consecutive sentences of one file that have the
        same are one document. No part of the sentence's key.
    """

    tokens: Sentence
    labels: Labels = None
    path: str = ""
    line: int = 0
    id: str = ""
    document: str = ""
    unit: ClassVar[str] = "line"

    def __init__(
        self,
        tokens: Sentence,
        labels: Labels = None,
        path: str = "",
        line: int = 0,
        id: str = "",
        document: str = "",
    ) -> None:
        # A reader makes millions of them: what a frozen dataclass does instead takes half as long again.
        _set_tokens(self, tokens)
        _set_labels(self, labels)
        _set_path(self, path)
        _set_line(self, line)
        _set_id(self, id)
        _set_document(self, document)

    @property
    def place(self) -> str:
        """``path, line n`` or ``path, row n``, and the id if there is one, for messages."""
        if not self.path:
            return "an example made in memory"
        return f"{self.path}, {self.unit} {self.line}" + (f" ({self.id})" if self.id else "")

    @property
    def is_of_file(self) -> bool:
        """Whether it was read from a file: objects in memory have names in parentheses."""
        return not self.path.startswith("(") if self.path else False

    @property
    def where(self) -> dict[str, Any]:
        """The place as arguments of :class:`~featurestore.errors.CorpusError`."""
        return {"path": self.path or None, "line": self.line or None, "unit": self.unit}


@dataclass(frozen=True, slots=True, init=False)
class RowExample(Example):
    """A sentence of a table without lines, whose ``line`` is the 1-based number of a row."""

    unit: ClassVar[str] = "row"


@dataclass(frozen=True, slots=True, init=False)
class DocumentExample(Example):
    """A sentence of a list of documents, whose ``line`` is the 1-based number of its document."""

    unit: ClassVar[str] = "document"


_slots: Any = vars(Example)
_set_tokens, _set_labels, _set_path, _set_line, _set_id, _set_document = (
    _slots[name].__set__ for name in ("tokens", "labels", "path", "line", "id", "document")
)
