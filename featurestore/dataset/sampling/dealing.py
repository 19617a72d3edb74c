"""Batches dealt to processes: those of one step cost alike, all processes make as many steps.

The list of an epoch's batches is dealt from its beginning, one to each process at a step. What was trained on
is therefore always a beginning of the list, however many processes there were, and what is left of it can be
dealt to any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.dataset.sampling.drawing import Key
from featurestore.dataset.sampling.packing import Indices, costs_of, split_to

Uneven = Literal["split", "drop", "pad", "join"]
"""What is done with the last batches of an epoch where they are fewer than the processes."""


def flights(
    batches: Sequence[Indices], lengths: NDArray[np.integer], size: int, offset: int, key: Key
) -> list[Indices]:
    """Return batches in random order, but with those of like cost together in flights.

    Parameters
    ----------
    batches : sequence of arrays
    lengths : (n,) int
        Of all sentences.
    size : int
        Batches of a flight: as many as there are processes.
    offset : int
        Batches that come before these; flights begin at multiples of ``size``.
    key : Key

    Returns
    -------
    list of arrays
        Within a flight, the dearer batches go to those places that had the cheaper ones.
    """
    order = key.order(len(batches))
    if size > 1 and len(batches):
        # Only to those that step together do costs matter.
        order = _alike_together(order, costs_of(batches, lengths), size, offset, key)
    return [batches[i] for i in order.tolist()]


def _alike_together(order: Indices, costs: Indices, size: int, offset: int, key: Key) -> Indices:
    """Return batches in flights of like cost: their numbers, given in random order; see :func:`flights`."""
    head = min(-offset % size, len(costs))
    n_odd = head + (len(costs) - head) % size
    by_cost = order[np.argsort(costs[order], kind="stable")]
    # What completes a flight of other batches is of middling cost, which is likely theirs.
    middle = (len(costs) - n_odd) // 2
    odd = by_cost[middle : middle + n_odd]
    whole = np.delete(by_cost, slice(middle, middle + n_odd)).reshape(-1, size)
    loads = np.zeros(size, np.int64)
    loads[size - head :] += costs[odd[:head]]
    loads[: n_odd - head] += costs[odd[head:]]
    # Those that differ most first, so that the others even out what they leave.
    for row in np.argsort(costs[whole[:, 0]] - costs[whole[:, -1]], kind="stable").tolist():
        cheapest_first = whole[row].copy()
        whole[row, np.argsort(-loads, kind="stable")] = cheapest_first
        loads += costs[whole[row]]
    whole = whole[key.order(len(whole))]
    return np.concatenate([odd[:head], whole.ravel(), odd[head:]])


class Ending(NamedTuple):
    """How a list of batches ends for a number of processes.

    Attributes
    ----------
    start : int
        From here on the list is replaced.
    batches : list of arrays
        By these.
    n_repeated : int
        How many of them, the last ones, are dealt for the second time.
    """

    start: int
    batches: list[Indices]
    n_repeated: int = 0


def ending(
    batches: Sequence[Indices],
    lengths: NDArray[np.integer],
    n_processes: int,
    uneven: Uneven,
    again: Sequence[Indices],
    split: Callable[[Sequence[Indices], int], list[Indices]] = split_to,
) -> Ending:
    """Return how a list of batches ends so that each process gets as many.

    Parameters
    ----------
    batches : sequence of arrays
        What is left to be dealt.
    lengths : (n,) int
        Of all sentences.
    n_processes : int
    uneven : {"split", "drop", "pad", "join"}
        To split as few as possible from the end, in halves, or all of these batches where those do not have
        enough sentences, and to drop what is over where all have one; to drop it; to deal others again; or
        to let some processes have one more.
    again : sequence of arrays
        Batches that may be dealt again.
    split : callable
        Splits batches until they are as many as wanted.
    """
    over = len(batches) % n_processes
    if not over or uneven == "join":
        return Ending(len(batches), [])
    if uneven == "pad":
        missing = n_processes - over
        return Ending(len(batches), [again[i % len(again)] for i in range(missing)], missing)
    if uneven == "split":
        for start in range(len(batches) - over, -1, -n_processes):
            last = batches[start:]
            wanted = -(-len(last) // n_processes) * n_processes
            if sum(map(len, last)) >= wanted:
                pieces = split(last, wanted)
                dearest_first = np.argsort(-costs_of(pieces, lengths), kind="stable")
                return Ending(start, [pieces[i] for i in dearest_first.tolist()])
    return Ending(len(batches) - over, [])
