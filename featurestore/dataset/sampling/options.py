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


def require_one_of(name: str, given: object, choices: Any) -> None:
    """Raise a UsageError unless a value is one of a Literal's."""
    known = get_args(choices)
    if given not in known:
        raise UsageError(f"{name}={given!r}: expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")


def whole_number(name: str, given: object, least: int) -> int:
    """Return an integer, or raise a UsageError if it is none or too small."""
    try:
        number = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name}={given!r}: must be at least {least}, an integer")
    return number
