"""The options of a sampler, checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featurestore.dataset.sampling.processes import Share
from featurestore.errors import UsageError


def as_lengths(given: Sequence[int] | NDArray[np.integer]) -> NDArray[np.integer]:
    """Return lengths as they are, if they are integers in an array: they may be mapped, and many."""
    lengths = np.asarray(given)
    return lengths if lengths.dtype.kind in "iu" else np.asarray(given, np.int64)


def given_share(num_replicas: int | Literal["auto"], rank: int) -> Share | None:
    """Return the share that was given, None if it is to be found."""
    if num_replicas == "auto":
        if rank != 0:
            raise UsageError(f"rank={rank!r}: give num_replicas= too, or neither, and both are found")
        return None
    share = Share(whole_number("num_replicas", num_replicas, 1), whole_number("rank", rank, 0))
    if share.rank >= share.num_replicas:
        raise UsageError(
            f"rank={rank}: must be less than num_replicas={num_replicas}; ranks are counted from 0"
        )
    return share


def checked_groups(given: Sequence[int] | NDArray[np.integer], n_sentences: int) -> NDArray[np.int64]:
    """Return the first sentence of each group, or raise a UsageError if they do not ascend from 0."""
    starts = np.asarray(given)
    is_right = starts.ndim == 1 and (starts.dtype.kind in "iu" or not len(starts))
    if is_right and len(starts):
        starts = starts.astype(np.int64)
        is_right = starts[0] == 0 and bool((np.diff(starts) > 0).all()) and starts[-1] < n_sentences
    if not is_right or bool(n_sentences) != bool(len(starts)):
        raise UsageError(
            "groups: expected the positions of the first sentences of groups, ascending from 0 and below "
            f"{n_sentences:,}, found {starts[:8].tolist()}"
        )
    return starts.astype(np.int64)


def checked_weights(given: Sequence[float] | NDArray[Any], n_sentences: int) -> NDArray[np.float64]:
    """Return weights as shares of the largest, or raise a UsageError if nothing can be drawn by them."""
    try:
        weights = np.asarray(given)
    except (ValueError, TypeError, RuntimeError):  # of other lengths among each other; on a GPU
        weights = np.empty(0, object)
    if weights.dtype.kind not in "biuf" or weights.ndim != 1:
        shape = "" if weights.dtype == object else f" {weights.dtype} of shape {weights.shape}"
        raise UsageError(
            f"weights: expected 'balanced' or a number for each of {n_sentences:,} examples, found "
            f"{type(given).__name__}{shape}: {given!r:.40}"
        )
    if len(weights) != n_sentences:
        raise UsageError(
            f"weights: expected one for each of {n_sentences:,} examples, in their order, found "
            f"{len(weights):,}; of a Subset, weights[subset.indices]"
        )
    weights = weights.astype(np.float64)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        at = int(wrong.argmax())
        raise UsageError(
            f"weights[{at}] is {weights[at]} ({np.count_nonzero(wrong):,} of {n_sentences:,} are negative or "
            "not finite): expected numbers from 0; an example of weight 0 is never drawn"
        )
    if n_sentences and not weights.any():
        raise UsageError(
            f"weights: all {n_sentences:,} are 0, nothing could be drawn: expected one above 0 at least"
        )
    shares: NDArray[np.float64] = weights / weights.max(initial=np.finfo(np.float64).tiny)
    return shares


def require_together(
    shuffle: object, order: object, uneven: object, groups: object, weights: object, steps_per_epoch: object
) -> None:
    """Raise a UsageError for the first two options that exclude each other."""
    if isinstance(shuffle, str) and shuffle != "by length":
        raise UsageError(f"shuffle={shuffle!r}: expected True, False or 'by length'")
    if shuffle and order == "corpus":
        raise UsageError(f"order='corpus' is the order of the corpus: leave out shuffle={shuffle!r}")
    if shuffle == "by length" and groups is not None:
        raise UsageError(
            "shuffle='by length' would part groups of sentences: leave out group_by= or shuffle="
        )
    if weights is not None:
        for other, given in (
            ("order='corpus'", order == "corpus"),
            ("group_by=", groups is not None),
            (f"shuffle={shuffle!r}", shuffle is not None and shuffle is not True),
        ):
            if given:
                raise UsageError(f"weights draw single sentences at random, in no order: leave out {other}")
    if steps_per_epoch is not None and uneven != "split":
        raise UsageError(
            f"uneven={uneven!r}: with steps_per_epoch the data go on, and all processes make as many steps: "
            "leave out uneven="
        )


def require_one_of(name: str, given: object, choices: Any) -> None:
    """Raise a UsageError unless a value is one of a Literal's."""
    known = get_args(choices)
    if given not in known:
        raise UsageError(f"{name}={given!r}: expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")


def number_or_none(name: str, given: object) -> int | None:
    """Return an integer of at least 1, or None as given; raise a UsageError for others."""
    return None if given is None else whole_number(name, given, 1)


def whole_number(name: str, given: object, least: int) -> int:
    """Return an integer, or raise a UsageError if it is none or too small."""
    try:
        number = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name}={given!r}: must be at least {least}, an integer")
    return number
