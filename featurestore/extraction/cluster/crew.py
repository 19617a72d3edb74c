"""The crew: the actors of a run, started, compared with each other, lost and replaced.

Ray restarts nothing here and repeats no call: an actor that ends is another actor afterwards, which has to
show again what it computes. All waiting is done in one queue of events, so that signals are heard at once.
"""

from __future__ import annotations

import os
import queue
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from featurestore.extraction.cluster.actor import UNITS_AT_ONCE, ActorFacts, EncodingActor, Finished
from featurestore.extraction.cluster.timeline import Timeline
from featurestore.extraction.engines.units import Ticket

_MOST_FAILED_STARTS = 3
"""Actors that may end one after the other before they took a unit: then none is started in their place."""

State = Literal["loading", "loaded", "joining", "ready", "gone"]


class Event(NamedTuple):
    """Something an actor answered.

    Attributes
    ----------
    kind : {"loaded", "joined", "unit", "progress"}
    member : Member
        Who was asked; it may be gone since.
    unit : Ticket or None
    answer : object
        What came back, None where ``error`` did.
    error : BaseException or None
    """

    kind: str
    member: Member
    unit: Ticket | None
    answer: Any
    error: BaseException | None


@dataclass(eq=False)
class Member:
    """One actor.

    Attributes
    ----------
    number : int
        Its place in the crew; whoever replaces it has the same.
    handle : ActorHandle
    state : str
    facts : ActorFacts or None
        Once its encoder is loaded.
    digest : str
        Of the vectors of the store's canaries, once it has joined.
    units : dict of int to Ticket
        Those given to it, by their numbers.
    encoded : dict of int to int
        Tokens of these that it has encoded so far.
    alone : bool
        Whether it has a unit that is to be the only one.
    since : float
        Time at which it became ready, in seconds of the monotonic clock.
    n_units, n_tokens : int
        Units finished, and their tokens.
    """

    number: int
    handle: Any
    state: State = "loading"
    facts: ActorFacts | None = None
    digest: str = ""
    units: dict[int, Ticket] = field(default_factory=dict)
    encoded: dict[int, int] = field(default_factory=dict)
    alone: bool = False
    asked: bool = False
    since: float = 0.0
    n_units: int = 0
    n_tokens: int = 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"actor {self.number}" + (f" on {self.facts.name}" if self.facts else "")

    @property
    def tokens_per_second(self) -> float:
        """Since it became ready."""
        n_tokens = self.n_tokens + sum(self.encoded.values())
        return n_tokens / max(time.monotonic() - self.since, 1e-9) if self.since else 0.0

    @property
    def room(self) -> int:
        """How many more units it can be given."""
        return 0 if self.state != "ready" or self.alone else UNITS_AT_ONCE - len(self.units)


@dataclass(frozen=True)
class Terms:
    """What every actor is started with.

    Attributes
    ----------
    sent : ObjectRef
        Of the pickled source of the encoder.
    device : str
    n_cpus, n_gpus : float
    canaries : bool
        Whether they encode the canaries of a new store.
    """

    sent: Any
    device: str
    n_cpus: float
    n_gpus: float
    canaries: bool


class Crew:
    """The actors of a run.

    Parameters
    ----------
    ray : module
    terms : Terms
    size : int
    timeline : Timeline
    """

    def __init__(self, ray: Any, terms: Terms, size: int, timeline: Timeline) -> None:
        self._ray, self._terms, self._timeline = ray, terms, timeline
        groups = {"units": UNITS_AT_ONCE, "questions": 1}
        self._kind = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(EncodingActor)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._failed_starts: Counter[int] = Counter()
        self.members: dict[int, Member] = {}
        for number in range(size):
            self._start(number)

    def __iter__(self) -> Any:
        return iter(list(self.members.values()))

    @property
    def ready(self) -> list[Member]:
        """Those that take units."""
        return [member for member in self.members.values() if member.state == "ready"]

    @property
    def coming(self) -> list[Member]:
        """Those that may take units soon."""
        return [member for member in self.members.values() if member.state not in ("ready", "gone")]

    def next_event(self, seconds: float) -> Event | None:
        """Return the next answer of a member of the crew, None if none comes in time."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def join(self, member: Member, *arguments: Any) -> None:
        """Have a member whose encoder is loaded compare itself with the store."""
        member.state = "joining"
        self._ask("joined", member, None, member.handle.join.remote(*arguments))

    def admit(self, member: Member, digest: str) -> None:
        """Let a member take units."""
        member.state, member.digest, member.since = "ready", digest, time.monotonic()
        facts = member.facts
        self._timeline.add(
            "ready", member.number, host=facts.host if facts else "", node=facts.node if facts else "",
            processor=facts.processor if facts else "", device=facts.device if facts else "",
        )  # fmt: skip

    def give(self, member: Member, unit: Ticket, halvings: int) -> None:
        """Give a member a unit."""
        member.units[unit.number] = unit
        self._timeline.given(unit, member.number)
        call = member.handle.run.options(concurrency_group="units")
        self._ask("unit", member, unit, call.remote(unit.sent, halvings))

    def taken(self, member: Member, unit: Ticket, finished: Finished | None) -> None:
        """Take note that a member has a unit no longer."""
        if member.units.pop(unit.number, None) is None:
            return
        member.encoded.pop(unit.number, None)
        member.alone = False
        if finished is not None:
            self._failed_starts[member.number] = 0
            member.n_units, member.n_tokens = member.n_units + 1, member.n_tokens + unit.n_tokens
            self._timeline.finished(unit, member.number, finished.was_there)

    def ask_progress(self) -> None:
        """Ask those that encode how far they are; the answer is an event."""
        for member in self.ready:
            if member.units and not member.asked:
                member.asked = True
                call = member.handle.progress.options(concurrency_group="questions")
                self._ask("progress", member, None, call.remote())

    def lose(self, member: Member, why: str) -> bool:
        """End a member, and start another in its place unless that failed too often; return whether so."""
        if self.members.get(member.number) is not member or member.state == "gone":
            return True
        if member.state != "ready" or not member.n_units:
            self._failed_starts[member.number] += 1
        self.dismiss(member, why)
        if self._failed_starts[member.number] >= _MOST_FAILED_STARTS:
            return False
        self._start(member.number)
        return True

    def dismiss(self, member: Member, why: str) -> None:
        """End a member; nobody comes in its place."""
        member.state = "gone"
        self._timeline.add("lost", member.number, why=why, n_units=member.n_units, n_tokens=member.n_tokens)
        self._kill(member)

    def stop(self) -> None:
        """End all."""
        for member in self.members.values():
            if member.state != "gone":
                member.state = "gone"
                self._timeline.add("stopped", member.number, n_units=member.n_units, n_tokens=member.n_tokens)
                self._kill(member)

    def is_on_dead_node(self, member: Member) -> bool:
        """Return whether the node of a member is known to be gone."""
        if member.facts is None:
            return False
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        return member.facts.node not in alive

    def _start(self, number: int) -> None:
        terms = self._terms
        handle = self._kind.options(num_cpus=terms.n_cpus, num_gpus=terms.n_gpus).remote()
        member = self.members[number] = Member(number, handle)
        self._timeline.add("started", number)
        call = handle.load.remote(
            terms.sent, terms.device, os.getcwd(), list(sys.path), max(1, int(terms.n_cpus)),
            canaries=terms.canaries,
        )  # fmt: skip
        self._ask("loaded", member, None, call)

    def _ask(self, kind: str, member: Member, unit: Ticket | None, reference: Any) -> None:
        def answered(future: Any) -> None:
            error = future.exception()
            answer = None if error is not None else future.result()
            self._events.put(Event(kind, member, unit, answer, error))

        reference.future().add_done_callback(answered)

    def _kill(self, member: Member) -> None:
        try:
            self._ray.kill(member.handle)
        except Exception as error:  # noqa: BLE001 - it is gone, or the cluster is
            self._timeline.add("not killed", member.number, why=type(error).__name__)


def agreed(digests: Sequence[tuple[int, str]], preferred: str = "") -> str:
    """Return the hash that most members found, of equally many the one of the first; or the preferred one.

    Parameters
    ----------
    digests : sequence of (int, str)
        Number and hash of each.
    preferred : str
        Returned if any of them found it.
    """
    found = [digest for _, digest in sorted(digests)]
    if preferred in found:
        return preferred
    counts = Counter(found)
    return max(found, key=lambda digest: (counts[digest], -found.index(digest)))
