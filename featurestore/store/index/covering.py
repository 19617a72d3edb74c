"""Which files cover the shards of a snapshot, and which of them a new run takes in.

A file holds the keys of a run of successive shards. A new run takes in those before it that are not larger
than all that follows them, so that each is larger than all after it together: n keys have log2(n) runs at
most, and a key that is written again is in a run of twice the size then, which happens log2(n) times at most.
Runs that are small are taken in always: that costs milliseconds, and leaves most stores with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from featurestore.store.index.shardlist import ShardList

SMALL = 1 << 15
"""Keys of a run up to which the next one takes it in, whatever the size of that: a megabyte."""


class Span(Protocol):
    """What covers successive shards."""

    @property
    def first(self) -> int:
        """Number of the first shard."""

    @property
    def stop(self) -> int:
        """Number after that of the last shard."""

    @property
    def n_keys(self) -> int:
        """Keys of all of them."""


AnySpan = TypeVar("AnySpan", bound=Span)


@dataclass(frozen=True)
class Piece(Generic[AnySpan]):
    """Successive shards that one file covers, or none.

    Attributes
    ----------
    first, stop : int
    n_keys : int
        Keys of the file. Where there is none, the keys that the shards may have; if that is unknown, the
        number of shards.
    file : Span or None
    """

    first: int
    stop: int
    n_keys: int
    file: AnySpan | None = None


def cover(files: Sequence[AnySpan], shards: ShardList) -> list[Piece[AnySpan]]:
    """Return pieces that cover all shards, of files as far as possible, and then as few as possible.

    Parameters
    ----------
    files : sequence of Span
        Inside the list of shards; none is empty.
    shards : ShardList
    """
    edges = sorted({0, len(shards), *(edge for file in files for edge in (file.first, file.stop))})
    beginning: dict[int, list[AnySpan]] = {}
    for file in files:
        beginning.setdefault(file.first, []).append(file)
    # Keys to be read from shards, and pieces, on the best way to each edge; the piece it ends with.
    costs = {0: (0, 0)}
    last: dict[int, Piece[AnySpan]] = {}
    for first, following in zip(edges, [*edges[1:], None], strict=True):
        n_read, n_pieces = costs[first]
        ways = [Piece(file.first, file.stop, file.n_keys, file) for file in beginning.get(first, ())]
        if following is not None:
            ways.append(Piece(first, following, _n_keys(shards, first, following)))
        for piece in ways:
            # A shard without keys costs something too: nobody knows before it is read.
            n_more = 0 if piece.file is not None else piece.n_keys + piece.stop - piece.first
            cost = (n_read + n_more, n_pieces + 1)
            if piece.stop not in costs or cost < costs[piece.stop]:
                costs[piece.stop], last[piece.stop] = cost, piece
    pieces: list[Piece[AnySpan]] = []
    at = len(shards)
    while at:
        piece = last[at]
        at = piece.first
        if piece.file is None and pieces and pieces[-1].file is None:
            stop = pieces.pop().stop
            piece = Piece(at, stop, _n_keys(shards, at, stop))
        pieces.append(piece)
    return pieces[::-1]


def n_kept(pieces: Sequence[Piece[AnySpan]]) -> int:
    """Return how many of the first pieces stay as they are; a new run covers all after them.

    All stay where all are files.
    """
    missing = [number for number, piece in enumerate(pieces) if piece.file is None]
    if not missing:
        return len(pieces)
    kept, n_after = len(pieces), 0
    for number in reversed(range(len(pieces))):
        n_keys = pieces[number].n_keys
        if number >= missing[0] or n_keys <= max(n_after, SMALL):
            kept = number
        n_after += n_keys
    return kept


def _n_keys(shards: ShardList, first: int, stop: int) -> int:
    n_keys = shards.n_keys(first, stop)
    return stop - first if n_keys is None else n_keys
