"""Work units: the sentences of one shard after another, as any engine encodes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.errors import UsageError
from featurestore.extraction.planning.new import new_examples
from featurestore.extraction.planning.parts import Division
from featurestore.keyarrays import keys_array
from featurestore.keys import Sentence, condition_of
from featurestore.store.missing import depends_on
from featurestore.store.writer import WriteSession


@dataclass(frozen=True)
class Unit:
    """The sentences of one shard, in corpus order, and their keys.

    Attributes
    ----------
    number : int
        From 0, in the order of the shards.
    window : sequence of Example
    keys : sequence of bytes
    """

    number: int
    window: Sequence[Example]
    keys: Sequence[bytes] = field(repr=False)

    @property
    def sentences(self) -> list[Sentence]:
        """What is encoded."""
        return [example.tokens for example in self.window]

    @property
    def n_tokens(self) -> int:
        """Tokens of all sentences."""
        return sum(len(example.tokens) for example in self.window)

    def stripped(self) -> Unit:
        """Return it without labels, to be sent elsewhere."""
        window = [Example(each.tokens, None, each.path, each.line, each.id) for each in self.window]
        return Unit(self.number, window, self.keys)

    @property
    def place(self) -> str:
        """Where its sentences stand, for messages."""
        first, last = self.window[0], self.window[-1]
        return first.place if first is last else f"{first.place} to {last.place}"

    def digest(self, fingerprint: str, codec: str) -> str:
        """Return what names a finished unit: a hash of what its shard is made of but for the vectors."""
        made_of = hashlib.blake2b(f"{fingerprint} {codec} ".encode(), digest_size=16)
        made_of.update(b"".join(self.keys))
        return made_of.hexdigest()

    def without(self, known: NDArray[np.bool_]) -> Unit:
        """Return the unit without some of its sentences."""
        kept = np.flatnonzero(~known).tolist()
        return Unit(self.number, [self.window[i] for i in kept], [self.keys[i] for i in kept])


@dataclass(frozen=True)
class Ticket:
    """What the driver of a run keeps of a unit that was given out.

    Attributes
    ----------
    number, n_tokens, place
        As of the unit.
    name : str
        Its digest.
    keys : (n, 16) uint8
    sent : object
        What travels in place of the unit.
    """

    number: int
    n_tokens: int
    place: str
    name: str
    keys: NDArray[np.uint8] = field(repr=False)
    sent: Any = field(repr=False)

    @classmethod
    def of(cls, unit: Unit, name: str, sent: Any) -> Ticket:
        """Return the ticket of a unit."""
        return cls(unit.number, unit.n_tokens, unit.place, name, keys_array(unit.keys), sent)


def units(
    corpora: Iterable[Corpus], session: WriteSession, division: Division | None = None
) -> Iterator[Unit]:
    """Yield what is not stored yet, a shard's sentences at a time, in corpus order.

    Parameters
    ----------
    corpora : iterable of Corpus
    session : WriteSession
        It says how many tokens fill a shard, and what is stored.
    division : Division, optional
        Yield only what falls to its part.

    Raises
    ------
    UsageError
        If a sentence has a condition, but the vectors of the store depend on tokens alone.
    """
    window: list[Example] = []
    keys: list[bytes] = []
    number, room = 0, session.tokens_per_shard
    depends_on_more = bool(depends_on(session.store.recipe))
    for key, example in new_examples(corpora, _left_out(session, division)):
        if not depends_on_more and condition_of(example.tokens):
            # Its vectors would be stored under a key that no reader asks for.
            raise UsageError(
                f"{example.place} ({' '.join(example.tokens[:8])!r}) comes with a context, but the "
                f"vectors of {session.store.encoder!r} depend on tokens alone: read the corpus without it"
            )
        if window and len(example.tokens) > room:
            yield Unit(number, window, keys)
            number, window, keys, room = number + 1, [], [], session.tokens_per_shard
        window.append(example)
        keys.append(key)
        room -= len(example.tokens)
    if window:
        yield Unit(number, window, keys)


def _left_out(
    session: WriteSession, division: Division | None
) -> Callable[[NDArray[np.uint8]], NDArray[np.bool_]]:
    """Return what says of keys which are not to be encoded: stored, or another part's."""
    if division is None:
        return session.stored
    return lambda keys: session.stored(keys) | ~division.holds(keys)
