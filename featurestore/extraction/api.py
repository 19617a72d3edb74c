"""``featurestore.extract``: corpora, encoder and store put together; what the command line calls too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from featurestore.corpora.given import CorpusLike, as_corpora
from featurestore.encoders.base import Encoder, Layers
from featurestore.encoders.sources import EncoderSource, LoadedEncoder
from featurestore.errors import UsageError
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Engine, Job
from featurestore.extraction.planning.parts import Part
from featurestore.extraction.progress import BarProgress, Progress
from featurestore.extraction.report import Report
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
    allow_cut: bool = False,
    part: str | tuple[int, int] | None = None,
    engine: Engine | None = None,
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
        By default the store's, else ``float16``. If it differs from the store's, the new shards alone have
        it, and a warning says so.
    token_budget : int, optional
        Tokens of a batch, padding not counted (in training it is); by default what suits the encoder's
        device.
    shard_bytes : int, optional
        Bytes of vectors in a shard, for a new store.
    allow_cut : bool
        Extract also where most of the text stands in tokens of which the encoder sees only the beginning: an
        ELMo reads 48 bytes of each.
    part : str or (int, int), optional
        ``"0/4"`` or ``(0, 4)``: encode only what falls to the first of four parts, counted from 0. Four
        processes that are given the same corpora and one part each encode every sentence once, about the
        same cost each, into one store.
    engine : Engine, optional
        Where to encode, such as ``featurestore.Ray(address="auto")``; by default in this process.
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
        If the encoder's vectors differ from those that the store holds for the same recipe.
    CorpusError, EncoderError, StoreError
        See :mod:`featurestore.errors`. What was committed stays.
    """
    wanted = None if part is None else Part.of(part)
    shown = progress if isinstance(progress, Progress) else BarProgress() if progress else Progress()
    destination = Destination.of(store.refreshed() if isinstance(store, Store) else store)
    source = source_of(
        encoder,
        destination,
        layers=layers,
        precision=precision,
        initial_state=initial_state,
        device=device,
    )
    job = Job(
        as_corpora(corpora), destination, codec=codec, shard_bytes=shard_bytes, device=device, part=wanted
    )
    plan = job.plan(source, progress=shown)
    for warning in filter(None, (*plan.warnings, plan.codec_note)):
        logger.warning("%s", warning)
    if not allow_cut:
        plan.require_seen()
    plan.require_space(destination.path)
    return (
        job.done(source, plan)
        or job.extraction(source, plan, token_budget=token_budget, progress=shown, engine=engine).run()
    )


def source_of(
    encoder: Encoder | str | None,
    destination: Destination,
    *,
    layers: Layers | None = None,
    precision: str | None = None,
    initial_state: str | None = None,
    device: str = "auto",
) -> EncoderSource:
    """Return what :func:`extract` is given as an encoder: an object, a specification, or the store's own.

    Raises
    ------
    UsageError
        If an object is no encoder, or something is chosen for it that it decided when it was loaded.
    """
    if encoder is None or isinstance(encoder, str):
        return EncoderChoice.for_store(destination, encoder, layers, precision, initial_state)
    elsewhere = device != "auto" and not str(getattr(encoder, "device", "")).startswith(device)
    if elsewhere or (layers, precision, initial_state) != (None, None, None):
        raise UsageError(
            "layers, precision, initial_state and device are chosen when an encoder is loaded, and this "
            "one is: pass its specification, or load_encoder(spec, layers=..., ...)"
        )
    return LoadedEncoder.of(encoder)
