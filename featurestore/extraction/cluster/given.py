"""Units given out and come back: which is next for an actor, which failed, which may be published."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from featurestore.extraction.cluster.actor import Finished
from featurestore.extraction.engines.units import Ticket, Unit

MOST_TRIES = 3
"""Times that a unit is given out before it is left out."""

_TRIES_IN_COMPANY = 2
"""Tries after which a unit is given to an actor that has no other: it may be what ends actors."""


class GivenUnits:
    """The units of a run, from the corpora until they are published in their order.

    Parameters
    ----------
    source : iterator of Unit
    ticketed : callable
        Makes the ticket of a unit, which holds what is sent to an actor.
    most_ahead : int
        Units that may be given out or finished after the first that is not published yet: what bounds the
        memory of the driver.
    """

    def __init__(self, source: Iterator[Unit], ticketed: Callable[[Unit], Ticket], most_ahead: int) -> None:
        self._source, self._ticketed, self._most_ahead = source, ticketed, most_ahead
        self._back: deque[Ticket] = deque()
        self._finished: dict[int, tuple[Ticket, Finished | None]] = {}
        self._tries: Counter[int] = Counter()
        self._halvings: Counter[int] = Counter()
        self._next = self._n_taken = 0
        self._is_empty = False
        self.n_sentences = 0
        self.n_redone = 0

    @property
    def is_through(self) -> bool:
        """Whether every unit was published or left out."""
        return self._is_empty and self._next == self._n_taken

    def next_for(self, *, is_idle: bool) -> Ticket | None:
        """Return the next unit for an actor, None if there is none for it now.

        Parameters
        ----------
        is_idle : bool
            Whether it has no other unit.
        """
        for ticket in self._back:
            if is_idle or not self.is_suspect(ticket):
                self._back.remove(ticket)
                self.n_redone += 1
                return ticket
        if self._is_empty or self._n_taken - self._next >= self._most_ahead:
            return None
        unit = next(self._source, None)
        if unit is None:
            self._is_empty = True
            return None
        self._n_taken += 1
        self.n_sentences += len(unit.keys)
        return self._ticketed(unit)

    def is_suspect(self, ticket: Ticket) -> bool:
        """Return whether a unit failed so often that it must have an actor of its own."""
        return self._tries[ticket.number] >= _TRIES_IN_COMPANY

    def halvings(self, ticket: Ticket) -> int:
        """Return how often the token budget of a unit is halved."""
        return self._halvings[ticket.number]

    def halve(self, ticket: Ticket) -> None:
        """Halve the token budget of a unit: a node had too little memory for it."""
        self._halvings[ticket.number] += 1

    def give_back(self, ticket: Ticket, *, counts: bool = True) -> bool:
        """Take a unit that failed; return False if it failed too often, and is left out.

        Parameters
        ----------
        ticket : Ticket
        counts : bool
            Whether it may be its own fault.
        """
        self._tries[ticket.number] += counts
        if self._tries[ticket.number] >= MOST_TRIES:
            self._finished[ticket.number] = ticket, None
            return False
        self._back.append(ticket)
        return True

    def finish(self, ticket: Ticket, finished: Finished) -> None:
        """Take a unit that is done."""
        self._finished[ticket.number] = ticket, finished

    def in_order(self) -> list[tuple[Ticket, Finished]]:
        """Return the units that can be published now, in order; those without a shard are passed over."""
        found: list[tuple[Ticket, Finished]] = []
        number = self._next
        while number in self._finished:
            ticket, finished = self._finished[number]
            if finished is not None and finished.entry is not None:
                found.append((ticket, finished))
            elif not found:  # nothing before it waits to be published
                del self._finished[number]
                self._next += 1
            number += 1
        return found

    def published(self, ticket: Ticket) -> None:
        """Take note that a unit, and all before it, are in the store or left out."""
        while self._next <= ticket.number:
            del self._finished[self._next]
            self._next += 1

    def replace(self, ticket: Ticket) -> None:
        """Encode a unit again, of which others have stored some sentences meanwhile."""
        self._finished.pop(ticket.number)
        self._back.append(ticket)
