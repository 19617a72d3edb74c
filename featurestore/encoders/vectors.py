"""What encoders hand over: one array of vectors for each sentence of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from featurestore.families import Encodes
from featurestore.keys import Sentence
from featurestore.vectors import require_arrays, vector_shape


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
        self.lengths = list(lengths)
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

        Any other sequence is copied. The encoder must not write to the values of a BatchVectors again: they
        are stored later, in another thread.
        """


class EncodedVectors:
    """Vectors that are there already, as :meth:`Encoder.submit` hands them over."""

    def __init__(self, vectors: Sequence[NDArray[np.floating]]) -> None:
        self._vectors = vectors

    def result(self) -> Sequence[NDArray[np.floating]]:
        """Return them."""
        return self._vectors


def require_vectors(
    vectors: object, sentences: Sequence[Sentence], encoder: Encodes
) -> Sequence[NDArray[np.floating]]:
    """Return what an encoder gave, after checking that it is one array of floats per sentence, in order.

    Raises
    ------
    EncoderRuleError
        If it is something else. An array of a shape that fits no sentence is left to the store, which names
        the sentence.
    """
    lengths = list(map(len, sentences))
    if isinstance(vectors, BatchVectors):
        values: object = vectors.values
        if (
            isinstance(values, np.ndarray)
            and values.dtype.kind == "f"
            and values.shape == vector_shape(sum(lengths), encoder.n_layers, encoder.dim)
            and vectors.lengths == lengths
        ):
            return vectors  # without making an array for each sentence
    shapes = [vector_shape(length, encoder.n_layers, encoder.dim) for length in lengths]
    arrays = list(require_arrays(vectors, len(lengths), encoder.spec))
    if sorted(array.shape for array in arrays) == sorted(shapes):
        return list(require_arrays(arrays, len(lengths), encoder.spec, shapes))
    return arrays
