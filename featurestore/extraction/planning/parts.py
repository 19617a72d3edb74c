"""Parts: one extraction divided among processes that know nothing of each other.

A sentence falls to a part by its key, so none falls to two. Keys lie in groups by their first two bytes;
every process adds up what the sentences of each group cost, over all corpora and whatever is stored already,
and deals the groups out, the dearest first, each to the part that has least. All of them arrive at the same
division, because the costs are whole numbers that neither machine nor store decides.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import UsageError

MOST_PARTS = 4096

_GROUPS = 1 << 16
_UNITS = 1000
"""Costs are counted in thousandths of what a token of a short sentence costs."""


@dataclass(frozen=True)
class Part:
    """One of ``count`` parts, counted from 0.

    Raises
    ------
    UsageError
        If there is no such part, or the SLURM array that it comes from is not counted from 0 without gaps.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        last = self.count - 1
        if not 1 <= self.count <= MOST_PARTS:
            raise UsageError(f"{self.count:,} parts: expected 1 to {MOST_PARTS:,}")
        if not 0 <= self.index <= last or _is_in_other_array(self, os.environ):
            raise UsageError(
                f"part {self}: parts are counted from 0, so {self.count} are 0/{self.count} to "
                f"{last}/{self.count}, and all of them have to run. Of a SLURM array: --array=0-{last}; the "
                "RANK of torchrun counts so by itself"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def of(cls, given: str | Sequence[int] | Part) -> Part:
        """Return the part that ``"2/8"`` or ``(2, 8)`` means.

        Raises
        ------
        UsageError
            If it has another form, or there is no such part.
        """
        if isinstance(given, Part):
            return given
        if isinstance(given, str):
            match = re.fullmatch(r"\s*(-?[0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", given)
            numbers: Sequence[object] = [int(match[1]), int(match[2])] if match else []
        else:
            numbers = list(given) if isinstance(given, Sequence) else []
        if len(numbers) == 2:
            index, count = numbers
            if type(index) is int and type(count) is int:
                return cls(index, count)
        raise UsageError(
            f"{given!r} is no part: write I/N, part I of N counted from 0, such as 0/8 "
            '(in a SLURM array "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")'
        )


def _is_in_other_array(part: Part, environment: Mapping[str, str]) -> bool:
    """Return whether a part is this task of a SLURM array in which others run than parts 0 to N - 1."""
    named = {name: environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "COUNT", "MIN", "MAX")}
    if not all(value.isdigit() for value in named.values()):
        return False
    task, count, first, last = (int(value) for value in named.values())
    return (part.index, part.count) == (task, count) and (first, last) != (0, count - 1)


@dataclass(frozen=True)
class Share:
    """What falls to one part.

    Attributes
    ----------
    n_sentences, n_tokens : int
        To be encoded.
    cost : float
        Its share of what all parts have to encode, between 0 and 1, longer sentences costing more.
    """

    n_sentences: int
    n_tokens: int
    cost: float


@dataclass(frozen=True)
class Division:
    """Which sentences fall to which part, and what all parts have to do.

    Attributes
    ----------
    part : Part
    shares : tuple of Share
        One for each part.
    part_of_group : (65536,) int
        By the first two bytes of a key.
    """

    part: Part
    shares: tuple[Share, ...]
    part_of_group: NDArray[np.int64]

    def holds(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which (n, 16) uint8 keys fall to this part; (n,) bool."""
        mine: NDArray[np.bool_] = self.part_of_group[_groups(keys)] == self.part.index
        return mine


class Groups:
    """What the sentences of each group of keys come to, while a plan reads them.

    Parameters
    ----------
    part : Part
    cost : callable
        From the length of a sentence to what each of its tokens costs: the same on every machine.
    expected : callable
        The same for this machine, for the time that its part takes.
    """

    def __init__(self, part: Part, cost: Callable[[int], float], expected: Callable[[int], float]) -> None:
        self._part, self._cost, self._expected = part, cost, expected
        self._costs = np.zeros(_GROUPS, np.int64)
        self._counts = np.zeros((4, _GROUPS), np.int64)
        self._new_costs, self._weighted = np.zeros(_GROUPS, np.int64), np.zeros(_GROUPS)
        self._longest: dict[int, tuple[int, str]] = {}

    def see(self, keys: NDArray[np.uint8], lengths: Sequence[int]) -> None:
        """Add the cost of sentences that were not seen before, stored or not."""
        costs = [round(_UNITS * n * self._cost(n)) for n in lengths]
        np.add.at(self._costs, _groups(keys), costs)

    def add(self, key: NDArray[np.uint8], n_tokens: int, n_bytes: int, n_condition: int, place: str) -> None:
        """Add a sentence that is to be encoded; ``key`` is (16,) uint8."""
        group = int(_groups(key[None])[0])
        self._counts[:, group] += (1, n_tokens, n_bytes, n_condition)
        self._new_costs[group] += round(_UNITS * n_tokens * self._cost(n_tokens))
        self._weighted[group] += n_tokens * self._expected(n_tokens)
        if n_tokens > self._longest.get(group, (0, ""))[0]:
            self._longest[group] = n_tokens, place

    def divided(self) -> tuple[Division, dict[str, Any]]:
        """Return the division, and of this part the numbers that a plan counts, by their names."""
        count = self._part.count
        part_of = _dealt(self._costs, count)
        costs, n_sentences, n_tokens = (
            np.bincount(part_of, values, count) for values in (self._new_costs, *self._counts[:2])
        )
        total = max(1.0, float(costs.sum()))
        shares = tuple(
            Share(int(n), int(tokens), float(cost) / total)
            for n, tokens, cost in zip(n_sentences, n_tokens, costs, strict=True)
        )
        mine = part_of == self._part.index
        longest, place = max(
            (found for group, found in self._longest.items() if mine[group]),
            key=lambda found: found[0],
            default=(0, ""),
        )
        names = ("n_new", "n_new_tokens", "n_token_bytes", "n_condition_bytes")
        return Division(self._part, shares, part_of), {
            **{name: int(values[mine].sum()) for name, values in zip(names, self._counts, strict=True)},
            "n_weighted_tokens": float(self._weighted[mine].sum()),
            "longest": longest,
            "longest_place": place,
        }


def _groups(keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    return keys[:, 0].astype(np.int64) << 8 | keys[:, 1]


def _dealt(costs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the part of each group: the dearest first, each to the part that has least so far."""
    part_of = np.zeros(len(costs), np.int64)
    loads = [(0, part) for part in range(count)]
    for group in np.argsort(-costs, kind="stable").tolist():
        load, part = loads[0]
        part_of[group] = part
        heapq.heapreplace(loads, (load + int(costs[group]), part))
    return part_of
