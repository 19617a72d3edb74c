"""The processes that train together: how many there are, and which of them this one is."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import NamedTuple

import torch.distributed

logger = logging.getLogger(__name__)


class Share(NamedTuple):
    """How many processes share the batches, and the number of this one, from 0."""

    num_replicas: int
    rank: int


ALONE = Share(1, 0)


def process_count() -> int:
    """Return how many processes train together: of torch.distributed's default group, else by WORLD_SIZE."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return _stated("WORLD_SIZE") or 1


def found_share() -> Share:
    """Return the share of this process as torch.distributed or, before that has begun, torchrun says it."""
    n_processes = process_count()
    if n_processes == 1:
        return ALONE
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        share = Share(n_processes, torch.distributed.get_rank())
        _say_shared(*share, "torch.distributed")
        return share
    rank = _stated("RANK")
    if rank is None or rank >= n_processes:
        _warn_of_replicas(n_processes)
        return ALONE
    _say_shared(n_processes, rank, "RANK and WORLD_SIZE")
    return Share(n_processes, rank)


def _stated(name: str) -> int | None:
    stated = os.environ.get(name, "")
    return int(stated) if stated.isascii() and stated.isdigit() else None


@cache
def _say_shared(n_processes: int, rank: int, source: str) -> None:
    logger.warning(
        "process %d of %d by %s: each takes its share of the batches; num_replicas=1 gives all of them, "
        "where the data are shared out already or each process needs everything",
        rank, n_processes, source,
    )  # fmt: skip


@cache
def _warn_of_replicas(n_processes: int) -> None:
    logger.warning(
        "%d processes train together by WORLD_SIZE, and feature_loader gives each of them all examples, "
        "because RANK does not say which this one is: share them out by num_replicas=%d, "
        "rank=torch.distributed.get_rank(); or give num_replicas=1 if each is to read all",
        n_processes,
        n_processes,
    )
