"""A job: corpora, where their vectors go, and the steps from a plan to a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from featurestore import limits
from featurestore.corpora.corpus import Corpus
from featurestore.encoders.base import EncoderOutline
from featurestore.encoders.sources import EncoderSource
from featurestore.extraction.choice import is_own, require_store_of
from featurestore.extraction.destination import Destination
from featurestore.extraction.planning.estimate import (
    Speed,
    cost_anywhere,
    cost_by_length,
    expected_speed,
)
from featurestore.extraction.planning.parts import Groups, Part
from featurestore.extraction.planning.plan import Plan, make_plan
from featurestore.extraction.progress import Progress
from featurestore.extraction.report import Report
from featurestore.extraction.runner import Extraction
from featurestore.families import family_of, family_of_recipe
from featurestore.store.canaries import require_canaries
from featurestore.store.format.codec import DEFAULT_CODEC, get_codec
from featurestore.store.preconditions import require_bounds
from featurestore.store.snapshot import Snapshot


class Run(Protocol):
    """An extraction that is ready to run."""

    @property
    def report(self) -> Report:
        """What it did so far."""

    @property
    def store(self) -> Snapshot | None:
        """As it was found; None where it is made while running."""

    @property
    def committed(self) -> Snapshot | None:
        """With all that was added, after :meth:`run`."""

    def run(self) -> Report:
        """Encode and commit until nothing is left."""


class Engine(Protocol):
    """What runs an extraction elsewhere, such as :class:`featurestore.Ray`."""

    def extraction(
        self,
        corpora: Sequence[Corpus],
        source: EncoderSource,
        destination: Destination,
        plan: Plan,
        *,
        device: str,
        codec: str | None,
        token_budget: int | None,
        shard_bytes: int | None,
        progress: Progress | None,
    ) -> Run:
        """Return the run."""


class Job:
    """Corpora to be extracted into a store.

    Parameters
    ----------
    corpora : sequence of Corpus
    destination : Destination
    codec : str, optional
        By default the store's own, else ``float16``.
    shard_bytes : int, optional
    device : str
        For encoders that are yet to be loaded.
    part : Part, optional
        Encode only what falls to this part of several.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        destination: Destination,
        *,
        codec: str | None = None,
        shard_bytes: int | None = None,
        device: str = "auto",
        part: Part | None = None,
    ) -> None:
        self.corpora, self.destination, self.device = corpora, destination, device
        self._codec, self._shard_bytes, self._part = codec, shard_bytes, part

    def plan(self, source: EncoderSource, *, progress: Progress | None = None) -> Plan:
        """Read the corpora once and say what extracting them would do.

        Loads a model only if its dimensions are known neither without loading it nor from the store.

        Raises
        ------
        RecipeMismatchError
            If the store holds vectors of another recipe, as far as that can be told without loading.
        UsageError
            If a choice makes no sense for the encoder, or no store can be made at the destination.
        """
        if self._codec is not None:
            get_codec(self._codec)
        if self._shard_bytes is not None:
            require_bounds(dim=1, n_layers=1, codec=DEFAULT_CODEC, shard_bytes=self._shard_bytes)
        # Now, not after a model was loaded or even downloaded.
        self.destination.require_usable()
        manifest = self.destination.manifest
        is_same, outline = self._outlined(source)
        cost = partial(cost_by_length, self._family(source), self._likely_device, precision=source.precision)
        groups = None
        if self._part is not None:
            groups = Groups(self._part, partial(cost_anywhere, self._family(source), self.device), cost)
        plan = make_plan(
            self.corpora,
            self.destination,
            outline,
            codec=self._codec or (manifest.codec if manifest else DEFAULT_CODEC),
            shard_bytes=manifest.shard_bytes if manifest else self._shard_bytes or limits.DEFAULT_SHARD_BYTES,
            cost=cost,
            groups=groups,
            progress=progress,
        )
        return plan.timed(self._speed(source, outline, is_same)) if plan.n_new else plan

    def done(self, source: EncoderSource, plan: Plan) -> Report | None:
        """Return the report of a store that has all that was planned, by this encoder.

        It is loaded only if the user handed over its code, which may give other vectors by now: it is then
        asked for the store's canaries.

        Returns
        -------
        Report or None
            None if something is to be encoded, or only loading the encoder can tell whether it filled the
            store.

        Raises
        ------
        RecipeMismatchError
            If the store holds vectors of another recipe.
        DriftError
            If the encoder's vectors differ from those that the store holds for the same recipe.
        """
        store = self.destination.store
        if plan.n_new or store is None:
            return None
        # Where nobody but the store names its encoder, the model may be gone.
        if source.named_by is None or not is_own(source, self.destination):
            if not require_store_of(self.destination, source):
                return None
            if source.is_at_hand and store.manifest.canaries is not None:
                require_canaries(store, source.load(self.device))
        return Report(plan.n_sentences, plan.n_distinct, plan.n_cached)

    def extraction(
        self,
        source: EncoderSource,
        plan: Plan,
        *,
        token_budget: int | None = None,
        progress: Progress | None = None,
        engine: Engine | None = None,
    ) -> Run:
        """Return the run; without an engine, the encoder is loaded and checked against the store before."""
        self.destination.require_addable()
        if engine is not None:
            return engine.extraction(
                self.corpora, source, self.destination, plan, device=self.device, codec=self._codec,
                token_budget=token_budget, shard_bytes=self._shard_bytes, progress=progress,
            )  # fmt: skip
        return Extraction(
            self.corpora,
            source.load(self.device),
            self.destination,
            plan,
            codec=self._codec,
            token_budget=token_budget,
            shard_bytes=self._shard_bytes,
            progress=progress,
        )

    def _outlined(self, source: EncoderSource) -> tuple[bool, EncoderOutline]:
        """Return what is known of the vectors; raise what can be found wrong before the corpora are read.

        The first value says whether the encoder is known to be the one that filled the store.
        """
        manifest = self.destination.manifest
        if manifest is not None and is_own(source, self.destination):
            # Its model may be gone, or hold code: nothing of it is needed where nothing is to be encoded.
            n_bytes = family_of_recipe(manifest.recipe).max_token_bytes
            return True, EncoderOutline(manifest.dim, manifest.n_layers, max_token_bytes=n_bytes)
        outline = source.outline()
        return require_store_of(self.destination, source), outline

    @property
    def _likely_device(self) -> str:
        """The device asked for; of ``auto`` the one that the store's last commit was encoded on."""
        manifest = self.destination.manifest
        return self.device if self.device != "auto" or manifest is None else manifest.commit.device

    def _family(self, source: EncoderSource) -> str:
        """Return the name of an encoder's family, empty if it is not known; nothing is loaded for it."""
        manifest = self.destination.manifest
        family = family_of(source.spec) or (family_of_recipe(manifest.recipe) if manifest else None)
        return family.name if family is not None else ""

    def _speed(self, source: EncoderSource, outline: EncoderOutline, is_same: bool) -> Speed | None:
        """Return the speed to expect; None where nothing is known."""
        manifest = self.destination.manifest
        if manifest is not None and not is_same and manifest.encoder != source.spec:
            manifest = None  # another encoder's speed
        speed = expected_speed(manifest, outline, self.device, source.precision)
        # An encoder that must be loaded to be outlined states no speed.
        if speed or source.outline_loads or manifest is None or not is_own(source, self.destination):
            return speed
        return expected_speed(None, source.outline(), self.device, source.precision)
