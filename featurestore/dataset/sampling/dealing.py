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


def side_by_side(
    parts: Sequence[Sequence[Indices]],
    lengths: NDArray[np.integer],
    size: int,
    shift: int,
    key: Key | None,
) -> list[Indices]:
    """Return the batches of several parts in an order in which each process is dealt those of one part.

    So that all get as many, of like cost, a few batches change places: those in which parts differ in number,
    and as many as bring what the processes carry within a hundredth of each other.

    Parameters
    ----------
    parts : sequence of sequences of arrays
        Not more than processes. Part ``i`` is for all processes whose number leaves the rest ``i``, divided
        by the number of parts.
    lengths : (n,) int
        Of all sentences.
    size : int
        Processes.
    shift : int
        The process that the first batch is for.
    key : Key, optional
        Decides the order of steps; by default they ascend in cost.

    Returns
    -------
    list of arrays
        Those of a step are of like cost.
    """
    batches = [batch for part in parts for batch in part]
    costs = costs_of(batches, lengths)
    counts = np.bincount((shift + np.arange(len(batches))) % size, minlength=size)
    homes: list[list[int]] = [[] for _ in range(size)]
    first = 0
    for number, part in enumerate(parts):
        owners = range(number, size, len(parts))
        by_cost = first + np.argsort(costs[first : first + len(part)], kind="stable")
        for turn, owner in enumerate(owners):
            homes[owner] = by_cost[turn :: len(owners)].tolist()
        first += len(part)
    _even_out(homes, costs, counts)
    head = min(-shift % size, len(batches))
    n_steps, tail = divmod(len(batches) - head, size)
    # Beside whole steps stand batches of middling cost, or at the ends of an ascending order.
    before, after = (None, None) if key is not None else (0, -1)
    begin = [_taken_out(homes[rank], before) for rank in range(shift, shift + head)]
    end = [_taken_out(homes[rank], after) for rank in range(tail)]
    steps = np.array(homes, np.int64).reshape(size, n_steps).T
    if key is not None:
        steps = steps[key.order(n_steps)]
    return [batches[i] for i in [*begin, *steps.ravel().tolist(), *end]]


def _even_out(homes: list[list[int]], costs: Indices, counts: Indices) -> None:
    """Move batches so that each process has as many as counted, of like cost; each ascends in cost."""

    def by_cost(batch: int) -> tuple[int, int]:
        return int(costs[batch]), batch

    spare = [
        _taken_out(home, None)
        for home, n in zip(homes, counts.tolist(), strict=True)
        for _ in range(len(home) - n)
    ]
    loads = np.array([costs[home].sum() for home in homes], np.int64)
    lacking = counts - np.array(list(map(len, homes)))
    for batch in sorted(spare, key=by_cost, reverse=True):
        rank = min(np.flatnonzero(lacking).tolist(), key=lambda rank: loads[rank])
        homes[rank].append(batch)
        loads[rank] += costs[batch]
        lacking[rank] -= 1
    # What each carries above its share of the whole, times the number of batches.
    above = loads * len(costs) - counts * costs.sum()
    for _ in range(4 * len(homes)):
        most, least = int(above.argmax()), int(above.argmin())
        gap = int(above[most] - above[least]) // max(1, len(costs))
        if gap * len(homes) * 100 <= costs.sum():
            break
        ours, theirs = (np.array(sorted(homes[rank], key=by_cost), np.int64) for rank in (most, least))
        # Of each of theirs, the two of ours that are dearer by about half of what is between them.
        near = np.searchsorted(costs[ours], costs[theirs] + gap // 2)
        near = np.clip(np.concatenate([near - 1, near]), 0, len(ours) - 1)
        gains = costs[ours[near]] - np.tile(costs[theirs], 2)
        best = int(np.abs(2 * gains - gap).argmin())
        gain, one, other = int(gains[best]), int(ours[near[best]]), int(theirs[best % len(theirs)])
        if not 0 < gain < gap:
            break
        homes[most][homes[most].index(one)] = other
        homes[least][homes[least].index(other)] = one
        above[[most, least]] += np.array([-gain, gain]) * len(costs)
    for home in homes:
        home.sort(key=by_cost)


def _taken_out(home: list[int], at: int | None) -> int:
    """Remove a batch and return it: by default of middling cost, where they ascend in cost."""
    return home.pop(len(home) // 2 if at is None else at)


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
