"""The timeline: which actor did what when, for ``--json`` and for the report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from featurestore.extraction.engines.units import Ticket
from featurestore.extraction.report import Report

_MOST_EVENTS = 100_000
"""Events kept: the first ones of a longer run."""


class Timeline:
    """Events, each with the seconds since the run began."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.events: list[dict[str, Any]] = []
        self.n_left_out = 0
        self._given: dict[tuple[int, int], float] = {}

    def add(self, event: str, actor: int | None = None, **more: Any) -> None:
        """Add an event."""
        if len(self.events) >= _MOST_EVENTS:
            self.n_left_out += 1
            return
        place = {} if actor is None else {"actor": actor}
        self.events.append({"seconds": self._now(), "event": event, **place, **more})

    def given(self, unit: Ticket, actor: int) -> None:
        """Keep when an actor got a unit."""
        self._given[unit.number, actor] = self._now()

    def finished(self, unit: Ticket, actor: int, was_there: bool) -> None:
        """Add one event for a unit from when it was given out until it was finished."""
        given = self._given.pop((unit.number, actor), None)
        self.add(
            "unit", actor, number=unit.number, given=given, n_sentences=len(unit.keys),
            n_tokens=unit.n_tokens, was_there=was_there,
        )  # fmt: skip

    def failed(self, unit: Ticket, actor: int, why: str) -> None:
        """Add that a unit came back without a shard."""
        given = self._given.pop((unit.number, actor), None)
        self.add("failed", actor, number=unit.number, given=given, why=why)

    def _now(self) -> float:
        return round(time.monotonic() - self._began, 3)


@dataclass
class ClusterReport(Report):
    """What an extraction on a cluster did.

    Attributes
    ----------
    actors : list of dict
        Of each actor that took units: its number, machine, units, tokens and tokens per second.
    timeline : list of dict
        What happened when, in seconds since the actors were started.
    failed : list of str
        Units that failed three times, with their place and the reason.
    n_redone : int
        Units given out more than once.
    n_others : int
        Sentences given out that another process stored meanwhile.
    n_taken_over : int
        Units whose shards lay in the store's directory already, from actors or a run that ended early.
    """

    actors: list[dict[str, Any]] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    n_redone: int = 0
    n_others: int = 0
    n_taken_over: int = 0
