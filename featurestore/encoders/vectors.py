"""What encoders hand over: one array of vectors for each sentence of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import EncoderError


class BatchVectors(Sequence["NDArray[np.floating]"]):
    """The vectors of a batch, one array per sentence, all of them views of one: extraction takes that whole.

    Parameters
    ----------
    values : (n_tokens, ...) float
        The sentences end to end.
    lengths : sequence of int
        Tokens of each.
    """

    def __init__(self, values: NDArray[np.floating], lengths: Sequence[int]) -> None:
        self.values = values
        self._ends = list(accumulate(lengths, initial=0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.floating]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.floating]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.floating] | list[NDArray[np.floating]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self.values[self._ends[place] : self._ends[place + 1]]


class PendingVectors(Protocol):
    """Vectors on their way from the device."""

    def result(self) -> Sequence[NDArray[np.floating]]:
        """Wait, then return one array per sentence, as :meth:`Encoder.encode` does; best a BatchVectors.

        What is no BatchVectors is copied. Of one, the values may not be written to again by the encoder:
        they are stored later, in another thread.
        """


class EncodedVectors:
    """Vectors that are there already, as :meth:`Encoder.submit` hands them over."""

    def __init__(self, vectors: Sequence[NDArray[np.floating]]) -> None:
        self._vectors = vectors

    def result(self) -> Sequence[NDArray[np.floating]]:
        """Return them."""
        return self._vectors


def require_vectors(vectors: object, n_sentences: int, encoder: str) -> Sequence[NDArray[np.floating]]:
    """Return what the encoder of a specification gave, made sure to be an array of floats per sentence.

    Raises
    ------
    EncoderError
        If it is something else; shapes are not looked at.
    """
    if isinstance(vectors, BatchVectors):
        found = f"{len(vectors)} arrays"
        if len(vectors) == n_sentences:
            return vectors
    elif not isinstance(vectors, Sequence):
        found = f"a {type(vectors).__name__}"
    elif len(vectors) != n_sentences:
        found = f"{len(vectors)} arrays"
    else:
        other = [v for v in vectors if not isinstance(v, np.ndarray) or v.dtype.kind != "f"]
        if not other:
            return vectors
        kind = f" of {other[0].dtype}" if isinstance(other[0], np.ndarray) else ""
        found = f"a {type(other[0]).__name__}{kind} among them"
    raise EncoderError(
        f"the encoder {encoder!r} returned {found} for {n_sentences} sentences: expected one NumPy "
        "array of floats each, in their order (of a tensor: tensor.cpu().numpy()). This is an error in the "
        "encoder"
    )
