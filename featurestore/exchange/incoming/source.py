"""What readers of others' vectors share: sentences with their places, and their vectors one by one."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.corpora.contract.example import Example
from featurestore.errors import AlignmentError, CorpusError, VectorError
from featurestore.keys import Sentence

FLOAT_BYTES = (2, 4, 8)
"""Sizes of the floats that vectors may be: float16, float32, float64."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A sentence whose vectors a file holds.

    Attributes
    ----------
    tokens : Sentence
    name : str or int
        What the file calls its vectors.
    place : str
        Where the tokens were read, for messages.
    path : str
        That file.
    line : int
        1-based, 0 if it has none.
    """

    tokens: Sentence
    name: str | int
    place: str
    path: str
    line: int = 0

    @classmethod
    def of(cls, example: Example, name: str | int) -> Arrival:
        """Return the sentence of a corpus under the name that its vectors have."""
        return cls(example.tokens, name, example.place, example.path, example.line)

    def misaligned(self, message: str, **attributes: Any) -> AlignmentError:
        """Return an error that names the sentence and where it stands."""
        shown = " ".join(self.tokens[:8]) + (" ..." if len(self.tokens) > 8 else "")
        return AlignmentError(
            f"{self.place}: {message}\n  {shown}",
            path=self.path or None,
            line=self.line or None,
            **attributes,
        )


class Source(ABC):
    """Vectors in a format of others: :meth:`arrivals` says of which sentences, :meth:`read` returns them.

    Attributes
    ----------
    path : Path
    stated : dict
        What the file says of itself, as plain JSON values.
    n_stored : int
        Sentences in the file; 0 where only the corpus tells.
    """

    path: Path
    stated: dict[str, Any]
    n_stored: int

    @abstractmethod
    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences in order, repeats included; again for each call."""

    @abstractmethod
    def vectors(self, arrival: Arrival) -> NDArray[np.floating]:
        """Return the vectors of a sentence, (n_tokens, dim) or (n_tokens, n_layers, dim), unchecked."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the files whose bytes the vectors are, in a fixed order."""

    def read(self, arrival: Arrival) -> NDArray[np.floating]:
        """Return the vectors of a sentence: one for each token, of finite float16, float32 or float64.

        Raises
        ------
        AlignmentError
            If their number is not that of the tokens.
        VectorError
            If a value is NaN or infinite, or too large for float32.
        CorpusError
            If the file is damaged, or holds something else.
        """
        vectors = self.vectors(arrival)
        if len(vectors) != len(arrival.tokens):
            raise of_other_length(self.path, arrival, len(vectors))
        with np.errstate(over="ignore"):
            stored = vectors.astype(np.float32) if vectors.dtype.itemsize == 8 else vectors
        if not np.isfinite(stored).all():
            place = tuple(np.argwhere(~np.isfinite(stored))[0].tolist())
            value = float(vectors[place])
            held = f"{value:.6g}, too large for float32," if np.isfinite(value) else f"{value}"
            raise VectorError(
                f"{arrival.place}: {self.path} holds {held} in the vector of token {place[0]} "
                f"({arrival.tokens[place[0]]!r}): such a sentence cannot be imported; leave it out of the "
                "corpus, or compute its vectors again"
            )
        return vectors


def of_other_length(path: Path, arrival: Arrival, n_found: int) -> AlignmentError:
    """Return the error of a sentence with another number of vectors than it has tokens."""
    return arrival.misaligned(
        f"the sentence has {len(arrival.tokens):,} tokens, {path} holds {n_found:,} vectors for it "
        f"({str(arrival.name)[:80]}){_blanks_note(arrival.tokens, n_found)}",
        position=min(len(arrival.tokens), n_found),
    )


def _blanks_note(tokens: Sentence, n_found: int) -> str:
    """Return why the numbers may differ: tools that split at every Unicode blank, where this does not."""
    if len(" ".join(tokens).split()) == n_found != len(tokens):
        odd = next((token for token in tokens if token.split() != [token]), "")
        return (
            f"; the tool split at every Unicode blank, and {odd!r} contains one: split it in the corpus too"
        )
    return ""


def require_file(path: Path) -> int:
    """Return the size of a regular file; a pipe may never answer, a device never end.

    Raises
    ------
    CorpusError
        If it is not there, not a file, or may not be read.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise CorpusError("expected a file, found something else", path=path)
        with open(path, "rb"):
            return found.st_size
    except OSError as error:
        raise CorpusError(f"cannot be read: {error.strerror or error}", path=path) from error


def require_shape(path: Path, name: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless an array of this shape and type may hold a sentence's vectors, tokens not first alone.

    Raises
    ------
    CorpusError
        For another type than floats, other than two or three dimensions, or sizes over the bounds.
    """
    if dtype.kind != "f" or dtype.itemsize not in FLOAT_BYTES:
        why = ""
        if dtype.kind in "iu":
            why = "; integers may be quantised, or the bits of bfloat16: convert them to floats first"
        raise CorpusError(f"{name} is of {dtype}, expected float16, float32 or float64{why}", path=path)
    if len(shape) == 1:
        raise CorpusError(
            f"{name} is one vector of {shape[0]:,} values (reduced to one a sentence?): expected one a token",
            path=path,
        )
    if len(shape) not in (2, 3) or not 0 < shape[-1] <= limits.MAX_DIM:
        raise CorpusError(f"{name} has the shape {shape}, expected (tokens, dim) or (layers, tokens, dim)",
                          path=path)  # fmt: skip
