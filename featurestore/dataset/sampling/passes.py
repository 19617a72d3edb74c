"""A pass over an epoch, from any place in it: what is dealt, to whom, and where it stands."""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from featurestore.dataset.sampling.dealing import Uneven, ending
from featurestore.dataset.sampling.packing import Indices
from featurestore.dataset.sampling.planning import Plan, PlannedPool

_MOST_HELD_BACK = 1 << 14
"""Batches that may wait for the pools after them to be planned."""


class Stepped(NamedTuple):
    """Where an epoch of a fixed number of steps is.

    Attributes
    ----------
    round : int
        The pass over the data that is under way.
    step, part : int
        Steps that each process has made in the epoch, and batches of the step that follows.
    """

    round: int = 0
    step: int = 0
    part: int = 0


@dataclass(frozen=True)
class Position:
    """A place in the batches of an epoch.

    Attributes
    ----------
    epoch : int
    pool : int
        The pool that is to be planned first.
    before, quanta : int
        Batches of the pools before it, and what of the budget their sentences take.
    taken : int
        Batches of the epoch that were dealt, all processes together.
    flight : int
        Processes the epoch was planned for; 0 before it has begun. Where each process reads pools of its own,
        as many are planned together, and those that follow for the processes there are then.
    shift : int
        The process that the first batch of these pools is for.
    ends : tuple of (int, int)
        If the list's end was begun, which is made of smaller batches: for how many processes it was made,
        and how many of its batches they took; each further pair deals what the one before left.
    stepped : Stepped, optional
        With a fixed number of steps an epoch. ``pool`` to ``flight`` are then of a round over the data, which
        may have begun in an epoch before.
    """

    epoch: int
    pool: int = 0
    before: int = 0
    quanta: int = 0
    taken: int = 0
    flight: int = 0
    shift: int = 0
    ends: tuple[tuple[int, int], ...] = ()
    stepped: Stepped | None = None

    @property
    def begun(self) -> bool:
        """Whether something of the epoch was dealt."""
        if self.stepped is not None:
            return bool(self.stepped.step or self.stepped.part)
        return bool(self.taken or self.ends)

    @property
    def planned(self) -> int:
        """The epoch that the plan is made for: of the position, or its round over the data."""
        return self.epoch if self.stepped is None else self.stepped.round


class Place(NamedTuple):
    """The pools of the plan that batches are of: their epoch, the first of them, and how many."""

    epoch: int
    pool: int
    n_pools: int = 1


class Dealt(NamedTuple):
    """A batch, the pools it is of, and whether it was dealt before, to fill up a step."""

    batch: Indices
    place: Place
    repeated: bool = False


def planned_at(plan: Plan, at: Position) -> PlannedPool:
    """Return the batches of the pool of a position, or of those that are planned together."""
    return plan.pool(at.planned, at.pool, at.before, at.quanta, at.flight, at.shift)


def _after(plan: Plan, at: Position, planned: PlannedPool, n_processes: int, aligned: int) -> Position:
    """Return where the pools after those of a position begin.

    ``aligned``: a number of batches after which the next one was for the first process.
    """
    pool, before, quanta = at.pool + planned.n_pools, planned.stop, planned.quanta
    return _for(plan, replace(at, pool=pool, before=before, quanta=quanta), n_processes, before - aligned)


def _for(plan: Plan, at: Position, n_processes: int, n_dealt: int) -> Position:
    """Return a place at the beginning of pools, as of ``n_processes`` processes after ``n_dealt`` batches."""
    if plan.pools.apart:
        return replace(at, flight=n_processes, shift=n_dealt % n_processes)
    return at if at.flight else replace(at, flight=n_processes)


class Deal:
    """The rest of an epoch, dealt to a number of processes: one batch to each at a step, in turn.

    Parameters
    ----------
    plan : Plan
    position : Position
        Where to begin.
    n_processes : int
    uneven : {"split", "drop", "pad", "join"}
    n_before : int
        Batches that were dealt before, so that the first of these is not for the first process.
    """

    def __init__(
        self, plan: Plan, position: Position, n_processes: int, uneven: Uneven, n_before: int = 0
    ) -> None:
        self._plan, self._n_processes, self._uneven = plan, n_processes, uneven
        self.position = position if position.flight else _for(plan, position, n_processes, n_before)
        self._aligned = position.taken - n_before
        self._starts: list[Position] = []
        self._end_at: int | None = None

    def __iter__(self) -> Iterator[Dealt]:
        at = self.position
        n_pools = self._plan.pools.count(at.planned)
        carried: list[Dealt] = []
        n_dealt = 0
        # An end that others began may reach back to the pools before the last ones, which they planned.
        planned_for = at.ends[0][0] if at.ends else self._n_processes
        while at.pool < n_pools:
            planned = planned_at(self._plan, at)
            self._starts.append(at)
            place = Place(at.planned, at.pool, planned.n_pools)
            fresh = planned.batches[max(0, self.position.taken - at.before) :]
            listed = carried + [Dealt(batch, place) for batch in fresh]
            at = _after(self._plan, at, planned, planned_for, self._aligned)
            if at.pool == n_pools:
                last_pool = [Dealt(batch, place) for batch in planned.batches]
                listed = self._ended(listed, n_dealt, last_pool)
                complete = len(listed)
            elif self.position.ends:
                complete = 0
            else:
                complete = self._settled(listed)
            n_dealt += complete
            yield from listed[:complete]
            carried = listed[complete:]

    def _settled(self, listed: list[Dealt]) -> int:
        """Return how many batches, in whole steps, the end cannot need: those after them suffice to be split.

        Few are held back, but where most have one sentence, or the last pool is a small one.
        """
        n = self._n_processes
        settled = len(listed) - len(listed) % n
        if self._uneven == "split" and n > 1:
            spare = sum(len(dealt.batch) - 1 for dealt in listed[settled:])
            while settled and spare < n and len(listed) - settled < _MOST_HELD_BACK:
                settled -= n
                spare += sum(len(dealt.batch) - 1 for dealt in listed[settled : settled + n])
        return settled

    def at(self, n_dealt: int) -> Position:
        """Return the position after ``n_dealt`` batches of this deal, which must have been dealt already."""
        position = self.position
        if position.ends:
            return replace(position, ends=(*position.ends, (self._n_processes, n_dealt)))
        ends: tuple[tuple[int, int], ...] = ()
        if self._end_at is not None and n_dealt > self._end_at:
            ends = ((self._n_processes, n_dealt - self._end_at),)
            n_dealt = self._end_at
        taken = position.taken + n_dealt
        number = bisect.bisect_right([start.before for start in self._starts], taken) - 1
        start = self._starts[number] if number >= 0 else position
        return replace(start, taken=taken, ends=ends)

    def _ended(self, listed: list[Dealt], n_before: int, last_pool: list[Dealt]) -> list[Dealt]:
        """Return what is listed with its end made, for those who began it, and for who goes on."""
        for n_processes, n_taken in self.position.ends:
            ended, start = self._with_ending(listed, n_processes, "split", last_pool)
            # What they would have dropped, as they could not split it, is left like the rest.
            over = listed[len(ended) :] if start is None else []
            listed = ended[n_taken:] + over
        listed, start = self._with_ending(listed, self._n_processes, self._uneven, last_pool)
        self._end_at = None if start is None else n_before + start
        return listed

    def _with_ending(
        self, listed: list[Dealt], n_processes: int, uneven: Uneven, last_pool: list[Dealt]
    ) -> tuple[list[Dealt], int | None]:
        """Return what is listed with its end made for some processes, and where new batches begin in it."""
        batches, again = ([dealt.batch for dealt in part] for part in (listed, last_pool))
        end = ending(batches, self._plan.lengths, n_processes, uneven, again, self._plan.split)
        if not end.batches:
            return listed[: end.start], None
        repeated = end.n_repeated > 0
        place_of = {int(i): dealt.place for dealt in [*listed[end.start :], *last_pool] for i in dealt.batch}
        last = [Dealt(batch, place_of[int(batch[0])], repeated) for batch in end.batches]
        return listed[: end.start] + last, None if repeated else end.start


class Course:
    """The rest of an epoch of ``n_steps`` steps, dealt from rounds over the data that follow each other.

    The last batches of a round and the first of the next may be dealt at one step.

    Parameters
    ----------
    plan : Plan
    position : Position
        Where to begin; it is ``stepped``.
    n_processes, n_steps : int
    """

    def __init__(self, plan: Plan, position: Position, n_processes: int, n_steps: int) -> None:
        self._plan, self._n_processes, self._n_steps = plan, n_processes, n_steps
        self.position = position if position.flight else _for(plan, position, n_processes, 0)
        self._rounds: list[tuple[int, Deal]] = []

    def __iter__(self) -> Iterator[Dealt]:
        _, step, part = self.position.stepped or Stepped()
        endless = self._endless()
        for _ in range(self._n_steps - step if self._plan.n_batches else 0):
            # All of a step before its first is given, so that every process knows where the step ends.
            yield from list(itertools.islice(endless, max(0, self._n_processes - part)))
            part = 0

    def _endless(self) -> Iterator[Dealt]:
        at, n_dealt = self.position, 0
        number, step, part = at.stepped or Stepped()
        while True:
            deal = Deal(self._plan, at, self._n_processes, "join", n_dealt)
            self._rounds.append((n_dealt, deal))
            for dealt in deal:
                n_dealt += 1
                yield dealt
            number += 1
            at = Position(at.epoch, stepped=Stepped(number, step, part))

    def at(self, n_dealt: int) -> Position:
        """Return the position after ``n_dealt`` batches, which must have been dealt already."""
        if not n_dealt:
            return self.position
        # At the end of a round it is there, though the next may have begun: alike in all processes.
        before, deal = self._rounds[bisect.bisect_left(self._rounds, n_dealt, key=lambda round: round[0]) - 1]
        position = deal.at(n_dealt - before)
        _, step, part = self.position.stepped or Stepped()
        more, part = divmod(part + n_dealt, self._n_processes)
        return replace(position, stepped=Stepped(position.planned, step + more, part))


def start_of(epoch: int, plan: Plan, known: Position, n_processes: int, n_steps: int) -> Position:
    """Return where an epoch of ``n_steps`` steps begins, given a position that is known.

    It costs planning the pools of a round at most, and nothing where the known place is the end of the epoch
    before.
    """
    at = known.stepped or Stepped()
    ahead = ((epoch - known.epoch) * n_steps - at.step) * n_processes - at.part
    if ahead < 0:
        return start_of(epoch, plan, Position(0, stepped=Stepped()), n_processes, n_steps)
    taken, number = known.taken + ahead, at.round
    if not ahead or not plan.n_batches:
        return replace(known, epoch=epoch, stepped=Stepped(number))
    aligned = known.taken
    n_whole = (taken - 1) // plan.n_batches
    if n_whole:
        taken, number = taken - n_whole * plan.n_batches, number + n_whole
        aligned -= n_whole * plan.n_batches
        known = Position(epoch)
    found = replace(known, epoch=epoch, stepped=Stepped(number))
    if not found.flight:
        found = _for(plan, found, n_processes, found.before - aligned)
    n_pools = plan.pools.count(number)
    while found.pool < n_pools:
        planned = planned_at(plan, found)
        if taken <= planned.stop:
            break
        found = _after(plan, found, planned, n_processes, aligned)
    return replace(found, taken=taken)


class Passed(Protocol):
    """What passes are made over: a sampler."""

    def begin(self, begun: Pass) -> tuple[Deal | Course, Iterator[Dealt], int]:
        """Return what a pass that begins now deals, its own batches, and how many processes it deals to."""

    def enter_pool(self, place: Place) -> None:
        """Do what is to be done before the first batch of pools is given."""

    def end(self, ended: Pass) -> None:
        """Take note that a pass has come to its end."""


class Pass(Iterator[list[int]]):
    """An iteration over a sampler: it begins at its first batch, wherever the sampler then stands.

    Attributes
    ----------
    n_handed : int or None
        Batches that came through to a loop, kept by a loader that reads ahead; None: all that were asked for.
    """

    def __init__(self, sampler: Passed) -> None:
        self.n_handed: int | None = None
        self._sampler = sampler
        self._deal: Deal | Course | None = None
        self._dealt: Iterator[Dealt] = iter(())
        self._stride, self._place = 1, Place(-1, -1)
        self._n_yielded, self._first_repeated = 0, sys.maxsize

    def __next__(self) -> list[int]:
        if self._deal is None:
            self._deal, self._dealt, self._stride = self._sampler.begin(self)
        dealt = next(self._dealt, None)
        if dealt is None:
            if self.n_handed is None:
                self.end()
            raise StopIteration
        if dealt.place != self._place:
            self._place = dealt.place
            self._sampler.enter_pool(dealt.place)
        self._n_yielded += 1
        if dealt.repeated:
            self._first_repeated = min(self._first_repeated, self._n_yielded)
        indices: list[int] = dealt.batch.tolist()
        return indices

    @property
    def n_given(self) -> int:
        """Batches that count as given."""
        return self._n_yielded if self.n_handed is None else self.n_handed

    @property
    def n_repeated(self) -> int:
        """How many of those other processes were given too."""
        return max(0, self.n_given - self._first_repeated + 1)

    def end(self) -> None:
        """Tell the sampler that all batches were handed out."""
        self._sampler.end(self)

    def position(self) -> Position | None:
        """Return where it stands, None before it has begun."""
        return None if self._deal is None else self._deal.at(self.n_given * self._stride)
