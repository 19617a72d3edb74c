"""Results of a batch, taken apart into those of its sentences: what ``FeatureBatch.restore`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from featurestore.dataset.mapping import one_of
from featurestore.errors import UsageError


class Batch(Protocol):
    """The fields of a :class:`~featurestore.dataset.batch.FeatureBatch` that are needed here."""

    features: Any
    lengths: Tensor
    mask: Tensor
    labels: Tensor | None


def restored(batch: Batch, values: Any, per: Literal["token", "sentence"] | None) -> list[Any]:
    """Return the values of each sentence, in the batch's order, without padding.

    Parameters
    ----------
    batch, values, per
        As in :meth:`featurestore.dataset.batch.FeatureBatch.restore`.

    Raises
    ------
    UsageError
        If the values do not fit the batch, or it does not tell what they are of.
    """
    if isinstance(values, dict):
        each = [restored(batch, of_name, per) for of_name in values.values()]
        return [dict(zip(values, of_sentence, strict=True)) for of_sentence in zip(*each, strict=True)]
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values)
    elif isinstance(values, Tensor) and values.is_nested:
        values = values.values()
    if per is None:
        per = _kind(batch, values)
    if per not in ("token", "sentence"):
        raise UsageError(f"per={per!r}: expected 'token' or 'sentence'")
    lengths = batch.lengths.tolist()
    if per == "token":
        return _of_tokens(batch, values, lengths)
    if isinstance(values, PackedSequence) or _found(values) == "shape ()" or len(values) != len(lengths):
        raise UsageError(
            f"restore: expected {len(lengths)} values, one for each sentence of the batch, found "
            f"{_found(values)}"
        )
    return list(values)


def _kind(batch: Batch, values: Any) -> Literal["token", "sentence"]:
    if isinstance(values, PackedSequence):
        return "token"
    # In a packed batch both kinds are flat, and of one-token sentences they are equally long.
    features = one_of(batch.features)
    if batch.labels is None or isinstance(features, PackedSequence) or features.is_nested:
        form = "is packed" if isinstance(features, PackedSequence) else "is jagged"
        why = "has no labels" if batch.labels is None else form
        raise UsageError(
            f"restore: the batch {why}, which does not tell what the values are of: say per='token' or "
            "per='sentence'"
        )
    return "token" if batch.labels.dim() == 2 else "sentence"


def _of_tokens(batch: Batch, values: Any, lengths: list[int]) -> list[Any]:
    n_sentences, longest, n_tokens = len(lengths), max(lengths, default=0), sum(lengths)
    features = one_of(batch.features)
    if isinstance(features, PackedSequence) and isinstance(values, Tensor) and len(values) == n_tokens:
        values = features._replace(data=values)
    if isinstance(values, PackedSequence):
        values, _ = pad_packed_sequence(values, batch_first=True)
    if isinstance(values, Tensor):
        if tuple(values.shape[:2]) == (n_sentences, longest):
            return [row[:length] for row, length in zip(values, lengths, strict=True)]
        if values.dim() and len(values) == n_tokens:
            return list(torch.split(values, lengths))
    elif isinstance(values, Sequence) and len(values) == n_sentences:
        rows = list(zip(values, lengths, strict=True))
        if all(len(row) in (length, longest) for row, length in rows):
            return [row[:length] for row, length in rows]
    raise UsageError(
        f"restore: expected values of {n_sentences} sentences with {n_tokens} tokens, ({n_sentences}, "
        f"{longest}, ...) or ({n_tokens}, ...), found {_found(values)}; for one value a sentence, "
        "per='sentence'"
    )


def _found(values: Any) -> str:
    shape = getattr(values, "shape", None)
    return f"shape {tuple(shape)}" if shape is not None else f"a {type(values).__name__} of {len(values)}"
