"""Batching: a shard's sentences cut into batches of like length under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches_by_length(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Yield positions in batches of at most ``token_budget`` tokens, padding not counted, longest first.

    The longest come first so that memory runs out at the start, not hours later. A sentence over the
    budget gets a batch of its own. The result is a function of the arguments alone.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sentence.
    token_budget : int
        Tokens a batch may hold; padding, of which sentences of like length need little, is not counted.
    """
    batch: list[int] = []
    room = token_budget
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[position] > room:
            yield batch
            batch, room = [], token_budget
        batch.append(position)
        room -= lengths[position]
    if batch:
        yield batch
