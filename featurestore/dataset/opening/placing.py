"""Placing examples in stores: where each lies, that its tokens are the stored ones, and its labels."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import Example
from featurestore.dataset.labels import LabelSet
from featurestore.dataset.opening.missing import MissingSentences, missing_error
from featurestore.dataset.opening.numbering import LabelNumbering, NumberedLabels
from featurestore.keys import Sentence
from featurestore.store.alignment import Asked, located
from featurestore.store.missing import depends_on
from featurestore.store.store import Store

OnMissing = Literal["error", "skip", "zeros"]
UnseenLabels = Literal["error", "keep"]

_STEP = 4096
"""Examples looked up per call of the index."""


class Places(NamedTuple):
    """Where examples lie in a store: ``shard``, ``row`` (n_examples,) int64, -1 for one that is not in it."""

    shard: NDArray[np.int64]
    row: NDArray[np.int64]


@dataclass(frozen=True)
class Placement:
    """Where examples lie in stores, and what they are labelled.

    Attributes
    ----------
    places : tuple of Places
        In each of the stores.
    lengths : (n_examples,) int64
        Tokens of each example; read-only.
    labels : NumberedLabels
    n_missing : int
        Sentences that are not in all of the stores, also where they are left out.
    n_missing_in : tuple of int
        The sentences that each of the stores lacks.
    teller : int
        The number of the store whose tokens are those of the examples: the first that keeps conditions, else
        the first.
    zeros : mapping of int to tuple of str
        The tokens of the examples that the teller does not hold, by position.
    document_starts : (n_documents,) int64
        The position of each document's first example; empty if the corpus does not tell documents apart.
    """

    places: tuple[Places, ...]
    lengths: NDArray[np.int64]
    labels: NumberedLabels
    n_missing: int
    n_missing_in: tuple[int, ...]
    teller: int
    zeros: Mapping[int, Sentence]
    document_starts: NDArray[np.int64]


def place(
    stores: Sequence[Store],
    examples: Iterable[Example],
    *,
    labels: LabelSet | None,
    unseen_labels: UnseenLabels,
    on_missing: OnMissing,
) -> Placement:
    """Look every example up, compare its tokens with the stored ones, and number its labels.

    Of several stores, those whose vectors depend on tokens alone are asked for the tokens alone, whatever
    condition an example has.

    Parameters
    ----------
    stores : sequence of Store
        At least one.
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
    bare = [len(stores) > 1 and not depends_on(store.recipe) for store in stores]
    teller = bare.index(False) if False in bare else 0
    zeros: dict[int, Sentence] = {}
    missing = [MissingSentences(store) for store in stores]
    shards, rows = ([array("q") for _ in stores] for _ in range(2))
    n_missing, lengths = 0, array("q")
    documents = _Documents()
    numbering = LabelNumbering(labels, keep_unseen=unseen_labels == "keep")
    iterator = iter(examples)
    while chunk := list(itertools.islice(iterator, _STEP)):
        asked = Asked.of([example.tokens for example in chunk])
        alone = asked.alone() if True in bare else asked
        columns = [
            located(store, chunk, alone if without else asked)
            for store, without in zip(stores, bare, strict=True)
        ]
        for example, *found in zip(chunk, *columns, strict=True):
            if min(found)[0] < 0:
                n_missing += 1
                for notes, (shard, _) in zip(missing, found, strict=True):
                    if shard < 0:
                        notes.note(example)
                if on_missing == "error" or on_missing == "skip":
                    continue
                if found[teller][0] < 0:
                    zeros[len(lengths)] = example.tokens
            numbering.add(example)
            documents.add(len(lengths), example)
            for number, (shard, row) in enumerate(found):
                shards[number].append(shard)
                rows[number].append(row)
            lengths.append(len(example.tokens))
    if n_missing and on_missing == "error":
        raise missing_error(missing, len(lengths) + n_missing)
    n_tokens = np.array(lengths, np.int64)
    n_tokens.setflags(write=False)
    places = tuple(
        Places(np.array(shard, np.int64), np.array(row, np.int64))
        for shard, row in zip(shards, rows, strict=True)
    )
    return Placement(
        places=places,
        lengths=n_tokens,
        labels=numbering.finished(),
        n_missing=n_missing,
        n_missing_in=tuple(notes.n_missing for notes in missing),
        teller=teller,
        zeros=zeros,
        document_starts=documents.starts(),
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
