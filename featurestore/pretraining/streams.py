"""Sentences as parallel streams of word types, cut into chunks for truncated back-propagation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.elmo.model.characters import BEGIN_SENTENCE, END_SENTENCE
from featurestore.errors import CorpusError

BEGIN_TYPE, END_TYPE = 0, 1
"""Word types of the markers, first in every :class:`Text`."""


@dataclass(frozen=True)
class Text:
    """A corpus in memory: four bytes a token.

    Attributes
    ----------
    types : list of str
        Distinct words; the begin and end markers are 0 and 1.
    tokens : ndarray of int32, shape (n_tokens,)
        Sentence after sentence, as type numbers.
    ends : ndarray of int64, shape (n_sentences,)
        Where each sentence ends in ``tokens``.
    """

    types: list[str]
    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]]) -> Text:
        """Read sentences; empty ones are left out.

        Raises
        ------
        CorpusError
            If there is no sentence.
        """
        numbers = {BEGIN_SENTENCE: BEGIN_TYPE, END_SENTENCE: END_TYPE}
        parts: list[NDArray[np.int32]] = []
        ends: list[int] = []
        n_tokens = 0
        for sentence in sentences:
            if not sentence:
                continue
            parts.append(np.array([numbers.setdefault(word, len(numbers)) for word in sentence], np.int32))
            n_tokens += len(sentence)
            ends.append(n_tokens)
        if not ends:
            raise CorpusError("no sentence in the text to train on")
        return cls(list(numbers), np.concatenate(parts), np.array(ends, np.int64))

    @property
    def n_sentences(self) -> int:
        """Number of sentences."""
        return int(self.ends.size)

    @property
    def n_tokens(self) -> int:
        """Number of tokens, without markers."""
        return int(self.tokens.size)

    def counts(self) -> Counter[str]:
        """Return how often each word occurs."""
        numbers = np.bincount(self.tokens, minlength=len(self.types))
        return Counter({word: int(n) for word, n in zip(self.types, numbers, strict=True) if n})

    def select(self, sentences: NDArray[np.integer]) -> Text:
        """Return some sentences, with the same types."""
        starts = np.concatenate([[0], self.ends[:-1]])
        parts = [self.tokens[starts[i] : self.ends[i]] for i in sentences]
        return Text(self.types, np.concatenate(parts), np.cumsum([len(part) for part in parts]))

    def split(self, share: float, seed: int) -> tuple[Text, Text]:
        """Return the text without, and with only, a random share of its sentences.

        Raises
        ------
        CorpusError
            If one of them would have no sentence.
        """
        order = np.random.Generator(np.random.PCG64(seed)).permutation(self.n_sentences)
        n_held_out = max(1, round(share * self.n_sentences))
        if n_held_out >= self.n_sentences:
            raise CorpusError(
                f"{self.n_sentences} sentence(s) are too few to hold out a share of {share:g}: give more text"
            )
        return self.select(np.sort(order[n_held_out:])), self.select(np.sort(order[:n_held_out]))


@dataclass(frozen=True)
class Chunk:
    """A chunk of every stream, for both directions.

    Attributes
    ----------
    inputs, targets : ndarray of int32, shape (2, n_steps, n_streams)
        Word types read, and those that follow. Axis 0 is the direction; each in its own reading order.
    scored : ndarray of bool, shape (2, n_steps, n_streams)
        False where the target is the marker that begins the next sentence: it is always right.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    scored: NDArray[np.bool_]


class Streams:
    """A text as parallel streams of marked sentences.

    Sentences are dealt to the streams in a random order (of ``order_seed``), one after another; each is
    ``<S> w1 ... wn </S>`` for the forward direction and its reverse for the backward one, as bilm-tf reads
    them. The chunks of a pass hold every token of the text but a rest shorter than a row of chunks.

    Parameters
    ----------
    text : Text
    n_streams, n_steps : int
    order_seed : int or None
        None keeps the order of the text.
    """

    def __init__(self, text: Text, *, n_streams: int, n_steps: int, order_seed: int | None) -> None:
        order = np.arange(text.n_sentences)
        if order_seed is not None:
            order = np.random.Generator(np.random.PCG64(order_seed)).permutation(text.n_sentences)
        starts = np.concatenate([[0], text.ends[:-1]])
        begin, end = np.array([BEGIN_TYPE], np.int32), np.array([END_TYPE], np.int32)
        parts: list[NDArray[np.int32]] = []
        reversed_parts: list[NDArray[np.int32]] = []
        for i in order:
            words = text.tokens[starts[i] : text.ends[i]]
            parts += [begin, words, end]
            reversed_parts += [end, words[::-1], begin]
        flat = np.stack([np.concatenate(parts), np.concatenate(reversed_parts)])
        n_streams = max(1, min(n_streams, flat.shape[1] // (n_steps + 1)))
        length = (flat.shape[1] - 1) // n_streams
        if length < 1:
            raise CorpusError("the text is too short for a single step of training: give more text")
        rows = np.arange(n_streams) * length
        self._rows = flat, rows
        self._length = length
        self.n_streams: int = n_streams
        self.n_steps: int = min(n_steps, length)
        self.n_chunks: int = length // self.n_steps
        self._first = np.array([BEGIN_TYPE, END_TYPE], np.int32)[:, None, None]

    def __len__(self) -> int:
        return self.n_chunks

    def chunk(self, number: int) -> Chunk:
        """Return one chunk, 0 <= number < n_chunks; the one after them, if any, is the rest and shorter."""
        flat, rows = self._rows
        first = number * self.n_steps
        steps = np.arange(first, min(first + self.n_steps, self._length) + 1)
        types = flat[:, steps[:, None] + rows]
        targets = types[:, 1:]
        return Chunk(types[:, :-1], targets, targets != self._first)

    def whole(self) -> Iterator[Chunk]:
        """Yield every chunk and the rest: all tokens but fewer than there are streams."""
        for number in range(-(-self._length // self.n_steps)):
            yield self.chunk(number)
