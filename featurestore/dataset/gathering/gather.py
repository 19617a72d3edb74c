"""From stored bytes to tensors: decoding located sentences straight into a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from featurestore.dataset.gathering.buffers import BufferPool
from featurestore.dataset.gathering.compiled import (
    CompiledGather,
    Integers,
    Source,
    compiled_gather,
    gather_together,
    takes,
)
from featurestore.dataset.gathering.decoding import Scratch, copy, decode_int8, sentences_at_once
from featurestore.store.format.codec import Array
from featurestore.store.format.reader import ShardReader
from featurestore.store.store import Store

_INT8 = np.dtype(np.int8)


class RowsInMemory(Protocol):
    """Rows of shards that are in memory already."""

    def rows(self, shard: int, start: int, stop: int) -> Array | None:
        """Return these rows of a shard's values, or None if they are not here."""


class Gatherer:
    """Decodes sentences of a store into tensors.

    Where :mod:`~.compiled` is there, one call of it makes a batch. Otherwise torch does. A call of torch
    costs as much as reading a short sentence, so a whole batch is cast in one call, straight from the mapped
    files. int8 takes several operations: the rows of a few sentences at a time are laid end to end and
    decoded while they are in the cache.

    It can be pickled; the other process opens its own maps.

    Parameters
    ----------
    store : Store
    windows : RowsInMemory, optional
        Asked for rows before the shards are.

    Attributes
    ----------
    compiled : CompiledGather or None
        None where torch does the work.
    """

    def __init__(self, store: Store, windows: RowsInMemory | None = None) -> None:
        self.store, self._windows = store, windows
        self._scratch, self._buffers = Scratch(), BufferPool()
        self.compiled: CompiledGather | None = None
        if windows is None:
            self.compiled = compiled_gather(len(store.manifest.shards), store.token_shape)
        # Indexed by shard number. The extra last entry, reached by -1, stands for missing sentences: no rows.
        n_shards = len(store.manifest.shards)
        self._readers: list[ShardReader | None] = [None] * n_shards
        self._values: list[Any] = [*[None] * n_shards, np.empty(store.vector_shape(0), np.int8)]
        self._bounds: list[Sequence[int]] = [*[()] * n_shards, (0,)]
        self._verified: list[Sequence[int]] = [*[b""] * n_shards, b"\1"]

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"])  # type: ignore[misc]

    def decode_into(self, out: Tensor, shard: int, row: int) -> None:
        """Decode a sentence into a float tensor of shape (n_tokens, dim) or (n_tokens, n_layers, dim).

        Raises
        ------
        DamagedStoreError
            If the stored bytes are not those that were committed.
        """
        self._decode_one(out, self.stored([len(out)], [shard], [row])[0], shard, row)

    def gather_padded(self, out: Tensor, lengths: Integers, shards: Integers, rows: Integers) -> None:
        """Decode sentences into a padded batch.

        Parameters
        ----------
        out : (batch, longest, dim) or (batch, longest, n_layers, dim) float
            On the CPU, contiguous or a slice of the last dimension of what is. Its padding becomes zeros.
        lengths, shards, rows : (batch,) int64, or sequences of int
            Of each sentence; shard and row are -1 for one of zeros.

        Raises
        ------
        DamagedStoreError
            If stored bytes are not those that were committed.
        """
        if not out.numel() or in_one_call([Part(self, shards, rows)], out, lengths, longest=out.shape[1]):
            return
        lengths, shards, rows = _as_lists(lengths, shards, rows)
        pieces = self.stored(lengths, shards, rows)
        dtypes = {piece.dtype for piece in pieces if len(piece)}
        if _INT8 not in dtypes:
            copy(out.flatten(0, 1), self._padded(pieces, [out.shape[1]] * len(out)))
        elif len(dtypes) == 1 and (step := sentences_at_once(out, int8=True)) > 1:
            self._fill_in_chunks(out, pieces, step, shards, rows)
        else:  # long sentences, or shards of several codecs
            self._decode_each(out, pieces, shards, rows)

    def gather_packed(
        self, out: Tensor, lengths: Integers, shards: Integers, rows: Integers, *, into: Tensor | None = None
    ) -> None:
        """Decode sentences without padding: end to end, or each token into a row of its own.

        Parameters
        ----------
        out : (n_tokens, dim) or (n_tokens, n_layers, dim) float
            On the CPU, contiguous or a slice of the last dimension of what is.
        lengths, shards, rows : (batch,) int64, or sequences of int
            Of each sentence; shard and row are -1 for one of zeros.
        into : (n_tokens,) int64, optional
            The row of each token, sentence after sentence; all different.

        Raises
        ------
        DamagedStoreError
            If stored bytes are not those that were committed.
        """
        if not out.numel() or in_one_call([Part(self, shards, rows)], out, lengths, into=into):
            return
        if into is not None:
            end_to_end = self._buffers.empty(tuple(out.shape), out.dtype)
            self.gather_packed(end_to_end, lengths, shards, rows)
            out.index_copy_(0, into, end_to_end)
            return
        lengths, shards, rows = _as_lists(lengths, shards, rows)
        pieces = self.stored(lengths, shards, rows)
        if _INT8 in {piece.dtype for piece in pieces if len(piece)}:
            self._decode_each(out.split_with_sizes(list(lengths)), pieces, shards, rows)
        else:
            copy(out, self._padded(pieces, lengths))

    def stored(self, lengths: Sequence[int], shards: Sequence[int], rows: Sequence[int]) -> list[Array]:
        """Return the rows of sentences as they are stored, checked; none for a shard of -1."""
        self._open(shards)
        values, bounds, verified = self._values, self._bounds, self._verified
        places = list(zip(shards, rows, lengths, strict=True))
        if self._windows is not None or any(values[shard] is None for shard in set(shards)):
            return [self._read(*place) for place in places]
        for shard, row, _ in places:
            if not verified[shard][row]:
                self.store.reader(shard).verify_row(row)
        return [values[s][(start := bounds[s][r]) : start + n] for s, r, n in places]

    def _read(self, shard: int, row: int, n_tokens: int) -> Array:
        """Return a sentence's rows from the windows, or as the store is accessed."""
        reader = self._readers[shard] if shard >= 0 else None
        if reader is None:
            nothing: Array = self._values[shard]
            return nothing
        if self._windows is not None:
            start = reader.bounds[row]
            rows = self._windows.rows(shard, start, start + n_tokens)
            if rows is not None:
                reader.verify_rows(row, rows)
                return rows
        return reader.stored(row)[0]

    def make_ready(self, shards: Integers) -> None:
        """Open shards, and look whether their files are still as long as they were.

        Raises
        ------
        DamagedStoreError
            If one is missing, shorter, or its head is not what was committed.
        """
        (numbers,) = _as_lists(shards)
        self._open(numbers)
        for shard in set(numbers):
            if shard >= 0:
                self.store.reader(shard).require_uncut()

    def _open(self, shards: Sequence[int]) -> None:
        for shard in set(shards):
            if shard >= 0 and self._readers[shard] is None:
                self._open_one(shard)

    def _open_one(self, shard: int) -> None:
        reader = self.store.reader(shard)
        self._values[shard], self._bounds[shard] = reader.values, reader.bounds
        self._verified[shard] = reader.verified
        self._readers[shard] = reader
        if self.compiled is None:
            return
        if reader.values is None or reader.check == "always":
            self.compiled = None  # supports neither
        else:
            self.compiled.open(
                shard,
                reader.values,
                reader.offsets,
                verified=reader.verified,
                checksums=reader.checksums,
                scales=reader.scales,
                norms=reader.norms,
            )

    def _padded(self, pieces: Sequence[Array], rooms: Sequence[int]) -> list[Array]:
        """Return the pieces, each with fewer rows than its room followed by zeros."""
        longest = max(pieces, key=len)
        zeros = self._scratch.zeros((max(rooms), *longest.shape[1:]), longest.dtype)
        padded = []
        for piece, room in zip(pieces, rooms, strict=True):
            padded.append(piece)
            if len(piece) < room:
                padded.append(zeros[len(piece) : room])
        return padded

    def _fill_in_chunks(
        self, out: Tensor, pieces: list[Array], step: int, shards: Sequence[int], rows: Sequence[int]
    ) -> None:
        """Decode int8 sentences into a padded batch, ``step`` of them at a time."""
        longest, shape = out.shape[1], tuple(out.shape[2:])
        staged = self._scratch.empty((step * longest, *shape), _INT8)
        values = torch.from_numpy(staged).view(step, longest, *shape)
        room = torch.from_numpy(self._scratch.empty((step, longest, *shape), np.dtype(np.float32)))
        scales = self._scales([len(piece) for piece in pieces], longest, shards, rows)
        norms = self._norms(shards)
        for first in range(0, len(out), step):
            target = out[first : first + step]
            size, last = len(target), first + len(target)
            padded = self._padded(pieces[first:last], [longest] * size)
            np.concatenate(padded, out=staged[: size * longest])
            decode_int8(target, values[:size], scales[first:last], norms[first:last], room)

    def _scales(
        self, lengths: Sequence[int], longest: int, shards: Sequence[int], rows: Sequence[int]
    ) -> Tensor:
        """Return the scales of a batch of int8 sentences, zeros in the padding; (batch, longest, ...)."""
        shape = self.store.token_shape[:-1]
        scales = np.zeros((len(lengths), longest, *shape), np.float32)
        for target, n, shard, row in zip(scales, lengths, shards, rows, strict=True):
            if n:
                target[:n] = self._scales_of(shard, row, n)
        return torch.from_numpy(scales)

    def _scales_of(self, shard: int, row: int, n_tokens: int) -> Array:
        scales, start = self.store.reader(shard).scales, self._bounds[shard][row]
        return scales[start : start + n_tokens]  # type: ignore[index]

    def _norms(self, shards: Sequence[int]) -> Tensor:
        """Return the norms of a batch of int8 sentences, (batch, 1, ..., dim)."""
        norms: dict[int, Any] = {s: self.store.reader(s).norms for s in set(shards) if s >= 0}
        norms[-1] = next(iter(norms.values()))  # any will do for rows of zeros
        return torch.from_numpy(np.stack([norms[shard] for shard in shards])).unsqueeze(1)

    def _decode_each(
        self, targets: Iterable[Tensor], pieces: list[Array], shards: Sequence[int], rows: Sequence[int]
    ) -> None:
        """Decode sentences one by one, each into a tensor of at least its length; the rest becomes zeros."""
        for target, piece, shard, row in zip(targets, pieces, shards, rows, strict=True):
            target[len(piece) :].zero_()
            if len(piece):
                self._decode_one(target[: len(piece)], piece, shard, row)

    def _decode_one(self, out: Tensor, values: Array, shard: int, row: int) -> None:
        """Decode a sentence into a tensor of its own shape."""
        reader = self.store.reader(shard)
        if reader.norms is None:
            out.copy_(torch.from_numpy(values))
        else:
            scales = torch.from_numpy(self._scales_of(shard, row, len(values)))
            decode_int8(out, torch.from_numpy(values), scales, torch.from_numpy(reader.norms))


class Part(NamedTuple):
    """What fills a part of every row of a batch: a store's gatherer, and where the sentences lie in it.

    ``shards``, ``rows`` (batch,) int64, or sequences of int: -1 for a sentence of zeros.
    """

    gatherer: Gatherer
    shards: Integers
    rows: Integers


def in_one_call(
    parts: Sequence[Part],
    out: Tensor,
    lengths: Integers,
    *,
    longest: int = -1,
    into: Tensor | None = None,
) -> bool:
    """Decode sentences by the compiled gather, if that can be; return whether it was.

    Parameters
    ----------
    parts : sequence of Part
        One after the other in each row.
    out, lengths, into
        As :meth:`Gatherer.gather_padded` and :meth:`Gatherer.gather_packed` take them.
    longest : int
        Rows of a padded sentence; -1 for no padding.

    Raises
    ------
    DamagedStoreError
        If stored bytes are not those that were committed.
    """
    sources, offset = [], 0
    for gatherer, shards, rows in parts:
        if gatherer.compiled is None:
            return False
        sources.append(Source(gatherer.compiled, shards, rows, offset))
        offset += gatherer.compiled.n_numbers
    if not takes(out, offset):
        return False
    rows_of_tokens = None if into is None else into.numpy()
    if gather_together(sources, out, lengths, longest=longest, into=rows_of_tokens):
        return True
    # Something is read for the first time.
    for gatherer, shards, _ in parts:
        gatherer.make_ready(shards)
        if gatherer.compiled is None:
            return False
    if gather_together(sources, out, lengths, longest=longest, into=rows_of_tokens, verify=True):
        return True
    # Damaged, which is an error here; or it cannot be gathered this way.
    for gatherer, shards, rows in parts:
        gatherer.stored(*_as_lists(lengths, shards, rows))
    return False


def _as_lists(*numbers: Integers) -> Iterator[list[int]]:
    """Return integers as lists, which Python iterates over fastest."""
    return (n.tolist() if isinstance(n, np.ndarray) else list(n) for n in numbers)
