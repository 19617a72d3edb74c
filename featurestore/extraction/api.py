"""``featurestore.extract``: corpora, encoder and store put together; what the command line calls too."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from featurestore import limits
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.given import CorpusLike, as_corpora
from featurestore.encoders.base import (
    DEFAULT_ENCODER,
    DEFAULT_LAYERS,
    Encoder,
    EncoderOutline,
    Layers,
    layers_text,
)
from featurestore.encoders.checked import CheckedEncoder, checked_encoder
from featurestore.encoders.loading import (
    recipe_choices,
    require_no_code,
)
from featurestore.encoders.sources import KnownRecipe, NamedEncoder
from featurestore.errors import EncoderError, EncoderOutOfMemory, UsageError
from featurestore.extraction.estimate import expected_speed
from featurestore.extraction.mismatch import require_recipe
from featurestore.extraction.plan import Plan, make_plan
from featurestore.extraction.progress import BarProgress, Progress
from featurestore.extraction.report import Report
from featurestore.extraction.runner import Extraction
from featurestore.families import family_of, family_of_recipe
from featurestore.recipe import Recipe
from featurestore.store.format.codec import DEFAULT_CODEC, get_codec
from featurestore.store.format.manifest import Manifest
from featurestore.store.preconditions import (
    require_addable,
    require_bounds,
    require_creatable,
    require_shards,
)
from featurestore.store.store import Store

logger = logging.getLogger(__name__)


def extract(
    corpora: CorpusLike | Sequence[CorpusLike],
    encoder: Encoder | str | None,
    store: str | Path | Store,
    *,
    layers: Layers | None = None,
    precision: str | None = None,
    initial_state: str | None = None,
    device: str = "auto",
    codec: str | None = None,
    token_budget: int | None = None,
    shard_bytes: int | None = None,
    progress: bool | Progress = True,
) -> Report:
    """Encode every sentence of the corpora that a store does not hold yet.

    The same call resumes where an interrupted one stopped. On ``KeyboardInterrupt`` what is done is
    committed before the exception goes on.

    Parameters
    ----------
    corpora : path, Corpus, iterable of token lists, or a sequence of paths and corpora
    encoder : Encoder, str or None
        An encoder, a specification for :func:`featurestore.load_encoder`, or None for the store's own,
        for a new store ``elmo:demo``.
    store : str, Path or Store
        Made if it does not exist.
    layers, precision, initial_state : optional
        For a specification, as for :func:`featurestore.load_encoder`; by default the store's own recipe,
        else ``average``, ``auto`` and ``auto``.
    device : str
        For a specification.
    codec : {"float16", "float32", "int8"}, optional
        By default the store's, else ``float16``.
    token_budget : int, optional
        Tokens a batch may hold; by default what suits the encoder's device.
    shard_bytes : int, optional
        Bytes of vectors in a shard, for a new store.
    progress : bool or Progress
        Show a bar on standard error, or report to an object.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If arguments make no sense, or choose for an encoder that is loaded already.
    RecipeMismatchError
        If the store holds vectors of another recipe.
    DriftError
        If by the same recipe the encoder gives other vectors than when the store was made.
    CorpusError, EncoderError, StoreError
        See :mod:`featurestore.errors`. What was committed stays.
    """
    shown = progress if isinstance(progress, Progress) else BarProgress() if progress else Progress()
    if isinstance(store, Store):
        store = store.location
    job = Job(as_corpora(corpora), Path(store), codec=codec, shard_bytes=shard_bytes, device=device)
    given: Encoder | EncoderChoice
    if encoder is None or isinstance(encoder, str):
        given = EncoderChoice.for_store(store, encoder, layers, precision, initial_state)
    else:
        given = encoder
        elsewhere = device != "auto" and not str(getattr(given, "device", "")).startswith(device)
        if elsewhere or (layers, precision, initial_state) != (None, None, None):
            raise UsageError(
                "layers, precision, initial_state and device are chosen when an encoder is loaded, and this "
                "one is: pass its specification, or load_encoder(spec, layers=..., ...)"
            )
    plan = job.plan(given, progress=shown)
    for warning in plan.warnings:
        logger.warning("%s", warning)
    plan.require_space(job.store)
    return (
        job.done(given, plan) or job.extraction(given, plan, token_budget=token_budget, progress=shown).run()
    )


@dataclass(frozen=True)
class EncoderChoice(NamedEncoder):
    """An encoder specification with its choices, the store's own recipe filled in where nothing was said.

    Attributes
    ----------
    named_by : str or Path, optional
        The store that named the encoder, where the user did not.
    """

    named_by: str | Path | None = field(default=None, compare=False)

    @classmethod
    def for_store(
        cls,
        path: str | Path,
        spec: str | None,
        layers: Layers | None,
        precision: str | None,
        initial_state: str | None = None,
    ) -> EncoderChoice:
        """Fill in what was left out: from the store if it exists, else with the defaults.

        Raises
        ------
        UsageError
            If there is a store that does not name its encoder, and no specification.
        """
        named_by = None
        layers = None if layers is None else layers_text(layers)
        if Store.exists(path):
            store = Store.open(path)
            recipe = store.recipe
            if not spec:
                spec, named_by = store.encoder, path
            if family_of(spec) is family_of_recipe(recipe):  # else its choices mean nothing to the encoder
                own = recipe_choices(recipe)
                layers = layers or own.get("layers")
                precision = precision or own.get("precision")
                initial_state = initial_state or own.get("initial_state")
            if not spec:
                raise UsageError(
                    f"the store {path} does not name its encoder (it was made with an object that has no "
                    "specification): pass that object, or name one (--encoder)"
                )
        return cls(
            spec or DEFAULT_ENCODER,
            layers or DEFAULT_LAYERS,
            precision or "auto",
            initial_state or "auto",
            named_by,
        )

    def require_no_code(self) -> None:
        """Raise :class:`UsageError` if loading what only the store names could run code."""
        if self.named_by is not None:
            require_no_code(self.spec, self.named_by)

    @property
    def is_at_hand(self) -> bool:
        """Whether the user named a class or function of their own."""
        return self.named_by is None and super().is_at_hand

    def load(self, device: str = "auto") -> CheckedEncoder:
        """Load the encoder."""
        self.require_no_code()
        with self._said_who_named_it():
            return super().load(device)

    def outline(self) -> EncoderOutline:
        """Return what can be known without loading it, where its family can tell."""
        self.require_no_code()
        with self._said_who_named_it():
            return super().outline()

    def known_recipe(self) -> KnownRecipe:
        """Return its recipe as far as it is known without loading what need not be loaded."""
        self.require_no_code()
        return super().known_recipe()

    @contextmanager
    def _said_who_named_it(self) -> Iterator[None]:
        """Add to an error that it was the store that named the encoder, perhaps by a path of another day."""
        try:
            yield
        except EncoderError as error:
            if self.named_by is None or isinstance(error, EncoderOutOfMemory):
                raise
            raise EncoderError(
                f"{error}\nThe store {self.named_by} names this encoder: if it lies elsewhere now, name it "
                "yourself (--encoder)"
            ) from error

    def require_recipe(self, stored: Recipe, store: Path) -> bool:
        """Compare recipes as far as that can be done without loading an ELMo.

        Returns
        -------
        bool
            Whether all of it could be compared.

        Raises
        ------
        RecipeMismatchError
            If the store has another recipe.
        """
        try:
            known = self.known_recipe()
        except EncoderError:  # not downloaded yet, or what loading it will say too
            logger.warning(
                "whether %s filled the store %s cannot be told yet, for its files are not here: if it did "
                "not, extract will refuse it, and nothing is cached for it",
                self.spec,
                store,
            )
            return False
        require_recipe(*known.beside(stored), store)
        return known.is_complete


@dataclass(frozen=True)
class Job:
    """Corpora to be extracted into a store.

    Attributes
    ----------
    corpora : list of Corpus
    store : Path
    codec : str or None
        None for the store's own, else the default.
    shard_bytes : int or None
    device : str
    """

    corpora: list[Corpus]
    store: Path
    codec: str | None = None
    shard_bytes: int | None = None
    device: str = "auto"

    def plan(self, encoder: Encoder | EncoderChoice, *, progress: Progress | None = None) -> Plan:
        """Read the corpora once and say what extracting them would do.

        Loads no model, except one of Flair by its specification where the store cannot tell its dimensions.

        Raises
        ------
        RecipeMismatchError
            If the store holds vectors of another recipe, as far as that can be told without loading.
        UsageError
            If what is given is no encoder, or a choice makes no sense for it.
        """
        if self.codec is not None:
            get_codec(self.codec)
        if self.shard_bytes is not None:
            require_bounds(dim=1, n_layers=1, codec=DEFAULT_CODEC, shard_bytes=self.shard_bytes)
        store = Store.open(self.store) if Store.exists(self.store) else None  # held, so that gc leaves it
        manifest = store.manifest if store is not None else None
        # Now, not after a model was loaded or even downloaded.
        if manifest is None:
            require_creatable(self.store)
        else:
            require_shards(self.store, manifest)
        outline = self._outlined(encoder, manifest)
        plan = make_plan(
            self.corpora,
            self.store,
            outline,
            codec=self.codec or (manifest.codec if manifest else DEFAULT_CODEC),
            shard_bytes=manifest.shard_bytes if manifest else self.shard_bytes or limits.DEFAULT_SHARD_BYTES,
            progress=progress,
        )
        return plan.timed(*self._speed(encoder, manifest, outline)) if plan.n_new else plan

    def done(self, encoder: Encoder | EncoderChoice, plan: Plan) -> Report | None:
        """Return the report of a store that has all that was planned, by this encoder, which is not loaded.

        None if it has not, or where only loading the encoder can tell.

        Raises
        ------
        RecipeMismatchError
            If the store holds vectors of another recipe.
        """
        if plan.n_new or not Store.exists(self.store):
            return None
        if isinstance(encoder, EncoderChoice):  # an object's recipe was compared before planning
            manifest = Store.open(self.store).manifest
            # If the user named none its model may be gone.
            unnamed = encoder.named_by is not None and self._is_own(encoder, manifest)
            if not unnamed and not encoder.require_recipe(manifest.recipe, self.store):
                return None
        return Report(plan.n_sentences, plan.n_distinct, plan.n_cached)

    def _outlined(self, encoder: Encoder | EncoderChoice, manifest: Manifest | None) -> EncoderOutline:
        """Return the shape of the vectors, after what can be found wrong before the corpora are read."""
        if not isinstance(encoder, EncoderChoice):
            encoder = checked_encoder(encoder)
            if manifest is not None:
                require_recipe(manifest.recipe, encoder.recipe, self.store)
            return EncoderOutline(encoder.dim, encoder.n_layers)
        if manifest is not None and self._is_own(encoder, manifest):
            # Its model may be gone, or hold code: nothing of it is needed where nothing is to be encoded.
            return EncoderOutline(manifest.dim, manifest.n_layers)
        outline = encoder.outline()
        if manifest is not None:
            encoder.require_recipe(manifest.recipe, self.store)
        return outline

    def _speed(
        self, encoder: Encoder | EncoderChoice, manifest: Manifest | None, outline: EncoderOutline
    ) -> tuple[float | None, str]:
        """Return the speed to expect and what that rests on; (None, "") where nothing is known."""
        if not isinstance(encoder, EncoderChoice):
            return expected_speed(manifest, outline, self.device)
        if manifest is not None and manifest.encoder != encoder.spec:
            manifest = None  # its speed was another's
        speed, basis = expected_speed(manifest, outline, self.device, encoder.precision)
        # What has to be loaded to outline it knows nothing of its speed.
        if speed or encoder.outline_loads or manifest is None or not self._is_own(encoder, manifest):
            return speed, basis
        return expected_speed(None, encoder.outline(), self.device, encoder.precision)

    def _is_own(self, choice: EncoderChoice, manifest: Manifest) -> bool:
        """Return whether an encoder is the store's own, by what the store says of it."""
        return bool(manifest.encoder) and choice == EncoderChoice.for_store(self.store, None, None, None)

    def extraction(
        self,
        encoder: Encoder | EncoderChoice,
        plan: Plan,
        *,
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Load the encoder, check it against the store, and return the run."""
        require_addable(self.store)
        loaded = encoder.load(self.device) if isinstance(encoder, EncoderChoice) else checked_encoder(encoder)
        return Extraction(
            self.corpora,
            loaded,
            self.store,
            plan,
            codec=self.codec,
            token_budget=token_budget,
            shard_bytes=self.shard_bytes,
            progress=progress,
        )
