"""Placing examples in a store: where each lies, that its tokens are the stored ones, and its labels."""

from __future__ import annotations

import itertools
import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurestore import keys
from featurestore.corpora.contract.example import Example
from featurestore.dataset.labels import LabelSet
from featurestore.dataset.opening.missing import MissingSentences
from featurestore.dataset.opening.numbering import LabelNumbering, NumberedLabels
from featurestore.errors import AlignmentError
from featurestore.keys import Sentence
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

OnMissing = Literal["error", "skip", "zeros"]
UnseenLabels = Literal["error", "keep"]

_STEP = 4096
"""Examples looked up per call of the index."""


@dataclass(frozen=True)
class Placement:
    """Where examples lie in a store, and what they are labelled.

    Attributes
    ----------
    shard, row : (n_examples,) int64
        -1 for an example that is not in the store.
    lengths : (n_examples,) int64
        Tokens of each example; read-only.
    labels : NumberedLabels
    n_missing : int
        Sentences that are not in the store, also where they are left out.
    zeros : mapping of int to tuple of str
        The tokens of the examples that have no place, by position.
    document_starts : (n_documents,) int64
        The position of each document's first example; empty if the corpus does not tell documents apart.
    """

    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NumberedLabels
    n_missing: int
    zeros: Mapping[int, Sentence]
    document_starts: NDArray[np.int64]


def place(
    store: Store,
    examples: Iterable[Example],
    *,
    labels: LabelSet | None,
    unseen_labels: UnseenLabels,
    on_missing: OnMissing,
) -> Placement:
    """Look every example up, compare its tokens with the stored ones, and number its labels.

    Parameters
    ----------
    store : Store
    examples : iterable of Example
        Read once; none of them is kept.
    labels : LabelSet, optional
        The labels that are known; by default those that are met.
    unseen_labels : {"error", "keep"}
    on_missing : {"error", "skip", "zeros"}

    Raises
    ------
    MissingSentencesError, AlignmentError, LabelError, CorpusError, SentenceError
        As :class:`~featurestore.dataset.features.FeatureDataset`.
    """
    zeros: dict[int, Sentence] = {}
    missing = MissingSentences()
    shard, row, lengths = array("q"), array("q"), array("q")
    documents = _Documents()
    numbering = LabelNumbering(labels, keep_unseen=unseen_labels == "keep")
    iterator = iter(examples)
    while chunk := list(itertools.islice(iterator, _STEP)):
        for example, s, r in _located(store, chunk):
            if s < 0:
                missing.note(example)
                if on_missing == "error" or on_missing == "skip":
                    continue
                zeros[len(shard)] = example.tokens
            numbering.add(example)
            documents.add(len(shard), example)
            shard.append(s)
            row.append(r)
            lengths.append(len(example.tokens))
    if missing.n_missing and on_missing == "error":
        raise missing.error(store, len(shard) + missing.n_missing)
    if missing.n_missing:
        logger.warning("%d sentences are not in %s: %s", missing.n_missing, store.path, on_missing)
    n_tokens = np.array(lengths, np.int64)
    n_tokens.setflags(write=False)
    return Placement(
        np.array(shard, np.int64),
        np.array(row, np.int64),
        n_tokens,
        numbering.finished(),
        missing.n_missing,
        zeros,
        documents.starts(),
    )


class _Documents:
    """Where documents begin among the examples."""

    def __init__(self) -> None:
        self._starts = array("q")
        self._latest: tuple[str, str] | None = None
        self._are_told_apart = False

    def add(self, position: int, example: Example) -> None:
        """Take in the next example, which gets this position."""
        document = example.path, example.document
        if document != self._latest:
            self._latest = document
            self._starts.append(position)
            self._are_told_apart = self._are_told_apart or bool(example.document)

    def starts(self) -> NDArray[np.int64]:
        """Return the positions at which documents begin, none if the corpus does not tell them apart."""
        return np.array(self._starts if self._are_told_apart else (), np.int64)


def _located(store: Store, chunk: Sequence[Example]) -> Iterator[tuple[Example, int, int]]:
    """Yield each example with its shard and row (-1 if missing), its stored tokens checked."""
    wanted = [keys.sentence_key(example.tokens) for example in chunk]
    found = store.locate(wanted)
    places = zip(chunk, wanted, found.shard.tolist(), found.row.tolist(), strict=True)
    for example, key, shard, row in places:
        if shard >= 0:
            reader = store.reader_of(shard, row, key)
            same = reader.same_tokens(row, keys.token_bytes(example.tokens))
            if not same or reader.condition(row) != keys.condition_of(example.tokens):
                raise _misaligned(store, example, reader.tokens(row))
        yield example, shard, row


def _misaligned(store: Store, example: Example, stored: Sentence) -> AlignmentError:
    """Return the error for an example whose tokens or condition are not the stored ones."""
    if tuple(example.tokens) == tuple(stored):
        here, there = (f"{keys.condition_of(tokens)!r:.80}" for tokens in (example.tokens, stored))
        return AlignmentError(
            f"{example.place}: the condition is {here} in the corpus but {there} in the store "
            f"{store.path}: its vectors are those of another context. "
            "Run `featurestore verify` on the store",
            path=example.path or None,
            line=example.line or None,
        )
    pairs = itertools.zip_longest(example.tokens, stored)
    at, (here, there) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return AlignmentError(
        f"{example.place}: token {at} is {here!r} in the corpus but {there!r} in the store "
        f"{store.path} ({len(example.tokens)} and {len(stored)} tokens): labels would not line up. "
        "Run `featurestore verify` on the store",
        path=example.path or None,
        line=example.line or None,
        position=at,
        expected=here,
        found=there,
    )
