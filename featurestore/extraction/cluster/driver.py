"""The driver: gives the units of a plan to actors on a cluster, and publishes their shards in plan order.

It holds what is under way and nothing else: tokens travel from here, vectors never come here. Whoever dies, a
unit is in one of three places: given out, come back, or finished; and a finished one lies in the store's
directory under the name of its unit until it is published.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from featurestore.corpora.corpus import Corpus
from featurestore.errors import EncoderError, StoreError, StoreWriteError
from featurestore.extraction.cluster.actor import Finished
from featurestore.extraction.cluster.connecting import Probe, connected, require_room, require_same
from featurestore.extraction.cluster.crew import Crew, Event, Member, Terms
from featurestore.extraction.cluster.gathering import Gathering
from featurestore.extraction.cluster.given import MOST_TRIES, GivenUnits
from featurestore.extraction.cluster.timeline import ClusterReport, Timeline
from featurestore.extraction.cluster.unit_files import UnitFiles
from featurestore.extraction.destination import Destination
from featurestore.extraction.engines.around import (
    require_all_stored,
    require_budget,
    session_of,
    share_cached,
)
from featurestore.extraction.engines.publishing import Publisher
from featurestore.extraction.engines.units import Ticket, Unit, units
from featurestore.extraction.planning.plan import Plan
from featurestore.extraction.progress import Progress
from featurestore.store.snapshot import Snapshot
from featurestore.store.writer import ShardFile, WriteSession

_UNITS_AHEAD = 4
"""Units for each actor that may be under way or finished while an earlier one is not published."""

_SECONDS_BETWEEN_COMMITS = 2.0
_SECONDS_BETWEEN_QUESTIONS = 1.0
_SECONDS_WITHOUT_NODES = 60.0

_MOST_LEFT_OUT = 20
"""Units that may fail: with more, the encoder is broken and the run ends."""


class Options(Protocol):
    """What the user chose of a cluster; see :class:`featurestore.Ray`."""

    @property
    def address(self) -> str:
        """Where it is."""

    @property
    def actors(self) -> int | None:
        """How many."""

    @property
    def cpus_per_actor(self) -> float:
        """Cores of each."""

    @property
    def gpus_per_actor(self) -> float:
        """GPUs of each."""


class ClusterExtraction:
    """One run over planned corpora on a cluster; as :class:`~featurestore.extraction.runner.Extraction`.

    Parameters
    ----------
    corpora : sequence of Corpus
    sent : bytes
        The pickled source of the encoder.
    destination : Destination
    plan : Plan
    options : Options
    device : str
        For the encoders of the actors.
    codec, token_budget, shard_bytes, progress
        As in :func:`featurestore.extract`.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        sent: bytes,
        destination: Destination,
        plan: Plan,
        options: Options,
        *,
        device: str,
        codec: str | None = None,
        token_budget: int | None = None,
        shard_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        require_budget(token_budget)
        self.corpora, self.plan, self.progress = corpora, plan, progress or Progress()
        self.report = ClusterReport(
            plan.n_sentences, plan.n_distinct, plan.n_cached, token_budget=token_budget or 0
        )
        self.store: Snapshot | None = destination.store
        self.committed: Snapshot | None = destination.store
        self._sent, self._destination, self._options = sent, destination, options
        self._device, self._codec, self._shard_bytes = device, codec, shard_bytes
        self._timeline = Timeline()
        self._shown = self._n_done_tokens = 0
        self._committed_at = self._asked_at = time.monotonic()
        self._without_nodes_since: float | None = None

    def run(self) -> ClusterReport:
        """Encode and commit until nothing is left; see :func:`featurestore.extract` for errors."""
        encodes = self.plan.n_new > 0
        with connected(self._options.address) as ray, Probe(self._destination.location).laid() as probe:
            self._ray = ray
            options = self._options
            size = require_room(ray, options.actors, options.cpus_per_actor, options.gpus_per_actor)
            require_same(ray, probe)
            terms = Terms(
                ray.put(self._sent), self._device, options.cpus_per_actor, options.gpus_per_actor, encodes
            )
            self._crew = Crew(ray, terms, size if encodes else 1, self._timeline)
            try:
                self._gathering = Gathering(
                    self._crew, self._destination, probe, self._codec, self._shard_bytes,
                    self.report, self.progress,
                )  # fmt: skip
                self.store = self._gathering.opened(encodes)
                if encodes:
                    self._gathering.joined()
                session = session_of(
                    self.store, self._gathering.reference, self.plan, self.report, self._codec
                )
                self._encode(session, size)
            finally:
                self._crew.stop()
                self._report_actors()
        require_all_stored(self.report)
        return self.report

    def _encode(self, session: WriteSession, size: int) -> None:
        self._session, store = session, session.store
        self._files = UnitFiles(store.location, store.fingerprint, self._gathering.codec)
        self._publisher = Publisher(session, self._gathering.reference.device, self.report)
        source = units(self.corpora, session, self.plan.division)
        self._units = GivenUnits(source, self._ticketed, _UNITS_AHEAD * (size + 1))
        self.progress.started(self.plan.n_new_tokens, share_cached(self.plan))
        started = time.perf_counter()
        try:
            while True:
                self._give()
                self._publish(is_last=not self._crew_is_busy())
                if self._units.is_through:
                    break
                if (event := self._crew.next_event(_SECONDS_BETWEEN_QUESTIONS)) is not None:
                    self._handle(event)
                self._look_around()
        except BaseException:
            # An error or Ctrl-C: what is finished and in order is committed before it goes on.
            session.stop_waiting()
            while (event := self._crew.next_event(0)) is not None:
                if event.kind == "unit" and event.error is None:
                    self._finished(event)
            with suppress(StoreError):
                self._publish(is_last=True)
            raise
        finally:
            self.progress.encoded(self._n_done_tokens - self._shown)
            self.report.seconds = time.perf_counter() - started
            self.report.n_redone = self._units.n_redone
            self.progress.finished()
        session.close()
        self.committed = session.store
        self._require_counts()

    def _ticketed(self, unit: Unit) -> Ticket:
        return Ticket.of(unit, self._files.name(unit), self._ray.put(unit.stripped()))

    def _crew_is_busy(self) -> bool:
        return any(member.units for member in self._crew)

    # -- giving out

    def _give(self) -> None:
        """Give units to all who have room, one at a time to whoever has least."""
        while True:
            free = sorted((m for m in self._crew.ready if m.room > 0), key=lambda m: (len(m.units), m.number))
            for member in free:
                ticket = self._units.next_for(is_idle=not member.units)
                if ticket is not None:
                    member.alone = self._units.is_suspect(ticket)
                    self._crew.give(member, ticket, self._units.halvings(ticket))
                    break
            else:
                return

    # -- what comes back

    def _handle(self, event: Event) -> None:
        if event.kind == "unit":
            if event.error is None:
                self._finished(event)
            else:
                self._failed(event, event.error)
        elif event.kind == "progress":
            event.member.asked = False
            if event.error is None:
                event.member.encoded = {n: k for n, k in event.answer.items() if n in event.member.units}
        elif not self._gathering.take_late(event):
            self._lose(event.member, str(event.error))

    def _finished(self, event: Event) -> None:
        ticket, finished = event.unit, event.answer
        if ticket is None or ticket.number not in event.member.units or not isinstance(finished, Finished):
            return
        self._crew.taken(event.member, ticket, finished)
        self._units.finish(ticket, finished)
        self._n_done_tokens += ticket.n_tokens
        self.report.too_large += finished.too_large
        self.report.refused += finished.refused
        self.report.n_taken_over += finished.was_there
        if finished.token_budget:
            self.report.token_budget = min(self.report.token_budget, finished.token_budget)
        for notice in finished.notices:
            self.progress.notice(f"{event.member.name}: {notice}")

    def _failed(self, event: Event, error: BaseException) -> None:
        """A unit came back without a shard: its own fault, the actor's, or the node's."""
        ticket, member, exceptions = event.unit, event.member, self._ray.exceptions
        if ticket is None or ticket.number not in member.units:
            return
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, StoreWriteError):
            raise cause
        self._timeline.failed(ticket, member.number, type(cause).__name__)
        counts = True
        if isinstance(error, exceptions.OutOfMemoryError):
            self._units.halve(ticket)
        if isinstance(error, (exceptions.RayActorError, exceptions.OutOfMemoryError)):
            counts = not self._crew.is_on_dead_node(member)
        self._crew.taken(member, ticket, None)
        if not self._units.give_back(ticket, counts=counts):
            why = str(cause).strip().splitlines() or [type(cause).__name__]
            self.report.failed.append(f"{ticket.place}: {why[0]} (on {member.name})")
            self.progress.notice(
                f"left out: a unit of {ticket.n_tokens:,} tokens failed {MOST_TRIES} times: "
                f"{self.report.failed[-1]}"
            )
            if len(self.report.failed) > _MOST_LEFT_OUT:
                self._require_none_failed()
        if isinstance(error, exceptions.RayActorError):
            self._lose(member, type(error).__name__)

    def _lose(self, member: Member, why: str) -> None:
        if member.state == "gone":
            return
        self.progress.notice(f"{member.name} is gone ({why}); its units are given out again")
        if not self._crew.lose(member, why):
            self.progress.notice(f"actor {member.number} ended too often: nobody starts in its place")
        self._require_somebody(why)

    def _require_somebody(self, why: str) -> None:
        if not self._crew.ready and not self._crew.coming:
            raise EncoderError(
                f"no actor is left: they ended one after another ({why}). What is finished is committed; the "
                "same command goes on from here"
            )

    # -- publishing

    def _publish(self, *, is_last: bool) -> None:
        """Publish what is finished and next in order, many shards in one snapshot."""
        waiting = self._units.in_order()
        is_due = time.monotonic() - self._committed_at >= _SECONDS_BETWEEN_COMMITS
        if not waiting or not (is_last or is_due or len(waiting) > len(self._crew.members)):
            return
        if gone := [ticket for ticket, _ in waiting if not self._files.path(ticket.name).exists()]:
            for ticket in gone:  # somebody cleaned up: it is encoded again
                self._n_done_tokens -= ticket.n_tokens
                self._units.replace(ticket)
            return
        files = [self._file(ticket, finished) for ticket, finished in waiting]
        (n_sentences, n_tokens), known = self._publisher.publish_files(files)
        if known.any():
            self._encode_the_rest(waiting, files, known)
            return
        self._committed_at = time.monotonic()
        for ticket, _ in waiting:
            self._files.remove(ticket.name)
        self._units.published(waiting[-1][0])
        self._timeline.add("published", n_shards=len(files), n_sentences=n_sentences, n_tokens=n_tokens)
        self.progress.committed(n_sentences, n_tokens)

    def _file(self, ticket: Ticket, finished: Finished) -> ShardFile:
        keys = ticket.keys if finished.kept is None else ticket.keys[finished.kept]
        if finished.entry is None or len(keys) != finished.entry.n_sentences:
            raise StoreError(f"the shard of {ticket.place} does not hold the sentences of its unit")
        return ShardFile(finished.entry, self._files.path(ticket.name), keys)

    def _encode_the_rest(
        self, waiting: Sequence[tuple[Ticket, Finished]], files: Sequence[ShardFile], known: Any
    ) -> None:
        """Another writer stored some of the sentences: their units are encoded again without them."""
        ends = np.cumsum([len(file.keys) for file in files])
        for (ticket, _), end, file in zip(waiting, ends, files, strict=True):
            if known[end - len(file.keys) : end].any():
                unit: Unit = self._ray.get(ticket.sent)
                stored = self._session.stored(ticket.keys)
                self.report.n_others += int(stored.sum())
                self._n_done_tokens -= ticket.n_tokens
                self._files.remove(ticket.name)
                if stored.all():
                    self._units.finish(ticket, Finished(None))
                else:
                    self._units.replace(self._ticketed(unit.without(stored)))

    # -- now and then

    def _look_around(self) -> None:
        """Ask and show how far everybody is; end the run if no node is left that could do the work."""
        now = time.monotonic()
        if now - self._asked_at < _SECONDS_BETWEEN_QUESTIONS:
            return
        self._asked_at = now
        self._crew.ask_progress()
        encoded = self._n_done_tokens + sum(sum(m.encoded.values()) for m in self._crew.ready)
        self.progress.encoded(encoded - self._shown)
        self._shown = encoded
        self.progress.speeds({str(m.number): m.tokens_per_second for m in self._crew.ready})
        if self._crew.ready:
            self._without_nodes_since = None
            return
        self._without_nodes_since = self._without_nodes_since or now
        if now - self._without_nodes_since > _SECONDS_WITHOUT_NODES:
            require_room(self._ray, None, self._options.cpus_per_actor, self._options.gpus_per_actor)
            self._without_nodes_since = now

    def _require_counts(self) -> None:
        """Compare what was given out with what became of it."""
        self._require_none_failed()
        report = self.report
        accounted = report.n_encoded + report.n_others + len(report.too_large) + len(report.refused)
        if accounted != self._units.n_sentences:
            raise StoreError(
                f"{self._units.n_sentences:,} sentences were given out and {accounted:,} came back: run the "
                "same again, which stores what is missing"
            )

    def _require_none_failed(self) -> None:
        if self.report.failed:
            listed = "".join(f"\n  {line}" for line in self.report.failed[:10])
            n = len(self.report.failed)
            raise EncoderError(
                f"{n} {'units' if n > 1 else 'unit'} of sentences failed {MOST_TRIES} times and "
                f"{'are' if n > 1 else 'is'} left out:{listed}\nAll others that were finished are committed. "
                "Mend what the reasons say; the same command encodes what is missing"
            )

    def _report_actors(self) -> None:
        self.report.timeline = self._timeline.events
        for member in self._crew:
            facts = member.facts
            self.report.actors.append(
                {
                    "actor": member.number,
                    "host": facts.host if facts else "",
                    "processor": facts.processor if facts else "",
                    "device": facts.device if facts else "",
                    "n_units": member.n_units,
                    "n_tokens": member.n_tokens,
                    "tokens_per_second": round(member.tokens_per_second, 1),
                }
            )
