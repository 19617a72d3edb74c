"""Gathering a crew: encoders loaded, the store opened or made, everybody's vectors compared with it."""

from __future__ import annotations

import time

from featurestore.errors import DriftError, EncoderError, FeaturestoreError, StoreWriteError, UsageError
from featurestore.extraction.cluster.actor import ActorFacts, vectors_digest
from featurestore.extraction.cluster.connecting import Probe
from featurestore.extraction.cluster.crew import Crew, Event, Member, agreed
from featurestore.extraction.cluster.timeline import ClusterReport
from featurestore.extraction.destination import Destination
from featurestore.extraction.engines.around import opened_or_made
from featurestore.extraction.progress import Progress
from featurestore.store.canaries import read_canaries
from featurestore.store.format.codec import DEFAULT_CODEC
from featurestore.store.store import Store

_SECONDS_TO_WAIT = 30.0
"""How long the first that are through wait for the rest of the crew; whoever comes later joins later."""


class Gathering:
    """Brings the members of a crew to where they take units.

    Nobody takes one whose vectors of the store's canaries differ: by more than the tolerance, that is an
    error before anything is encoded; by less, in a bit, that member is left out and named, so that the bytes
    of a store do not depend on who encoded which of its shards.

    Parameters
    ----------
    crew : Crew
    destination : Destination
    probe : Probe
    codec, shard_bytes
        As the user asked for them.
    report : ClusterReport
    progress : Progress
    """

    def __init__(
        self,
        crew: Crew,
        destination: Destination,
        probe: Probe,
        codec: str | None,
        shard_bytes: int | None,
        report: ClusterReport,
        progress: Progress,
    ) -> None:
        self._crew, self._destination, self._probe = crew, destination, probe
        self._asked_codec, self._shard_bytes = codec, shard_bytes
        self._report, self._progress = report, progress
        self._digest = ""
        self._store: Store | None = None
        self.reference: ActorFacts

    @property
    def codec(self) -> str:
        """Of the shards to be written."""
        return self._asked_codec or self._opened.manifest.codec

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise StoreWriteError("the store is not open yet")
        return self._store

    def opened(self, encodes: bool) -> Store:
        """Wait until the encoders are loaded, and return the store, made if there is none.

        Raises
        ------
        EncoderError
            If an actor cannot load its encoder.
        RecipeMismatchError
            If the encoders of two nodes, or of the nodes and the store, have different recipes.
        """
        self._until("loading", "loaded")
        loaded = sorted(
            ((m.number, m.facts) for m in self._crew if m.facts is not None), key=lambda each: each[0]
        )
        digests = [
            (number, vectors_digest(facts.canaries.vectors) if facts.canaries else "")
            for number, facts in loaded
        ]
        wanted = agreed(digests)
        self.reference = next(
            facts for (_, facts), (_, digest) in zip(loaded, digests, strict=True) if digest == wanted
        )
        for _, facts in loaded:
            self.reference.recipe.require_equal(
                facts.recipe,
                where=self.reference.name,
                remedy=f"Make the same model files available on {facts.name}.",
            )
        self._store, _ = opened_or_made(
            self._destination,
            self.reference,
            codec=self._asked_codec or DEFAULT_CODEC,
            shard_bytes=self._shard_bytes,
            canaries=lambda: self.reference.canaries if encodes else None,
        )
        self._report.token_budget = self._report.token_budget or self.reference.token_budget
        return self._store

    def joined(self) -> None:
        """Have everybody encode the store's canaries, and admit those that agree.

        Raises
        ------
        DriftError
            If an actor's vectors differ from the stored ones by more than the tolerance.
        """
        for member in self._crew:
            if member.state == "loaded":
                self._join(member)
        self._until("joining", "joining")
        found = [(m.number, m.digest) for m in self._crew if m.digest]
        stored = read_canaries(self._opened.refreshed())
        self._digest = agreed(found, vectors_digest(stored.vectors) if stored else "")
        for member in self._crew:
            if member.digest:
                self._admit(member)

    def take_late(self, event: Event) -> bool:
        """Go on with a member that comes later, or in another's place; return False if it failed."""
        member = event.member
        if member.state == "gone":
            return True
        if event.error is not None:
            return False
        if event.kind == "loaded":
            member.facts, member.state = event.answer, "loaded"
            self._join(member)
        elif event.kind == "joined":
            member.digest = event.answer
            self._admit(member)
        return True

    def _join(self, member: Member) -> None:
        store = self._opened
        budget = self._report.token_budget
        self._crew.join(
            member, str(store.location), self.codec, budget, str(self._probe.path), self._probe.nonce
        )

    def _admit(self, member: Member) -> None:
        if member.digest == self._digest:
            self._crew.admit(member, member.digest)
            return
        self._progress.notice(
            f"{member.name} is left out: it computes other bits than {self.reference.name} of the canary "
            "sentences, within the tolerance. The store would depend on who encodes what"
        )
        self._crew.dismiss(member, "other bits")

    def _until(self, waiting: str, done: str) -> None:
        """Wait until nobody is in a state, or, when some are through, for half a minute."""
        since: float | None = None
        said = time.monotonic()
        while any(member.state == waiting for member in self._crew):
            event = self._crew.next_event(1.0)
            now = time.monotonic()
            if event is not None and event.member.state == waiting:
                self._take(event)
                since = since or now
            elif since is not None and now - since > _SECONDS_TO_WAIT:
                return
            elif since is None and now - said > _SECONDS_TO_WAIT:
                said = now
                self._progress.notice("waiting for the cluster: no actor could be started yet")

    def _take(self, event: Event) -> None:
        member, error = event.member, event.error
        if error is None:
            if event.kind == "loaded":
                member.facts, member.state = event.answer, "loaded"
            else:
                member.digest, member.state = event.answer, "loaded"
            return
        cause = getattr(error, "cause", None)
        if cause is None:  # the actor ended; somebody else starts
            if not self._crew.lose(member, type(error).__name__):
                raise EncoderError(
                    f"actor {member.number} ended again and again before it was ready ({error}): does its "
                    "node have the memory for the encoder?"
                ) from error
            return
        who = member.name
        if isinstance(cause, DriftError):
            raise DriftError(f"{who}: {cause}", tokens=cause.tokens, difference=cause.difference) from error
        if isinstance(cause, (UsageError, StoreWriteError)) or not isinstance(cause, FeaturestoreError):
            raise EncoderError(f"{who} cannot be used: {cause}") from error
        raise cause
