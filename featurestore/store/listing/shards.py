"""The shards of a snapshot: a sequence of entries of which most lie in lists, and are made when asked for."""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.store.format.codec import CodecError
from featurestore.store.format.layout import NAME_DIGITS, ShardEntry
from featurestore.store.listing.files import Kind, Lists, Reference, list_file, totals
from featurestore.store.listing.rows import CODECS, Rows, entry_of, names_of, rows_of

MOST_INLINE = 8
"""Entries that a manifest holds itself; with more, all of them become a list."""


class Part:
    """Some successive shards as rows: of a list in the store, or of one that is yet to be written.

    Parameters
    ----------
    kind : Kind
    rows : (n,) ROW, optional
        Read from the list when first needed, unless given.
    reference : Reference, optional
        Where they are a list of the store.
    lists : Lists, optional
        To read it from.
    """

    def __init__(
        self,
        kind: Kind,
        rows: Rows | None = None,
        reference: Reference | None = None,
        lists: Lists | None = None,
    ) -> None:
        self.kind, self.reference = kind, reference
        self._rows, self._lists = rows, lists

    def __getstate__(self) -> dict[str, Any]:
        # Another process reads the list itself.
        again = self.reference is not None and self._lists is not None
        state = {name: value for name, value in vars(self).items() if name != "names"}
        return {**state, "_rows": None} if again else state

    def __len__(self) -> int:
        return self.reference.n_shards if self.reference is not None else len(self.rows)

    @property
    def rows(self) -> Rows:
        """(n,) ROW.

        Raises
        ------
        DamagedStoreError, UnreadableStoreError
            See :meth:`~featurestore.store.listing.files.Lists.read`.
        """
        if self._rows is None:
            if self.reference is None or self._lists is None:
                raise ValueError("a part without rows needs the list to read them from")
            self._rows = self._lists.read(self.reference, self.kind)
        return self._rows

    @property
    def totals(self) -> tuple[int, int, int]:
        """Sentences, tokens and bytes of the shards together."""
        reference = self.reference
        if reference is None:
            return totals(self.rows)
        return reference.n_sentences, reference.n_tokens, reference.n_bytes

    @cached_property
    def names(self) -> NDArray[np.uint8]:
        """(n, 16) uint8."""
        return names_of(self.rows)

    def file_names(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Return the file names of successive shards."""
        return _joined(self.names[start:stop]).decode().split("\n")


class Shards(Sequence[ShardEntry]):
    """The entries of a snapshot's shards, in the order that numbers them.

    Parameters
    ----------
    entries : iterable of ShardEntry
        The last ones, which the manifest holds itself.
    parts : sequence of Part
        Those before them.
    """

    def __init__(self, entries: Iterable[ShardEntry] = (), parts: Sequence[Part] = ()) -> None:
        self.inline = tuple(entries)
        self.parts = tuple(parts)
        self._ends = list(itertools.accumulate(map(len, self.parts)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in ("inline", "parts", "_ends")}

    @property
    def _n_listed(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return self._n_listed + len(self.inline)

    @overload
    def __getitem__(self, number: int) -> ShardEntry: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[ShardEntry, ...]: ...

    def __getitem__(self, number: int | slice) -> ShardEntry | tuple[ShardEntry, ...]:
        if isinstance(number, slice):
            return tuple(self[each] for each in range(*number.indices(len(self))))
        position = number + len(self) if number < 0 else number
        if not 0 <= position < len(self):
            raise IndexError(f"shard {number} of {len(self):,}")
        if position >= self._n_listed:
            return self.inline[position - self._n_listed]
        chosen = int(np.searchsorted(self._ends, position, side="right"))
        part = self.parts[chosen]
        return entry_of(part.rows[position - self._ends[chosen]], part.kind.token_shape)

    def __iter__(self) -> Iterator[ShardEntry]:
        for part in self.parts:
            for row in part.rows:
                yield entry_of(row, part.kind.token_shape)
        yield from self.inline

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Shards):
            references = self.references
            if references == other.references and len(references) == len(self.parts) == len(other.parts):
                return self.inline == other.inline
        if isinstance(other, (Shards, tuple)):
            return len(self) == len(other) and all(map(ShardEntry.__eq__, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as of the entries

    def __repr__(self) -> str:
        return f"Shards({len(self):,}: {len(self.parts)} lists, {len(self.inline)} entries)"

    @property
    def references(self) -> list[Reference]:
        """The lists that lie in the store."""
        return [part.reference for part in self.parts if part.reference is not None]

    @property
    def n_sentences(self) -> int:
        """Of all shards."""
        return sum(part.totals[0] for part in self.parts) + sum(e.n_sentences for e in self.inline)

    @property
    def n_tokens(self) -> int:
        """Of all shards."""
        return sum(part.totals[1] for part in self.parts) + sum(e.n_tokens for e in self.inline)

    @property
    def n_bytes(self) -> int:
        """Of all shards' files."""
        return sum(part.totals[2] for part in self.parts) + sum(e.n_bytes for e in self.inline)

    @cached_property
    def sizes(self) -> NDArray[np.uint64]:
        """Sentences of each shard; (n,) uint64."""
        return self._column(lambda rows: rows["n_sentences"], lambda entry: entry.n_sentences)

    @cached_property
    def file_bytes(self) -> NDArray[np.uint64]:
        """Bytes of each shard's file; (n,) uint64."""
        return self._column(lambda rows: rows["n_bytes"], lambda entry: entry.n_bytes)

    @cached_property
    def hashes(self) -> NDArray[np.uint8]:
        """The first 16 bytes of each shard's SHA-256, which name it; (n, 16) uint8."""
        own = b"".join(bytes.fromhex(entry.sha256[:NAME_DIGITS]) for entry in self.inline)
        parts = [part.names for part in self.parts]
        return np.concatenate([*parts, np.frombuffer(own, np.uint8).reshape(-1, NAME_DIGITS // 2)])

    def names(self) -> list[str]:
        """Return the file name of each shard."""
        return self.joined_names().decode().split("\n") if len(self) else []

    def joined_names(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the file names of successive shards, with line ends between them."""
        return _joined(self.hashes[start:stop])

    def codecs(self) -> dict[str, int]:
        """Return how many shards each codec has, in the order in which they first come."""
        numbers = self._column(lambda rows: rows["codec"], lambda entry: CODECS.index(entry.codec))
        found, first, counts = np.unique(numbers, return_index=True, return_counts=True)
        return {CODECS[int(found[i])]: int(counts[i]) for i in np.argsort(first)}

    def error(self) -> CodecError:
        """Return what the codecs lost, added up over all shards."""
        total = CodecError()
        for part in self.parts:
            measured, columns = part.rows["measured"].astype(np.float64), part.rows["error"]
            n = int(part.rows["measured"].sum(dtype=np.uint64))
            squared_error, squared_norm = columns[:, 0].sum(), columns[:, 1].sum()
            distance = float(columns[:, 3] @ measured) / n if n else 0.0
            most = float(columns[:, 2].max(initial=0))
            total += CodecError(n, float(squared_error), float(squared_norm), most, distance)
        return sum((entry.error for entry in self.inline), total)

    def positions(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of each shard of these file names, -1 where there is none; (n,) int64."""
        digits = "".join(name[:NAME_DIGITS] for name in names)
        return self._found(np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, NAME_DIGITS // 2))

    def besides(self, other: Shards) -> NDArray[np.int64]:
        """Return the numbers of the shards that another snapshot does not have, ascending; (n,) int64."""
        ours, theirs = self.hashes, other.hashes
        same = 0
        if len(theirs) <= len(ours) and np.array_equal(ours[: len(theirs)], theirs):
            same = len(theirs)  # nearly always, as shards are added at the end
        elif len(ours) < len(theirs) and np.array_equal(ours, theirs[: len(ours)]):
            same = len(ours)
        rest = np.arange(same, len(ours))
        return rest[other._found(ours[same:]) < 0]

    def require_distinct(self) -> None:
        """Raise ValueError if a shard is listed twice."""
        words = np.sort(_first_words(self.hashes))
        if (words[1:] == words[:-1]).any() and len(set(self.names())) != len(self):
            raise ValueError("it lists a shard twice")

    def appended(self, entries: Iterable[ShardEntry]) -> Shards:
        """Return these shards and more."""
        return Shards((*self.inline, *entries), self.parts)

    def replaced(self, changes: Mapping[str, ShardEntry | None]) -> Shards:
        """Return shards of which some, by their names, are others, or left out.

        A shard that is listed already is not listed a second time.
        """
        seen: set[str] = set()

        def kept(entries: Sequence[ShardEntry]) -> list[ShardEntry]:
            left = [changes.get(entry.name, entry) for entry in entries]
            chosen = [entry for entry in left if entry is not None and entry.name not in seen]
            chosen = list({entry.name: entry for entry in chosen}.values())
            seen.update(entry.name for entry in chosen)
            return chosen

        added = [entry.name for entry in changes.values() if entry is not None]
        touched = set(self.positions([*changes, *added]).tolist()) - {-1}
        parts = []
        for part, end in zip(self.parts, self._ends, strict=True):
            if touched.isdisjoint(range(end - len(part), end)):
                parts.append(part)
                continue
            shape = part.kind.token_shape
            rows = rows_of(kept([entry_of(row, shape) for row in part.rows]), shape)
            parts.append(Part(part.kind, rows))
        return Shards(kept(self.inline), [part for part in parts if len(part)])

    def settled(
        self,
        kind: Kind,
        write: Callable[[Reference, list[bytes]], Lists],
        most_inline: int = MOST_INLINE,
    ) -> Shards:
        """Return the same shards with few inline, and lists of which none is half as long as the next one.

        So every entry is written about as often as the number of entries can be halved, and there are no
        more lists than that.

        Parameters
        ----------
        kind : Kind
        write : callable
            Puts a new list into the store, given the parts of its file; returns the lists of the store.
        most_inline : int
        """
        parts, inline = list(self.parts), self.inline
        if len(inline) > most_inline:
            step = limits.MAX_LIST_SHARDS
            for start in range(0, len(inline), step):
                parts.append(Part(kind, rows_of(inline[start : start + step], kind.token_shape)))
            inline = ()
        stack: list[list[Part]] = []
        for part in parts:
            stack.append([part])
            while len(stack) > 1 and _joinable(*stack[-2:]):
                last = stack.pop()
                stack[-1] += last
        return Shards(inline, [_written(group, kind, write) for group in stack])

    def _column(
        self, of_rows: Callable[[Rows], Any], of_entry: Callable[[ShardEntry], int]
    ) -> NDArray[np.uint64]:
        own = np.fromiter(map(of_entry, self.inline), np.uint64, len(self.inline))
        return np.concatenate([*(of_rows(part.rows).astype(np.uint64) for part in self.parts), own])

    @cached_property
    def _by_word(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        words = _first_words(self.hashes)
        order = np.argsort(words, kind="stable")
        return words[order], order

    def _found(self, wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the number of the shard of each (n, 16) uint8 hash, -1 where there is none."""
        found = np.full(len(wanted), -1, np.int64)
        if not len(wanted) or not len(self):
            return found
        ordered, order = self._by_word
        words = _first_words(wanted)
        first, stop = np.searchsorted(ordered, words), np.searchsorted(ordered, words, side="right")
        hit = np.flatnonzero(stop > first)
        if (stop - first).max(initial=0) > 1:  # hashes that somebody made up
            known = {each.tobytes(): number for number, each in enumerate(self.hashes)}
            return np.array([known.get(each.tobytes(), -1) for each in wanted], np.int64)
        numbers = order[first[hit]]
        same = (self.hashes[numbers] == wanted[hit]).all(axis=1)
        found[hit[same]] = numbers[same]
        return found


def _joined(hashes: NDArray[np.uint8]) -> bytes:
    """Return the names of files, with line ends between them."""
    # One hash a row, and room for the rest of the name after it.
    lines = np.empty((len(hashes), NAME_DIGITS + 4), np.uint8)
    digits = np.frombuffer(binascii.hexlify(hashes.tobytes()), np.uint8)
    lines[:, :NAME_DIGITS] = digits.reshape(-1, NAME_DIGITS)
    lines[:, NAME_DIGITS:] = np.frombuffer(b".h5\n", np.uint8)
    return lines.tobytes()[:-1]


def _first_words(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = np.ascontiguousarray(hashes).view("<u8").reshape(-1, 2)[:, 0].copy()
    return words


def _joinable(one: Sequence[Part], next_one: Sequence[Part]) -> bool:
    before, after = sum(map(len, one)), sum(map(len, next_one))
    return before < 2 * after and before + after <= limits.MAX_LIST_SHARDS


def _written(group: Sequence[Part], kind: Kind, write: Callable[[Reference, list[bytes]], Lists]) -> Part:
    if len(group) == 1 and group[0].reference is not None:
        return group[0]
    rows = np.concatenate([part.rows for part in group])
    reference, content = list_file(rows, kind)
    return Part(kind, rows, reference, write(reference, content))
