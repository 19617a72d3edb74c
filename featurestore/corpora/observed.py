"""A corpus that can be asked what was read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.reading import Observer, Reading, ReadingWarning

_CHUNK = 1024


class ObservedCorpus(Corpus):
    """A corpus whose latest pass can be asked what was read.

    Parameters
    ----------
    corpus : Corpus
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.path, self.format = corpus.path, corpus.format
        self._observer = Observer(corpus)
        self._recalled: Reading | None = None

    def __iter__(self) -> Iterator[Example]:
        self._recalled = None
        observer = self._observer = Observer(self._corpus)
        passed: list[Example] = []
        for example in self._corpus:
            passed.append(example)
            yield example
            if len(passed) == _CHUNK:
                observer.see(passed)
                passed.clear()
        observer.see(passed)

    def check_unchanged(self) -> None:
        """Raise CorpusChangedError if the latest complete pass read other bytes than the first."""
        self._corpus.check_unchanged()

    def identity(self) -> dict[str, Any] | None:
        """Return the corpus's identity, marked as that of a corpus whose reading was observed."""
        identity = self._corpus.identity()
        return identity and {**identity, "observed": True}

    def identity_read(self) -> dict[str, Any] | None:
        """Return the identity of what the latest complete pass has read."""
        identity = self._corpus.identity_read()
        return identity and {**identity, "observed": True}

    def findings(self) -> dict[str, Any]:
        """Return what the corpus has found, and :attr:`reading`."""
        return {"corpus": self._corpus.findings(), "reading": asdict(self.reading)}

    def recall(self, identity: Mapping[str, Any], findings: Mapping[str, Any]) -> None:
        """Be as after a pass over the corpus, which is not read: see :meth:`Corpus.recall`."""
        reading = _reading_from(findings["reading"], self.path)
        self._corpus.recall(identity, findings["corpus"])
        self._recalled = reading

    @property
    def bytes_read(self) -> int:
        """How much of ``n_bytes`` the latest pass has read."""
        return self._corpus.bytes_read

    @property
    def n_bytes(self) -> int | None:
        """Size of the file on disk; None where it is not known."""
        return self._corpus.n_bytes

    @property
    def n_skipped(self) -> int:
        """How many rows, objects and tokens the latest complete pass left out because they are empty."""
        return self._corpus.n_skipped

    @property
    def reading(self) -> Reading:
        """What the latest pass has read, nothing before the first."""
        return self._recalled or self._observer.reading()

    def __repr__(self) -> str:
        return repr(self._corpus)


def _reading_from(fields: Mapping[str, Any], path: str) -> Reading:
    """Return a reading whose fields were written as JSON, of the same bytes at a path.

    Raises
    ------
    KeyError, TypeError, ValueError
        If they are not those of a reading.
    """
    labels = fields["first_labels"]
    return Reading(
        **{
            **fields,
            "path": path,
            "first_tokens": tuple(fields["first_tokens"]),
            "first_labels": tuple(labels) if isinstance(labels, list) else labels,
            "commonest_labels": tuple((str(name), int(n)) for name, n in fields["commonest_labels"]),
            "warnings": tuple(ReadingWarning(**{**each, "path": path}) for each in fields["warnings"]),
        }
    )
