"""Around the encoding, by whatever engine: the store opened or made before, what is missing named after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from featurestore import limits
from featurestore.encoders.loading import lies_no_longer
from featurestore.errors import EncoderError, UsageError, VectorError
from featurestore.extraction.destination import Destination
from featurestore.extraction.planning.plan import Plan
from featurestore.extraction.report import Report
from featurestore.recipe import Recipe
from featurestore.store.canaries import Canaries
from featurestore.store.missing import depends_on
from featurestore.store.store import Store
from featurestore.store.writer import WriteSession

logger = logging.getLogger(__name__)


class Shape(Protocol):
    """What a new store has to know of an encoder."""

    @property
    def spec(self) -> str:
        """Its specification or name."""

    @property
    def recipe(self) -> Recipe:
        """What decides its vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def n_layers(self) -> int:
        """Layers kept apart."""


def require_budget(token_budget: int | None) -> None:
    """Raise unless a token budget holds a sentence.

    Raises
    ------
    UsageError
    """
    if token_budget is not None and (not isinstance(token_budget, int) or token_budget < 1):
        raise UsageError(f"a token budget of {token_budget!r} holds no sentence: give an int of at least 1")


def opened_or_made(
    destination: Destination,
    encoder: Shape,
    *,
    codec: str,
    shard_bytes: int | None,
    canaries: Callable[[], Canaries | None],
) -> tuple[Store, bool]:
    """Return the store as it is now, its recipe compared with the encoder's, and whether it was made now.

    Parameters
    ----------
    destination : Destination
    encoder : Shape
    codec, shard_bytes
        Of a new store.
    canaries : callable
        Returns those of a new store.

    Raises
    ------
    RecipeMismatchError
        If the store holds vectors of another recipe.
    """
    destination = destination.latest()  # loading the encoder may have taken minutes
    if destination.store is None:
        try:
            made = Store.create(
                destination.path,
                recipe=encoder.recipe,
                dim=encoder.dim,
                n_layers=encoder.n_layers,
                encoder=encoder.spec,
                codec=codec,
                shard_bytes=limits.DEFAULT_SHARD_BYTES if shard_bytes is None else shard_bytes,
                canaries=canaries(),
            )
            return made, True
        except UsageError:
            destination = destination.latest()
            if destination.store is None:
                raise  # else another extraction made it just now
    destination.require_recipe(encoder.recipe)
    return destination.store, False


def session_of(store: Store, encoder: Shape, plan: Plan, report: Report, codec: str | None) -> WriteSession:
    """Begin to write, after warning of what the user should know."""
    if plan.n_new and not plan.n_conditioned:
        report.missing_context = list(depends_on(encoder.recipe))
    if report.notice:
        logger.warning("%s", report.notice)
    named = store.manifest.encoder
    moved = encoder.spec if encoder.spec and lies_no_longer(named) else None
    if moved is not None:
        logger.warning("the store named %s, which is gone; it names %s from now on", named, moved)
    return store.write(codec=codec, encoder=moved)


def share_cached(plan: Plan) -> float:
    """Return which share of the distinct sentences is stored already."""
    return plan.n_cached / plan.n_distinct if plan.n_distinct else 0.0


def require_all_stored(report: Report) -> None:
    """Raise for sentences that had to be left out.

    Raises
    ------
    EncoderError, VectorError
    """
    for left_out, error, problem, remedy in (
        (
            report.too_large,
            EncoderError,
            "not fit into memory even alone",
            "Split what is too long, or encode it on a device with more memory",
        ),
        (
            report.refused,
            VectorError,
            "not give vectors that can be stored",
            "The reasons above say what to change",
        ),
    ):
        if left_out:
            listed = "".join(f"\n  {line}" for line in left_out[:10])
            does = "sentence does" if len(left_out) == 1 else "sentences do"
            raise error(f"{len(left_out)} {does} {problem}:{listed}\nAll others are committed. {remedy}")
