"""Every error featurestore raises on purpose, in one small tree.

::

    FeaturestoreError                 exit code 1 unless a subclass says otherwise
    ├── UsageError                 2  an argument, option or specification makes no sense
    │   ├── UnknownEncoderError    2  the encoder specification names nothing we know
    │   ├── NotReadBackError       2  a sentence cannot be written so that it reads back as itself
    │   └── StateError             2  a saved state is not of this loader; knows what differs
    ├── SentenceError                 a sentence cannot be keyed or stored (empty, a bare string, too long)
    ├── CorpusError                   an input file cannot be read as asked; knows path and line
    │   ├── LabelError                a label is missing or does not fit its sentence
    │   └── CorpusChangedError        the file changed between planning and encoding
    ├── EncoderError                  an encoder cannot be built or run
    │   ├── WeightsError              weights do not match the options, or the files are not ELMo files
    │   ├── DownloadError             a published model could not be fetched, or is not the pinned file
    │   ├── EncoderRuleError          an encoder breaks a rule that extraction relies on; knows which
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
    ├── DriftError                 4  an encoder's vectors changed though its recipe did not
    ├── AlignmentError                labels and stored tokens disagree
    └── ModelError                    a trained head cannot be loaded, trained or used

A message says what is wrong, where, what was expected and found, and what to do. What a program needs is in
attributes too (None or empty where unknown), which survive pickling; code decides on them, never on the text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from os import PathLike

ABSENT = "(absent)"
"""Value of a recipe field that a recipe does not have."""


class FeaturestoreError(Exception):
    """Root of the tree: catch this to catch everything featurestore raises on purpose."""

    exit_code = 1


class UsageError(FeaturestoreError):
    """An argument, option or specification makes no sense."""

    exit_code = 2


class UnknownEncoderError(UsageError):
    """The encoder specification names nothing we know."""


class NotReadBackError(UsageError):
    """A labelled sentence cannot be written in a format so that it reads back as itself."""


class StateError(UsageError):
    """A saved state is not of the loader that is to go on: the ``field`` that differs, and both values."""

    def __init__(self, message: str, *, field: str = "", expected: Any = None, found: Any = None) -> None:
        super().__init__(message)
        self.field, self.expected, self.found = field, expected, found


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
        1-based number of the line, or of what ``unit`` is: ``row``, ``document``.
    """

    def __init__(
        self, message: str, *, path: str | Path | None = None, line: int | None = None, unit: str = "line"
    ) -> None:
        self.path, self.line, self.unit = path, line, unit
        place = "" if path is None else (f"{path}: " if line is None else f"{path}, {unit} {line}: ")
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


class EncoderRuleError(EncoderError):
    """An encoder breaks a rule that extraction relies on: an error in the encoder.

    Parameters
    ----------
    message : str
    rule : str
        Its name, as in :data:`featurestore.testing.RULES`.
    tokens : tuple of str
        The sentence that shows it, if one does.
    difference : float, optional
        Relative L2 of its vectors, where they differ.
    """

    def __init__(
        self, message: str, *, rule: str, tokens: Sequence[str] = (), difference: float | None = None
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.tokens = tuple(tokens)
        self.difference = difference


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
    """The disk is full, read-only or failing.

    Parameters
    ----------
    message : str
    path : path, optional
        What could not be written.
    n_bytes : int, optional
        How many bytes it needed.
    errno : int, optional
        The operating system's number for the reason, as in :mod:`errno`.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        n_bytes: int | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path = _path_or_none(path)
        self.n_bytes = n_bytes
        self.errno = errno

    @property
    def reason(self) -> str:
        """The operating system's word for the reason; the whole message where it gave no number."""
        return str(self) if self.errno is None else os.strerror(self.errno)


class StoreLimitError(StoreError):
    """Something exceeds a bound of :mod:`featurestore.limits`."""


class VectorError(StoreError):
    """Vectors have the wrong shape, are not finite, or exceed what the codec holds."""


class MissingSentence(NamedTuple):
    """A sentence that is not in the store.

    Attributes
    ----------
    tokens : tuple of str
        Empty where only the key is known.
    key : bytes
        16 bytes.
    place : str
        Where it was read, such as ``train.conllu, line 12``; empty for a sentence in memory.
    """

    tokens: tuple[str, ...]
    key: bytes
    place: str = ""


class MissingSentencesError(StoreError):
    """Sentences asked for are not in the store.

    Parameters
    ----------
    message : str
    sentences : sequence of MissingSentence
        The first of them.
    n_missing, n_wanted : int, optional
        How many are missing, of how many.
    store : path, optional
    paths : sequence of str
        The corpora they were read from, which an `extract` command would name.
    in_other_stores : sequence of MissingSentencesError
        What is missing in further stores, where several were asked.
    """

    def __init__(
        self,
        message: str,
        *,
        sentences: Sequence[MissingSentence] = (),
        n_missing: int | None = None,
        n_wanted: int | None = None,
        store: str | PathLike[str] | None = None,
        paths: Sequence[str] = (),
        in_other_stores: Sequence[MissingSentencesError] = (),
    ) -> None:
        super().__init__(message)
        self.in_other_stores = tuple(in_other_stores)
        self.sentences = tuple(sentences)
        self.n_missing = n_missing
        self.n_wanted = n_wanted
        self.store = _path_or_none(store)
        self.paths = tuple(paths)


class DamagedStoreError(StoreError):
    """Bytes on disk are not the bytes that were committed.

    Parameters
    ----------
    message : str
    path : path, optional
        The damaged file.
    shard : str, optional
        Its name, where it is a shard.
    row : int, optional
        The sentence of the shard, from 0, where one is damaged and the rest may be sound.
    is_gone : bool
        Whether the file is not there at all.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        shard: str | None = None,
        row: int | None = None,
        is_gone: bool = False,
    ) -> None:
        super().__init__(message)
        self.path = _path_or_none(path)
        self.shard = shard
        self.row = row
        self.is_gone = is_gone


class FieldDifference(NamedTuple):
    """One recipe field in which two recipes differ.

    Attributes
    ----------
    field : str
        Nested fields are written ``outer.inner``.
    ours, theirs : JSON value
        In an error: of the store or model, and what was asked for. ``(absent)`` where a recipe lacks the
        field.
    """

    field: str
    ours: Any
    theirs: Any

    def described(self, here: str, there: str) -> str:
        """Return both values as JSON, each with the words that say whose it is."""
        ours, theirs = (v if v == ABSENT else json.dumps(v, sort_keys=True) for v in self[1:])
        return f"{self.field}: {ours} {here}, {theirs} {there}"

    def __str__(self) -> str:
        return self.described("here", "there")


class RecipeMismatchError(FeaturestoreError):
    """The vectors come from another recipe than the one asked for.

    Parameters
    ----------
    message : str
    differences : sequence of FieldDifference
    """

    exit_code = 4

    def __init__(self, message: str, *, differences: Sequence[FieldDifference] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


class DriftError(FeaturestoreError):
    """An encoder's vectors differ from those that its store holds, though the recipe is the same.

    Parameters
    ----------
    message : str
    tokens : tuple of str
        The sentence in which the difference is largest.
    difference : float, optional
        Relative L2 difference of its vectors, of the layer where it is largest.
    """

    exit_code = 4

    def __init__(self, message: str, *, tokens: Sequence[str] = (), difference: float | None = None) -> None:
        super().__init__(message)
        self.tokens = tuple(tokens)
        self.difference = difference


class AlignmentError(FeaturestoreError):
    """Labels and stored tokens disagree.

    Parameters
    ----------
    message : str
    path : path, optional
        The corpus.
    line : int, optional
        1-based, where the sentence begins.
    position : int, optional
        The first token that differs, from 0.
    expected, found : str or None
        That token in the corpus and in the store; None where one has fewer tokens.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        line: int | None = None,
        position: int | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message)
        self.path = _path_or_none(path)
        self.line = line
        self.position = position
        self.expected = expected
        self.found = found


class ModelError(FeaturestoreError):
    """A trained head cannot be loaded, trained or used."""


def _path_or_none(path: str | PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
