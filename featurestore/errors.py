"""Every error featurestore raises on purpose, in one small tree.

::

    FeaturestoreError                 exit code 1 unless a subclass says otherwise
    ├── UsageError                 2  an argument, option or specification makes no sense
    │   └── UnknownEncoderError    2
    ├── SentenceError                 a sentence cannot be keyed or stored (empty, a bare string, too long)
    ├── CorpusError                   an input file cannot be read as asked; knows path and line
    │   ├── LabelError                a label is missing or does not fit its sentence
    │   └── CorpusChangedError        the file changed between planning and encoding
    ├── EncoderError                  an encoder cannot be built or run
    │   ├── WeightsError              weights do not match the options, or the files are not ELMo files
    │   ├── DownloadError             a published model could not be fetched, or is not the pinned file
    │   └── EncoderOutOfMemory        the batch does not fit; the caller may try a smaller one
    ├── StoreError                    a store cannot be used as asked
    │   ├── NotAStoreError         2  the path is not a store
    │   ├── UnreadableStoreError      this process may not open a file, which may be sound
    │   ├── FormatVersionError        written by a newer featurestore
    │   ├── StoreWriteError           the disk is full, read-only or failing
    │   ├── StoreLimitError           something exceeds a bound of `limits`
    │   ├── VectorError               vectors of the wrong shape, not finite, or beyond what the codec holds
    │   ├── MissingSentencesError     sentences asked for are not in the store
    │   └── DamagedStoreError      3  bytes on disk are not the bytes that were committed
    ├── RecipeMismatchError        4  the vectors come from another recipe than the one asked for
    ├── DriftError                 4  by the same recipe, an encoder gives other vectors than it gave
    ├── AlignmentError                labels and stored tokens disagree
    └── ModelError                    a trained head cannot be loaded, trained or used

A message says what went wrong, where, what was expected and found, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class FeaturestoreError(Exception):
    """Root of the tree: catch this to catch everything featurestore raises on purpose."""

    exit_code = 1


class UsageError(FeaturestoreError):
    """An argument, option or specification makes no sense."""

    exit_code = 2


class UnknownEncoderError(UsageError):
    """The encoder specification names nothing we know."""


class SentenceError(FeaturestoreError):
    """A sentence cannot be keyed or stored."""


class CorpusError(FeaturestoreError):
    """An input file cannot be read as asked.

    Parameters
    ----------
    message : str
        What is wrong, without the place.
    path : str or Path, optional
        The file (``-`` for standard input).
    line : int, optional
        1-based line number.
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        self.path = path
        self.line = line
        place = "" if path is None else (f"{path}: " if line is None else f"{path}, line {line}: ")
        super().__init__(place + message)


class LabelError(CorpusError):
    """A label is missing or does not fit its sentence."""


class CorpusChangedError(CorpusError):
    """A corpus changed between planning and encoding."""


class EncoderError(FeaturestoreError):
    """An encoder cannot be built or run."""


class WeightsError(EncoderError):
    """Weights do not match the options, or the files are not what they should be."""


class DownloadError(EncoderError):
    """A published model could not be fetched, or is not the file it should be."""


class EncoderOutOfMemory(EncoderError):
    """A batch does not fit into memory; a smaller one may."""


class StoreError(FeaturestoreError):
    """A store cannot be used as asked."""


class NotAStoreError(StoreError):
    """The path is not a store."""

    exit_code = 2


class UnreadableStoreError(StoreError):
    """This process may not, or cannot, open a file of the store; its bytes may be sound."""


class FormatVersionError(StoreError):
    """The store was written by a newer featurestore."""


class StoreWriteError(StoreError):
    """The disk is full, read-only or failing."""


class StoreLimitError(StoreError):
    """Something exceeds a bound of :mod:`featurestore.limits`."""


class VectorError(StoreError):
    """Vectors have the wrong shape, are not finite, or exceed what the codec holds."""


class MissingSentencesError(StoreError):
    """Sentences asked for are not in the store."""


class DamagedStoreError(StoreError):
    """Bytes on disk are not the bytes that were committed."""

    exit_code = 3


class RecipeMismatchError(FeaturestoreError):
    """The vectors come from another recipe than the one asked for."""

    exit_code = 4


class DriftError(FeaturestoreError):
    """By the same recipe, an encoder gives other vectors than when its store was made."""

    exit_code = 4


class AlignmentError(FeaturestoreError):
    """Labels and stored tokens disagree."""


class ModelError(FeaturestoreError):
    """A trained head cannot be loaded, trained or used."""
