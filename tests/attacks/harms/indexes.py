"""Hostile indexes beside sound shards."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from featurestore.store.format.directory import read_manifest
from featurestore.store.index.files import run_bytes, run_path
from featurestore.store.index.lookup import Index, shard_records
from featurestore.store.index.run import IndexRun
from featurestore.store.snapshot import shard_list
from featurestore.store.store import Store
from tests.attacks.harms.manifests import INDEX, in_place, link, sparse
from tests.attacks.hostile import (
    HARMLESS,
    Attack,
)
from tests.kit.stores import CONDITIONED_SENTENCES, fill, sentences


def index_of(change: Callable[[Index], Index]) -> Callable[[Path], None]:
    """Return the harm of another index whose own checksum fits."""

    def harm(store: Path) -> None:
        (path,) = store.glob(INDEX)
        forged = change(Store.open(store).index).runs[0]
        path.write_bytes(run_bytes(forged, shard_list(read_manifest(store))))

    return harm


def sparse_index(store: Path) -> None:
    (path,) = store.glob(INDEX)
    n_keys = 1 << 34
    header = bytearray(path.read_bytes()[:64])
    header[8:16] = n_keys.to_bytes(8, "little")
    path.write_bytes(header)
    sparse(path, 64 + 24 * n_keys)


def rows(change: Callable[[Any], Any]) -> Callable[[Index], Index]:
    return lambda index: Index.of(index.high, index.low, index.shard, change(index.row), index.n_shards)


def run_of(change: Callable[[IndexRun], IndexRun]) -> Callable[[Path], None]:
    """Return the harm of an index in two runs, the second of them another whose own checksum fits."""

    def harm(store: Path) -> None:
        opened = fill(Store.open(store), [*sentences(9), *CONDITIONED_SENTENCES, *sentences(4, start=30)])
        opened = opened.refreshed()
        shards, last = shard_list(opened.manifest), len(opened.manifest.shards) - 1
        for path in store.glob(INDEX):
            path.unlink()
        for first, stop in ((0, last), (last, last + 1)):
            keys = [shard_records(number, opened.keys_of(number)) for number in range(first, stop)]
            run = IndexRun.of(keys, first, stop)
            if first == last:
                run = change(run)
            path = run_path(store / "index", shards, first, stop)
            content = run_bytes(replace(run, first=first, stop=stop), shards)
            if (run.first, run.stop) != (first, stop):
                content = edited_header(content, run.first, run.stop)
            path.write_bytes(content)

    return harm


def edited_header(content: bytes, first: int, stop: int) -> bytes:
    """Return the file of a run that says to cover other shards, with its checksum."""
    fields = content[:16] + struct.pack("<QQ", first, stop) + content[32:80]
    return fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little") + content[88:]


def placed(shard: int) -> Callable[[IndexRun], IndexRun]:
    def change(run: IndexRun) -> IndexRun:
        records = np.array(run.records)
        records[:, 2] = (records[:, 2] & np.uint64(0xFFFFFFFF)) | np.uint64(shard << 32)
        return IndexRun.of([records], run.first, run.stop)

    return change


def many_files(store: Path) -> None:
    (path,) = store.glob(INDEX)
    content = path.read_bytes()
    for number in range(300):
        path.with_name(f"{number:016x}.idx").write_bytes(content[:-1] + b"\xff")


INDEX_ATTACKS = {
    "rows outside their shard": Attack(index_of(rows(lambda row: row + np.uint32(1 << 31))), HARMLESS),
    "shards outside the store": Attack(
        index_of(lambda i: Index.of(i.high, i.low, i.shard + np.uint32(7), i.row, i.n_shards)), HARMLESS
    ),
    "index of 400 gigabytes": Attack(sparse_index, HARMLESS),
    "a run that points to the shards of another": Attack(run_of(placed(0)), HARMLESS),
    "a run that points to no shard": Attack(run_of(placed(1 << 31)), HARMLESS),
    "a run over no shards": Attack(run_of(lambda run: replace(run, stop=run.first)), HARMLESS),
    "a run that ends before it begins": Attack(run_of(lambda run: replace(run, stop=0)), HARMLESS),
    "a run beyond all shards": Attack(run_of(lambda run: replace(run, stop=1 << 63)), HARMLESS),
    "a run in place of another": Attack(run_of(lambda run: replace(run, first=0)), HARMLESS),
    "three hundred runs": Attack(many_files, HARMLESS),
    "index a link": Attack(link(INDEX), HARMLESS),
    "index a pipe": Attack(in_place(INDEX, os.mkfifo), HARMLESS),
    "index a directory": Attack(in_place(INDEX, Path.mkdir), HARMLESS),
    "index of nothing": Attack(in_place(INDEX, Path.touch), HARMLESS),
}
