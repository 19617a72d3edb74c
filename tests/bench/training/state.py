"""Seconds and bytes to save and to restore where a loader stands, in the middle of an epoch, by corpus size.

Lengths are drawn, and nothing is stored: what is measured is the samplers alone. Beside ours,
``torchdata.StatefulDataLoader`` over a plain dataset of integers with a shuffling sampler, where it is
installed (``pip install torchdata``), at sizes that it does not take minutes for. "To go on" is from the
constructor to the first batch after the restored place.

    python -m tests.bench.training.state --sizes 10000 --sizes 1000000 --sizes 100000000
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from featurestore import BucketBatchSampler
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part

PEER_MOST = 1_000_000
SIZES = (10_000, 1_000_000, 100_000_000)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def ours(lengths: np.ndarray) -> tuple[float, float, float, int]:
    """Return seconds to the first batch, to save, and to go on from the state, and the state's bytes."""
    sampler = BucketBatchSampler(lengths)
    to_first, batches = timed(lambda: start(sampler))
    for _ in range(50):
        next(batches)
    sampler.state_dict()  # hashes the lengths, once
    to_save, state = timed(sampler.state_dict)
    following = next(batches)

    def go_on() -> list[int]:
        again = BucketBatchSampler(lengths)
        again.load_state_dict(state)
        return next(iter(again))

    to_go_on, found = timed(go_on)
    if found != following:
        raise RuntimeError("another batch followed")
    return to_first, to_save, to_go_on, len(json.dumps(state))


def start(sampler: BucketBatchSampler) -> Any:
    batches = iter(sampler)
    next(batches)
    return batches


def torchdatas(n: int) -> tuple[float, float, float, int]:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader() -> Any:
        return StatefulDataLoader(range(n), batch_size=100, shuffle=True)

    def begin() -> Any:
        batches = iter(one)
        next(batches)
        return batches

    one = loader()
    to_first, batches = timed(begin)
    for _ in range(n // 200):
        next(batches)
    to_save, state = timed(one.state_dict)

    def go_on() -> Any:
        again = loader()
        again.load_state_dict(state)
        return next(iter(again))

    to_go_on, _ = timed(go_on)
    return to_first, to_save, to_go_on, len(pickle.dumps(state))


def measured(sizes: tuple[int, ...]) -> PartResult:
    columns = ["to go on, s", "to save, ms", "to the first batch, s", "bytes of state"]
    table = Table("Saving and restoring where a loader stands", columns, lower_is_better=True)
    for n in sizes:
        lengths = np.random.default_rng(0).geometric(1 / 16, n).astype(np.uint16)
        rows = [("featurestore", "ours", lambda lengths=lengths: ours(lengths))]
        try:
            import torchdata  # noqa: F401
        except ImportError:
            pass
        else:
            if n <= PEER_MOST:
                rows.append(("torchdata", "alternative", lambda n=n: torchdatas(n)))
        for name, kind, work in rows:
            to_first, to_save, to_go_on, n_bytes = work()
            table.add(f"{name}, {n:,} sentences", kind, to_go_on, 1000 * to_save, to_first, n_bytes)
    table.note = "Ours passes once over the lengths, to add them up and to hash them, and plans one pool."
    return PartResult(tables=[table], promises={}, settings={"sizes": list(sizes)})


@click.command()
@click.option("--sizes", multiple=True, type=int, default=SIZES, show_default=True)
@part_options
def main(sizes: tuple[int, ...], quick: bool, as_json: bool) -> None:
    print_part(measured((10_000,) if quick else sizes), as_json)


if __name__ == "__main__":
    main()
