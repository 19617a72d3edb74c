"""What a corpus is: a stream of examples that can be read again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from featurestore.corpora.contract.example import Example


class Corpus(ABC):
    """A stream of examples that can be read again; made by :func:`featurestore.open_corpus`.

    Attributes
    ----------
    path : str
        The file as given (``-`` for standard input), or the name of a corpus in memory.
    format : str
        The name of its format, ``memory`` for a corpus in memory.
    """

    path: str
    format: str

    @abstractmethod
    def __iter__(self) -> Iterator[Example]:
        """Yield the examples in the order of the file."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise CorpusChangedError if the latest complete pass read other bytes than the first."""

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """How much of ``n_bytes`` the latest pass has read."""

    @property
    @abstractmethod
    def n_bytes(self) -> int | None:
        """Size of the file on disk (compressed, if it is); None where it is not known (yet)."""

    @property
    def n_skipped(self) -> int:
        """How many rows, objects and tokens the latest complete pass left out because they are empty."""
        return 0

    def identity(self) -> dict[str, Any] | None:
        """Return what decides the examples, as values of JSON; None where that takes reading them.

        The bytes of a file are read and hashed. Corpora of the same identity have the same examples, but for
        the folders in their paths.
        """
        return None

    def identity_read(self) -> dict[str, Any] | None:
        """Return the identity of what the latest complete pass has read; None where there is none."""
        return None

    def findings(self) -> dict[str, Any]:
        """Return what the latest complete pass has found beside the examples, as values of JSON."""
        return {}

    def recall(self, identity: Mapping[str, Any], findings: Mapping[str, Any]) -> None:  # noqa: B027
        """Be as after a complete pass: what that warned of is logged.

        Parameters
        ----------
        identity, findings
            What :meth:`identity_read` and :meth:`findings` returned after one, of this corpus or another of
            the same identity.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are something else; nothing has changed then.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r} ({self.format})>"
