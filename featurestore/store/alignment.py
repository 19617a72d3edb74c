"""Sentences of a corpus looked up in a store: where each lies, its stored tokens compared with its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from featurestore import keys
from featurestore.errors import AlignmentError
from featurestore.keys import Sentence
from featurestore.store.snapshot import Snapshot


class Placed(Protocol):
    """What stands in a corpus, as messages name its place."""

    @property
    def path(self) -> str:
        """File; empty where there is none."""

    @property
    def line(self) -> int:
        """Line in it, from 1; 0 where there is none."""

    @property
    def place(self) -> str:
        """Both, for people."""


class Asked(NamedTuple):
    """Sentences to be looked up, and their keys."""

    sentences: Sequence[Sentence]
    keys: Sequence[bytes]

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> Asked:
        """Return sentences with their keys."""
        return cls(sentences, [keys.sentence_key(tokens) for tokens in sentences])

    def alone(self) -> Asked:
        """Return the sentences without conditions."""
        if not any(map(keys.condition_of, self.sentences)):
            return self
        return self.of([tuple(tokens) for tokens in self.sentences])


def located(store: Snapshot, examples: Sequence[Placed], asked: Asked) -> Iterator[tuple[int, int]]:
    """Yield the shard and row of each sentence, -1 and -1 of one that is missing.

    Parameters
    ----------
    store : Snapshot
    examples : sequence
        Where each sentence stands in its corpus.
    asked : Asked
        The sentences, as many.

    Raises
    ------
    AlignmentError
        If the stored tokens or condition are not those asked for.
    DamagedStoreError
        If the index points to the wrong sentence, or a shard is damaged.
    """
    found = store.locate(asked.keys)
    places = zip(examples, *asked, found.shard.tolist(), found.row.tolist(), strict=True)
    for example, tokens, key, shard, row in places:
        if shard >= 0:
            reader = store.reader_of(shard, row, key)
            same = reader.same_tokens(row, keys.token_bytes(tokens))
            if not same or reader.condition(row) != keys.condition_of(tokens):
                raise _misaligned(store, example, tokens, reader.tokens(row))
        yield shard, row


def _misaligned(store: Snapshot, example: Placed, wanted: Sentence, stored: Sentence) -> AlignmentError:
    """Return the error for an example whose tokens or condition are not the stored ones."""
    if tuple(wanted) == tuple(stored):
        here, there = (f"{keys.condition_of(tokens)!r:.80}" for tokens in (wanted, stored))
        return AlignmentError(
            f"{example.place}: the condition is {here} in the corpus but {there} in the store "
            f"{store.path}: its vectors are those of another context. "
            "Run `featurestore verify` on the store",
            path=example.path or None,
            line=example.line or None,
        )
    pairs = itertools.zip_longest(wanted, stored)
    at, (here, there) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return AlignmentError(
        f"{example.place}: token {at} is {here!r} in the corpus but {there!r} in the store "
        f"{store.path} ({len(wanted)} and {len(stored)} tokens): labels would not line up. "
        "Run `featurestore verify` on the store",
        path=example.path or None,
        line=example.line or None,
        position=at,
        expected=here,
        found=there,
    )
