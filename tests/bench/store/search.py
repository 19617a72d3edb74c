"""Nearest tokens by one pass over the store, beside reading the same bytes, and beside faiss.

The store is warm; all processors of this machine work on each. *Read* is the largest number of the stored
bytes, taken as whole words: what memory gives. faiss loads the vectors as float32 into ``IndexFlatIP`` and
searches once, as somebody would who has one question.

    python -m tests.bench.store.search --tokens 200000
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from featurestore.search.neighbors import find_neighbors
from featurestore.store.store import Store
from tests.bench.figures import Table
from tests.bench.random_store import write_store
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.texts import enough_sentences, source

DIM = 1024
CODECS = ("float16", "int8")


def seconds_of(work: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work(*arguments)
    return time.perf_counter() - started, found


def read_all(store: Store) -> None:
    """Look at every stored word once, by as many threads as the search has."""
    n_threads = len(os.sched_getaffinity(0))
    pieces = [
        piece
        for shard in range(len(store.manifest.shards))
        for piece in np.array_split(np.asarray(store.reader(shard).values).reshape(-1).view(np.uint64), 16)
    ]
    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(np.max, pieces))


def with_faiss(store: Store, query: np.ndarray) -> list[float] | None:
    """Load everything into faiss and ask it once; None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    index = faiss.IndexFlatIP(store.dim)
    for shard in range(len(store.manifest.shards)):
        reader = store.reader(shard)
        rows = np.concatenate([reader.read(row) for row in range(len(reader))])
        index.add(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    scores, _ = index.search((query / np.linalg.norm(query))[None].astype(np.float32), 10)
    found: list[float] = scores[0].tolist()
    return found


def measured(tokens: int, repeats: int) -> PartResult:
    sentences = enough_sentences(tokens)
    n_tokens = sum(map(len, sentences))
    vectors = np.random.default_rng(0).standard_normal((1 << 14, DIM), np.float32)
    shares: dict[str, float] = {}
    table = Table("Nearest tokens", ["GB/s", "share of reading", "times faiss's load and search"])
    query = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)
    for codec in CODECS:
        with tempfile.TemporaryDirectory() as folder:
            store = write_store(Path(folder) / "store", sentences, vectors, codec).refreshed()
            n_bytes = sum(shard.extents["values"].n_bytes for shard in store.manifest.shards)
            best = {"search": float("inf"), "read": float("inf")}
            for _ in range(repeats + 1):
                best["read"] = min(best["read"], seconds_of(read_all, store)[0])
                best["search"] = min(best["search"], seconds_of(find_neighbors, store, query)[0])
            by_faiss, answers = seconds_of(with_faiss, store, query)
            found = [one.score for one in find_neighbors(store, query)]
            if answers is not None and not np.allclose(found, answers, atol=1e-5):
                raise SystemExit(f"faiss finds other tokens: {answers} and {found}")
            ratio = by_faiss / best["search"] if answers is not None else None
            shares[codec] = best["read"] / best["search"]
            table.add(codec, "ours", n_bytes / best["search"] / 1e9, shares[codec], ratio)
            table.add(f"{codec}, read", "ceiling", n_bytes / best["read"] / 1e9)
    table.note = f"{n_tokens:,} tokens of {DIM} values in {len(sentences):,} sentences of {source()}, warm."
    return PartResult(
        tables=[table],
        promises={f"{codec}, search": f"{share:.0%} of reading" for codec, share in shares.items()},
        settings={"n_tokens": n_tokens, "dim": DIM, "repeats": repeats},
    )


@click.command(help=__doc__.partition("\n")[0])
@click.option("--tokens", default=200_000, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@part_options
def main(tokens: int, repeats: int, quick: bool, as_json: bool) -> None:
    print_part(measured(4_000 if quick else tokens, 1 if quick else repeats), as_json)


if __name__ == "__main__":
    main()
