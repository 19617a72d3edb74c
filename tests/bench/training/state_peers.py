"""Seconds and bytes to save and restore the place in an epoch with litdata and mosaicml-streaming.

What :mod:`tests.bench.training.state` measures of ours, of the two peers that stream shuffled datasets, over
integers written in their own formats. They go in an environment of their own, without featurestore:

    python -m venv peers && peers/bin/pip install torch==2.14.1 torchvision==0.29.1 litdata mosaicml-streaming
    peers/bin/python tests/bench/training/state_peers.py --sizes 10000 100000
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 32


def same(number: int) -> int:
    return number


def of_litdata(n: int, folder: Path) -> Callable[[], Any]:
    """Write n integers as litdata does; return what makes a loader over them."""
    import litdata

    litdata.optimize(
        fn=same, inputs=list(range(n)), output_dir=str(folder / "data"), chunk_bytes="1MB", num_workers=1
    )

    def loader() -> Any:
        dataset = litdata.StreamingDataset(str(folder / "data"), shuffle=True, seed=0)
        return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)

    return loader


def of_mosaicml(n: int, folder: Path) -> Callable[[], Any]:
    """Write n integers as mosaicml-streaming does; return what makes a loader over them."""
    import streaming
    from streaming.base.util import clean_stale_shared_memory

    with streaming.MDSWriter(
        out=str(folder / "data"), columns={"number": "int64"}, size_limit="1mb"
    ) as writer:
        for number in range(n):
            writer.write({"number": number})

    def loader() -> Any:
        clean_stale_shared_memory()
        dataset = streaming.StreamingDataset(local=str(folder / "data"), shuffle=True, batch_size=BATCH)
        return streaming.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)

    return loader


def measured(new: Callable[[], Any], n: int) -> dict[str, float]:
    """Return seconds to save and to go on in the middle of an epoch, and the state's bytes."""
    loader = new()
    batches = iter(loader)
    for _ in range(n // BATCH // 2):
        next(batches)
    started = time.perf_counter()
    state = loader.state_dict()
    saved = time.perf_counter() - started
    del batches, loader
    started = time.perf_counter()
    resumed = new()
    resumed.load_state_dict(state)
    next(iter(resumed))
    return {"save_s": saved, "go_on_s": time.perf_counter() - started, "bytes": len(pickle.dumps(state))}


PEERS = {"litdata": of_litdata, "mosaicml-streaming": of_mosaicml}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--packages", nargs="+", choices=PEERS, default=list(PEERS))
    arguments = parser.parse_args()
    for n in arguments.sizes:
        for package in arguments.packages:
            prepare = PEERS[package]
            folder = Path(tempfile.mkdtemp())
            try:
                found = measured(prepare(n, folder), n)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            print(
                json.dumps(
                    {"package": package, "version": importlib.metadata.version(package), "n": n, **found}
                )
            )


if __name__ == "__main__":
    main()
