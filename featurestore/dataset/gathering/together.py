"""Sentences of several stores into one batch, each store into its part of every row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featurestore.dataset.gathering.compiled import gather_together, takes
from featurestore.dataset.gathering.gather import Part, in_one_call
from featurestore.dataset.gathering.resident import Resident


def gather_padded(parts: Sequence[Part], out: Tensor, lengths: NDArray[np.int64]) -> None:
    """Decode sentences into a padded batch.

    Parameters
    ----------
    parts : sequence of Part
        Of stores with one layer each, unless there is one only.
    out : (batch, longest, sum of dim) or, of one store, (batch, longest, n_layers, dim) float
        Contiguous, on the CPU. Its padding becomes zeros.
    lengths : (batch,) int64
        Of each sentence, the same in all stores.

    Raises
    ------
    DamagedStoreError
        If stored bytes are not those that were committed.
    """
    if len(parts) > 1 and out.numel() and in_one_call(parts, out, lengths, longest=out.shape[1]):
        return
    slices = parts_of(out, [part.gatherer.store.dim for part in parts])
    for part, slice_ in zip(parts, slices, strict=True):
        part.gatherer.gather_padded(slice_, lengths, part.shards, part.rows)


def gather_packed(
    parts: Sequence[Part], out: Tensor, lengths: NDArray[np.int64], *, into: Tensor | None = None
) -> None:
    """Decode sentences without padding: end to end, or each token into a row of its own.

    Parameters
    ----------
    parts, lengths
        As :func:`gather_padded`.
    out : (n_tokens, sum of dim) or, of one store, (n_tokens, n_layers, dim) float
        Contiguous, on the CPU.
    into : (n_tokens,) int64, optional
        The row of each token, sentence after sentence; all different.

    Raises
    ------
    DamagedStoreError
        If stored bytes are not those that were committed.
    """
    if len(parts) > 1 and out.numel() and in_one_call(parts, out, lengths, into=into):
        return
    slices = parts_of(out, [part.gatherer.store.dim for part in parts])
    for part, slice_ in zip(parts, slices, strict=True):
        part.gatherer.gather_packed(slice_, lengths, part.shards, part.rows, into=into)


def gather_resident(residents: Sequence[Resident], at: Tensor, mask: Tensor, out: Tensor) -> None:
    """Decode resident sentences into a padded batch.

    Parameters
    ----------
    residents : sequence of Resident
        On one device.
    at : (batch,) int64
        Numbers of the sentences.
    mask : (batch, longest) bool
        True at tokens.
    out : (batch, longest, sum of dim) or, of one store, (batch, longest, n_layers, dim) float
        Contiguous. Its padding becomes zeros. All three lie on the device.
    """
    widths = [resident.dim for resident in residents]
    offsets = itertools.accumulate(widths, initial=0)
    found = (resident.source(at, offset) for resident, offset in zip(residents, offsets, strict=False))
    sources = [source for source in found if source is not None]
    if len(residents) > 1 and out.numel() and len(sources) == len(residents) and takes(out, sum(widths)):
        lengths = mask.sum(1).numpy()
        if gather_together(sources, out, lengths, longest=out.shape[1]):
            return
    for resident, slice_ in zip(residents, parts_of(out, widths), strict=True):
        resident.gather(at, mask, slice_)


def parts_of(out: Tensor, widths: Sequence[int]) -> Sequence[Tensor]:
    """Return the slices of the last dimension that have these widths; of one, all there is."""
    return [out] if len(widths) == 1 else out.split_with_sizes(list(widths), dim=-1)
