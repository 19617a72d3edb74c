"""``featurestore.extract``: corpora, encoder and store put together; what the command line calls too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore import limits
from featurestore.corpora.corpus import Corpus, corpus_from_sentences, open_corpus
from featurestore.corpora.example import Example
from featurestore.encoders.base import (
    DEFAULT_ENCODER,
    DEFAULT_LAYERS,
    Encoder,
    EncoderOutline,
    load_encoder,
    outline_encoder,
)
from featurestore.errors import UsageError
from featurestore.extraction.estimate import expected_speed
from featurestore.extraction.plan import Plan, make_plan
from featurestore.extraction.progress import BarProgress, Progress
from featurestore.extraction.runner import Extraction, Report
from featurestore.store.codec import DEFAULT_CODEC, get_codec
from featurestore.store.store import Store

CorpusLike = str | Path | Corpus | Iterable[Example] | Iterable[Sequence[str]]


def extract(
    corpora: CorpusLike | Sequence[CorpusLike],
    encoder: Encoder | str | None,
    store: str | Path,
    *,
    layers: str | None = None,
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
    store : str or Path
        Made if it does not exist.
    layers, precision, initial_state : str, optional
        For a specification; by default the store's own recipe, else ``average``, ``auto`` and ``auto``.
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
    RecipeMismatchError
        If the store holds vectors of another recipe.
    CorpusError, EncoderError, StoreError
        See :mod:`featurestore.errors`. What was committed stays.
    """
    shown = progress if isinstance(progress, Progress) else BarProgress() if progress else Progress()
    job = Job(as_corpora(corpora), Path(store), codec=codec, shard_bytes=shard_bytes, device=device)
    given: Encoder | EncoderChoice
    if encoder is None or isinstance(encoder, str):
        given = EncoderChoice.for_store(store, encoder, layers, precision, initial_state)
    else:
        given = encoder
    plan = job.plan(given, progress=shown)
    plan.require_space(job.store)
    asked = any(choice is not None for choice in (encoder, layers, precision, initial_state))
    if plan.n_new == 0 and not asked and Store.exists(store):
        return Report(plan.n_sentences, plan.n_distinct, plan.n_cached)
    return job.extraction(given, plan, token_budget=token_budget, progress=shown).run()


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder specification with its options, the store's own recipe filled in where nothing was said.

    Attributes
    ----------
    spec, layers, precision, initial_state : str
        As :func:`featurestore.load_encoder` takes them.
    """

    spec: str
    layers: str
    precision: str
    initial_state: str = "auto"

    @classmethod
    def for_store(
        cls,
        path: str | Path,
        spec: str | None,
        layers: str | None,
        precision: str | None,
        initial_state: str | None = None,
    ) -> EncoderChoice:
        """Fill in what was left out: from the store if it exists, else with the defaults.

        Raises
        ------
        UsageError
            If there is a store that does not name its encoder, and no specification.
        """
        if Store.exists(path):
            store = Store.open(path)
            recipe = store.recipe
            stored_layers = recipe.get("layers", DEFAULT_LAYERS)
            if not isinstance(stored_layers, str):
                stored_layers = ",".join(map(str, stored_layers))
            spec = spec or store.encoder
            layers = layers or stored_layers
            precision = precision or recipe.get("precision", "auto")
            initial_state = initial_state or recipe.get("initial_state", "auto")
            if not spec:
                raise UsageError(f"the store {path} does not name its encoder: give one (--encoder)")
        return cls(
            spec or DEFAULT_ENCODER, layers or DEFAULT_LAYERS, precision or "auto", initial_state or "auto"
        )

    def load(self, device: str = "auto") -> Encoder:
        """Load the encoder."""
        return load_encoder(
            self.spec,
            layers=self.layers,
            precision=self.precision,
            device=device,
            initial_state=self.initial_state,
        )


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
        """Read the corpora once and say what extracting them would do; loads no model."""
        if self.codec is not None:
            get_codec(self.codec)
        manifest = Store.open(self.store).manifest if Store.exists(self.store) else None
        if manifest is None:
            # Now, not after a model was loaded or even downloaded.
            Store.require_creatable(self.store)
        outline = (
            outline_encoder(encoder.spec, layers=encoder.layers, initial_state=encoder.initial_state)
            if isinstance(encoder, EncoderChoice)
            else EncoderOutline(encoder.dim, encoder.n_layers)
        )
        speed, basis = expected_speed(manifest, outline, self.device)
        return make_plan(
            self.corpora,
            self.store,
            outline,
            codec=self.codec or (manifest.codec if manifest else DEFAULT_CODEC),
            shard_bytes=manifest.shard_bytes if manifest else self.shard_bytes or limits.DEFAULT_SHARD_BYTES,
            tokens_per_second=speed,
            basis=basis,
            progress=progress,
        )

    def extraction(
        self,
        encoder: Encoder | EncoderChoice,
        plan: Plan,
        *,
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Load the encoder, check it against the store, and return the run."""
        loaded = encoder.load(self.device) if isinstance(encoder, EncoderChoice) else encoder
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


def as_corpora(corpora: CorpusLike | Sequence[CorpusLike]) -> list[Corpus]:
    """Open what :func:`extract` takes as corpora."""
    if isinstance(corpora, (str, Path)):
        return [open_corpus(str(corpora))]
    if isinstance(corpora, Corpus):
        return [corpora]
    items: list[Any] = list(corpora)
    if items and all(isinstance(item, (str, Path, Corpus)) for item in items):
        return [item if isinstance(item, Corpus) else open_corpus(str(item)) for item in items]
    return [corpus_from_sentences(items)]
