"""What no real encoder does on demand: run out of memory, return NaN, be slow, be interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from featurestore.encoders.vectors import BatchVectors
from featurestore.errors import EncoderOutOfMemory
from featurestore.extraction.progress import Progress
from featurestore.keys import condition_of
from featurestore.recipe import Recipe


def vector_of(token: str, position: int, condition: bytes = b"", dim: int = 8) -> np.ndarray:
    """A vector that only the token, its place in the sentence and the sentence's condition decide."""
    digest = sha256(f"{position} {token}".encode() + condition).digest()[:dim]
    return np.frombuffer(digest, np.uint8).astype(np.float32) / 8 - 16


def vectors_of(sentence: Sequence[str]) -> np.ndarray:
    return np.stack([vector_of(token, i, condition_of(sentence)) for i, token in enumerate(sentence)])


CONTEXT_RECIPE = Recipe({"kind": "double", "version": 1, "depends_on": {"context": 2}})
"""Of an encoder that looks at what surrounds a sentence; the double always does."""


@dataclass
class _Pending:
    encoder: DoubleEncoder
    sentences: list[tuple[str, ...]]

    def result(self) -> BatchVectors:
        self.encoder.in_flight -= sum(map(len, self.sentences))
        if self.encoder.fails_late and sum(map(len, self.sentences)) > self.encoder.memory_tokens:
            raise EncoderOutOfMemory("the device is full")
        vectors = [vectors_of(sentence) for sentence in self.sentences]
        for sentence, array in zip(self.sentences, vectors, strict=True):
            if self.encoder.nan_in in sentence:
                array[sentence.index(self.encoder.nan_in)] = np.nan
        kept = vectors[self.encoder.returns_fewer :]
        return BatchVectors(np.concatenate([*kept, np.empty((0, 8), np.float32)]), list(map(len, kept)))


@dataclass
class DoubleEncoder:
    """An encoder of 8 dimensions.

    Attributes
    ----------
    memory_tokens : tokens that fit, those of all batches in flight together
    fails_late : run out of memory in ``result()``, for one batch at a time
    nan_in : a token for which NaN is returned
    seconds : that each batch takes
    before_batch : called with the number of the batch
    batches : tokens of every batch asked for
    returns_fewer : return one array less than there are sentences
    drift : added to the vectors of canaries
    """

    memory_tokens: float = float("inf")
    fails_late: bool = False
    nan_in: str = ""
    seconds: float = 0.0
    before_batch: Callable[[int], object] = lambda number: None
    device: str = "cpu"
    token_budget: int = 40
    spec: str = "double:"
    dim: int = 8
    n_layers: int = 1
    recipe: Recipe = field(default_factory=lambda: Recipe({"kind": "double", "version": 1}))
    batches: list[int] = field(default_factory=list)
    in_flight: int = 0
    returns_fewer: bool = False
    drift: float = 0.0

    def submit(self, sentences: Sequence[tuple[str, ...]]) -> _Pending:
        n_tokens = sum(map(len, sentences))
        self.before_batch(len(self.batches))
        self.batches.append(n_tokens)
        time.sleep(self.seconds)
        if not self.fails_late and self.in_flight + n_tokens > self.memory_tokens:
            raise EncoderOutOfMemory("the device is full")
        self.in_flight += n_tokens
        return _Pending(self, list(sentences))

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """At once and past what is counted: nobody but a canary comes this way."""
        return [vectors_of(sentence) + self.drift for sentence in sentences]


class Recorder(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.notices: list[str] = []

    def encoded(self, n_tokens: int) -> None:
        self.events.append(("encoded", n_tokens))

    def committed(self, n_sentences: int, n_tokens: int) -> None:
        self.events.append(("committed", n_sentences, n_tokens))

    def notice(self, message: str) -> None:
        self.notices.append(message)


def draw_sentences(n: int, seed: int = 0, longest: int = 12) -> list[tuple[str, ...]]:
    """Distinct sentences of 1 to ``longest`` made-up words."""
    random = np.random.default_rng(seed)
    return [
        (f"s{seed}.{number}", *(f"w{random.integers(50)}" for _ in range(random.integers(longest))))
        for number in range(n)
    ]


def load_bag(
    rest: str, *, device: str | None, layers: str, precision: str, initial_state: str
) -> DoubleEncoder:
    """Load the double as a family of its own would be."""
    return DoubleEncoder(spec=f"bag:{rest}", device=device or "cpu")
