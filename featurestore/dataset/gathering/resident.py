"""Vectors held in the memory of a device, as they are stored."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.dataset.gathering.buffers import BufferPool
from featurestore.dataset.gathering.compiled import Source, compiled_gather, gather_together, takes
from featurestore.dataset.gathering.decoding import decode_int8, sentences_at_once
from featurestore.dataset.gathering.memory import available_bytes
from featurestore.errors import UsageError
from featurestore.store.format.codec import get_codec
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

_LOAD_BYTES = 64 << 20
"""Stored bytes copied to the device at a time."""


class Resident:
    """The vectors of located sentences, each once, in one tensor on one device.

    Loading compares every checksum. A batch is one ``index_select``, decoded on the device; on a CPU the
    compiled gather does both in one call, where it is there.

    Parameters
    ----------
    store : Store
    shard, row, lengths : (n,) int
        Of each sentence; a shard of -1 gives zeros.
    device : torch.device

    Attributes
    ----------
    n_bytes : int
        Memory used on the device.
    dim : int
        Length of a vector.

    Raises
    ------
    UsageError
        If more memory is needed than is free, or the shards have several codecs.
    DamagedStoreError
        If stored bytes are not those that were committed.
    """

    def __init__(
        self,
        store: Store,
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        lengths: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self.device = device
        self._staging = BufferPool()
        self._shape, self.dim = store.token_shape, store.dim
        stored = np.flatnonzero(shard >= 0)
        # Repeated sentences share their rows. In stored order, shards are read sequentially.
        places, first, back = np.unique(
            np.stack([shard[stored], row[stored]], axis=1), axis=0, return_index=True, return_inverse=True
        )
        sizes = lengths[stored[first]]
        n_rows = int(sizes.sum())
        used = np.unique(places[:, 0]).tolist()
        codecs = {store.manifest.shards[number].codec for number in used}
        if len(codecs) > 1:
            raise UsageError(
                f"resident: the shards of {store.path} have several codecs ({', '.join(sorted(codecs))}), "
                "expected one: leave resident out, or extract with one --codec"
            )
        codec = get_codec(codecs.pop() if codecs else store.manifest.codec)
        # The last row is zeros: the padding.
        self.n_bytes = (n_rows + 1) * codec.bytes_per_token(store.n_layers, store.dim)
        _require_room(self.n_bytes, device, n_rows, store)
        values_dtype = torch.from_numpy(np.empty(0, codec.value_dtype)).dtype
        self._values = torch.empty((n_rows + 1, *self._shape), dtype=values_dtype, device=device)
        self._values[n_rows:].zero_()
        self._scales: Tensor | None = None
        self._norms: Tensor | None = None
        if codec.name == "int8":
            self._scales = torch.zeros((n_rows + 1, *self._shape[:-1]), device=device)
            norms: list[Any] = [store.reader(number).norms for number in used]
            self._norms = torch.from_numpy(np.stack(norms or [np.ones(self._shape, np.float32)])).to(device)
        self._load(store, places, sizes)
        starts = np.full(len(shard), -1, np.int64)
        offsets, back = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64), back.reshape(-1)
        starts[stored] = offsets[back]
        norm = np.zeros(len(shard), np.int64)
        norm[stored] = np.searchsorted(used, shard[stored])
        self._starts, self._norm = (torch.from_numpy(array).to(device) for array in (starts, norm))
        # Every "shard" handed to the compiled gather is the same array; only the norms differ.
        self._compiled = compiled_gather(len(used), self._shape) if device.type == "cpu" else None
        self._numbers = np.where(shard >= 0, norm, -1), np.zeros(len(shard), np.int64), lengths
        self._numbers[1][stored] = back
        if self._compiled is not None:
            scales = None if self._scales is None else self._scales.numpy()
            for number in range(len(used)):
                of_shard = None if self._norms is None else self._norms[number].numpy()
                self._compiled.open(number, self._values.numpy(), offsets, scales=scales, norms=of_shard)

    def source(self, at: Tensor, offset: int = 0) -> Source | None:
        """Return what the compiled gather reads sentences from; None where torch does."""
        if self._compiled is None:
            return None
        return Source(self._compiled, self._numbers[0][at.numpy()], self._numbers[1][at.numpy()], offset)

    def gather(self, at: Tensor, mask: Tensor, out: Tensor) -> None:
        """Decode sentences into a padded batch.

        Parameters
        ----------
        at : (batch,) int64
            Numbers of the sentences.
        mask : (batch, longest) bool
            True at tokens.
        out : (batch, longest, dim) or (batch, longest, n_layers, dim) float
            Its padding becomes zeros. All three lie on the device.
        """
        if not out.numel():
            return
        if (source := self.source(at)) is not None and takes(out, source.compiled.n_numbers):
            lengths = self._numbers[2][at.numpy()]
            if gather_together([source], out, lengths, longest=out.shape[1]):
                return
        starts = self._starts[at].unsqueeze(1)
        rows = starts + torch.arange(out.shape[1], device=self.device)
        rows = torch.where(mask & (starts >= 0), rows, len(self._values) - 1)
        # On a CPU in chunks that stay in its cache; elsewhere in one operation.
        step = len(out)
        if self.device.type == "cpu":
            step = max(1, sentences_at_once(out, int8=self._scales is not None))
        staged = self._staging.empty((step, *out.shape[1:]), self._values.dtype, self.device)
        room: Tensor | None = None
        if self._scales is not None and out.dtype != torch.float32:
            room = self._staging.empty(tuple(staged.shape), torch.float32, self.device)
        for first in range(0, len(out), step):
            target, part = out[first : first + step], rows[first : first + step]
            values = staged[: len(part)]
            torch.index_select(self._values, 0, part.reshape(-1), out=values.flatten(0, 1))
            if self._scales is None or self._norms is None:
                target.copy_(values)
            else:
                norms = self._norms[self._norm[at[first : first + step]]].unsqueeze(1)
                decode_int8(target, values, self._scales[part], norms, room)

    def _load(self, store: Store, places: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        row_bytes = self._values[:1].nbytes
        pieces, scales, start, n_waiting = [], [], 0, 0
        for number, (shard, row) in enumerate(places.tolist()):
            values, scale = store.reader(shard).stored(row)
            pieces.append(values)
            if scale is not None:
                scales.append(scale)
            n_waiting += int(sizes[number])
            if n_waiting * row_bytes >= _LOAD_BYTES or number == len(places) - 1:
                part = slice(start, start + n_waiting)
                self._values[part] = torch.from_numpy(np.concatenate(pieces)).to(self.device)
                if self._scales is not None:
                    self._scales[part] = torch.from_numpy(np.concatenate(scales)).to(self.device)
                pieces, scales, start, n_waiting = [], [], part.stop, 0


def _require_room(n_bytes: int, device: torch.device, n_tokens: int, store: Store) -> None:
    free = available_bytes(device)
    logger.info(
        "%d tokens of %s need %d bytes on %s, %d are free", n_tokens, store.path, n_bytes, device, free
    )
    if n_bytes > free:
        raise UsageError(
            f"resident: {n_tokens:,} tokens of {store.path} need {n_bytes:,} bytes on {device}, where "
            f"{free:,} are free: leave resident out (they are read from mapped memory), store them with "
            "--codec int8, or take a part of the corpus"
        )
