"""Which rows of a transformer's table of subwords its tokenizer can ever ask for.

Flair adds a separator to every tokenizer, used only with context, and a row for it at the end of the table:
drawn at random each time, and not always the separator's own. What is never looked up decides no vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from flair.embeddings import TransformerWordEmbeddings
from flair.embeddings.transformer import SENTENCE_BOUNDARY_TAG
from torch import Tensor

from featurestore.errors import UsageError

SEPARATOR = SENTENCE_BOUNDARY_TAG

_STEP = 4096
"""Rows added up at a time, in float64."""


def uses_separator(member: TransformerWordEmbeddings) -> bool:
    """Return whether the separator stands between a sentence and its context."""
    return bool(member.use_context_separator) and member.context_length > 0


def subword_table(member: TransformerWordEmbeddings) -> Tensor | None:
    """Return the table of subword vectors, (n_rows, n); None where a model has none."""
    try:
        weight = getattr(member.model.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return None
    return weight.detach() if isinstance(weight, Tensor) and weight.ndim == 2 else None


def subword_ids(tokenizer: Any, *, n_rows: int) -> list[int]:
    """Return the rows that a tokenizer can ask for, the separator's left out, sorted."""
    vocabulary = tokenizer.get_vocab()
    return sorted({number for token, number in vocabulary.items() if number < n_rows and token != SEPARATOR})


def runs_of(numbers: Sequence[int]) -> Iterator[slice]:
    """Return sorted numbers as slices of neighbours, so that rows need not be copied to be read."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield slice(members[0], members[-1] + 1)


def fix_separator(member: TransformerWordEmbeddings) -> None:
    """Set a separator that was never trained to the mean of all vectors, around which Flair draws it.

    It is rounded to float16, so that the order in which a processor adds up does not show. The embedding then
    is the one that its specification loads.

    Parameters
    ----------
    member : TransformerWordEmbeddings
        With ``use_context``, just made; changed in place. What it learned about its separator in training
        would be lost.

    Raises
    ------
    UsageError
        If it is something else.
    """
    if not isinstance(member, TransformerWordEmbeddings):
        raise UsageError(
            f"a {type(member).__name__} has no separator: expected a TransformerWordEmbeddings. Of a stack, "
            "fix its members"
        )
    table = subword_table(member)
    if table is None:
        return
    total = torch.zeros(table.shape[1], dtype=torch.float64, device=table.device)
    ids = subword_ids(member.tokenizer, n_rows=len(table))
    for run in runs_of(ids):
        for start in range(run.start, run.stop, _STEP):
            total += table[start : min(start + _STEP, run.stop)].double().sum(0)
    with torch.no_grad():
        row = member.tokenizer.convert_tokens_to_ids(SEPARATOR)
        table[row] = (total / len(ids)).half().to(table.dtype)
