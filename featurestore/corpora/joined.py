"""Several files as one corpus: those of a folder, or those that a pattern matches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featurestore.corpora.contract.corpus import Corpus
from featurestore.corpora.contract.example import Example


class JoinedCorpus(Corpus):
    """Corpora read one after the other; each example tells the file it comes from.

    Parameters
    ----------
    path : str
        The folder or pattern, as given.
    parts : sequence of Corpus
    """

    def __init__(self, path: str, parts: Sequence[Corpus]) -> None:
        self.path, self.parts = path, tuple(parts)
        self.format = ", ".join(sorted({part.format for part in self.parts}))

    def __iter__(self) -> Iterator[Example]:
        for part in self.parts:
            yield from part

    def check_unchanged(self) -> None:
        """Raise CorpusChangedError if a file changed between the first complete pass and the latest."""
        for part in self.parts:
            part.check_unchanged()

    @property
    def bytes_read(self) -> int:
        """Bytes of all files read by the latest pass."""
        return sum(part.bytes_read for part in self.parts)

    @property
    def n_bytes(self) -> int | None:
        """Size of all files on disk; None where that of one is not known."""
        sizes = [part.n_bytes for part in self.parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def n_skipped(self) -> int:
        """How many rows, objects and tokens the latest complete pass left out because they are empty."""
        return sum(part.n_skipped for part in self.parts)

    def identity(self) -> dict[str, Any] | None:
        """Return those of all files in their order; None where that of one is not known."""
        return _all([part.identity() for part in self.parts])

    def identity_read(self) -> dict[str, Any] | None:
        """Return the identity of what the latest complete pass has read."""
        return _all([part.identity_read() for part in self.parts])

    def findings(self) -> dict[str, Any]:
        """Return what was found in each file."""
        return {"parts": [part.findings() for part in self.parts]}

    def recall(self, identity: Mapping[str, Any], findings: Mapping[str, Any]) -> None:
        """Be as after a pass over all files, none of which is read: see :meth:`Corpus.recall`."""
        for part, its_identity, its_findings in zip(
            self.parts, identity["parts"], findings["parts"], strict=True
        ):
            part.recall(its_identity, its_findings)


def _all(identities: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    return None if None in identities else {"parts": identities}
