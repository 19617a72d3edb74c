"""Verifying a store: every byte of every shard against what was committed, each finding with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import DamagedStoreError, FeaturestoreError, UnreadableStoreError
from featurestore.keys import sentence_key
from featurestore.store.format.access import sha256_of_shard
from featurestore.store.format.directory import (
    CANARIES,
    SHARDS,
    list_numbers,
    manifest_path,
    read_without_lists,
)
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.manifest import Manifest
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.structure import inspect
from featurestore.store.listing.files import LISTS, Reference
from featurestore.store.listing.heads import doubtful_heads
from featurestore.store.snapshot import Snapshot


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was committed.

    Attributes
    ----------
    shard : str
        File name of the shard; ``canaries/`` and the file name for the canaries; empty for a manifest.
    problem : str
        What is wrong, for people.
    row : int or None
        Of the sentence in the shard, from 0.
    key : str
        Hexadecimal key of the sentence, where it is known.
    text : str
        Beginning of the sentence, where it is known.
    is_gone : bool
        Whether there is no such file.
    """

    shard: str
    problem: str
    row: int | None = None
    key: str = ""
    text: str = ""
    is_gone: bool = False

    @property
    def sentence(self) -> int | None:
        """The same as :attr:`row`."""
        return self.row

    def to_dict(self) -> dict[str, Any]:
        """Return the finding for ``--json``."""
        return {
            "shard": self.shard, "problem": self.problem, "sentence": self.row, "key": self.key,
            "text": self.text, "missing": self.is_gone,
        }  # fmt: skip

    def __str__(self) -> str:
        place = self.shard or "manifest"
        if self.row is not None:
            place += f", sentence {self.row} ({self.text!r}, key {self.key})"
        return f"{place}: {self.problem}"


def verify(
    store: Snapshot,
    *,
    quick: bool = False,
    sample: int | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Finding]:
    """Check a store and yield what is wrong; nothing if it is sound.

    Others may write to the store, and gc may remove old snapshots from it, meanwhile.

    Parameters
    ----------
    store : Snapshot
    quick : bool
        Check that every shard exists, and its size and structure, without reading the vectors. The structure
        of a shard in a list is taken for sound if it has the hash that was committed.
    sample : int, optional
        As ``quick``, and check the vectors of this many sentences drawn at random.
    seed : int
        Of the draw.
    progress : callable, optional
        Called with the bytes of each shard checked.

    Raises
    ------
    UnreadableStoreError
        If a file that may be sound cannot be opened.
    """
    # Earlier snapshots too: whoever reads them needs theirs, and gc refuses to guess what they need.
    known: set[Reference] = set()
    for number in list_numbers(store.location) if not quick and sample is None else [store.snapshot]:
        yield from verify_manifest(store.location, number, known)
    yield from verify_canaries(store.location, store.manifest)
    drawn = None if sample is None else draw_sentences(store, sample, seed)
    shards = store.manifest.shards
    doubtful: Iterable[int] = range(len(shards))
    if quick and drawn is None:
        doubtful = doubtful_heads(store.location / SHARDS, shards)
        if progress is not None:
            progress(shards.n_bytes - sum(shards[number].n_bytes for number in doubtful))
    for number in doubtful:
        entry = shards[number]
        rows = None if drawn is None else drawn.get(number, [])
        yield from verify_shard(
            store.location / SHARDS / entry.name, entry, store.fingerprint, quick=quick, rows=rows
        )
        if progress is not None:
            progress(entry.n_bytes)


def verify_manifest(path: Path, number: int, known: set[Reference]) -> Iterator[Finding]:
    """Check a manifest and its lists and yield what is wrong, nothing if gc removed it.

    Parameters
    ----------
    path : Path
        Of the store.
    number : int
    known : set of Reference
        Lists that were checked already; grows.
    """
    try:
        manifest = read_without_lists(path, number)
    except UnreadableStoreError:
        raise  # which says nothing of its bytes
    except DamagedStoreError as error:
        if not error.is_gone:
            yield Finding("", str(error))
        return
    except FeaturestoreError as error:
        yield Finding("", str(error))
        return
    for part in (*manifest.shards.parts, *manifest.left_out.parts):
        if part.reference is None or part.reference in known:
            continue
        known.add(part.reference)
        try:
            _ = part.rows
        except DamagedStoreError as error:
            if error.is_gone and not manifest_path(path, number).exists():
                return
            yield Finding(f"{LISTS}/{part.reference.name}", str(error), is_gone=error.is_gone)


def verify_canaries(path: Path, manifest: Manifest) -> Iterator[Finding]:
    """Check a store's canaries, if it has any, and yield what is wrong."""
    if manifest.canaries is None:
        return
    file = path / CANARIES / manifest.canaries.name
    for finding in verify_shard(file, manifest.canaries.shard, manifest.recipe.fingerprint):
        yield replace(finding, shard=f"{CANARIES}/{finding.shard}")


def draw_sentences(store: Snapshot, n: int, seed: int) -> dict[int, list[int]]:
    """Return sentences drawn at random without repetition: the rows of each shard, ascending."""
    sizes = store.manifest.shards.sizes.astype(np.int64)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    chosen = np.sort(np.random.default_rng(seed).choice(total, min(n, total), replace=False))
    drawn: dict[int, list[int]] = {}
    for number, shard in zip(chosen.tolist(), np.searchsorted(ends, chosen, side="right"), strict=True):
        drawn.setdefault(int(shard), []).append(number - int(ends[shard] - sizes[shard]))
    return drawn


def verify_shard(
    path: Path, entry: ShardEntry, fingerprint: str, *, quick: bool = False, rows: Iterable[int] | None = None
) -> Iterator[Finding]:
    """Check one shard and yield what is wrong.

    Parameters
    ----------
    path : Path
    entry : ShardEntry
        As the manifest lists it.
    fingerprint : str
        Of the store's recipe.
    quick : bool
        Do not read the vectors.
    rows : iterable of int, optional
        Check the vectors of these sentences alone.
    """
    try:
        reader = ShardReader(path, entry, access="pread", check="never")
    except DamagedStoreError as error:
        yield Finding(entry.name, str(error), is_gone=error.is_gone)
        return
    try:
        found_fingerprint, codec, extents = inspect(path)
    except DamagedStoreError as error:
        yield Finding(entry.name, str(error), is_gone=error.is_gone)
        return
    if found_fingerprint != fingerprint:
        yield Finding(
            entry.name, f"holds vectors of recipe {found_fingerprint[:16]}..., not {fingerprint[:16]}..."
        )
    if codec != entry.codec or dict(extents) != dict(entry.extents):
        yield Finding(entry.name, "HDF5 finds its datasets elsewhere than the manifest says")
    if quick:
        return
    if rows is not None:
        yield from _verify_sentences(reader, entry, rows)
        return
    problem = ""
    try:
        found = sha256_of_shard(path)
        if found != entry.sha256:
            problem = f"the file has hash {found[:16]}..., expected {entry.sha256[:16]}..."
    except DamagedStoreError as error:
        problem = str(error)
    damaged = False
    for finding in _verify_sentences(reader, entry, range(len(reader))):
        damaged = True
        yield finding
    if problem and not damaged:
        yield Finding(entry.name, problem)


def _verify_sentences(reader: ShardReader, entry: ShardEntry, rows: Iterable[int]) -> Iterator[Finding]:
    for row in rows:
        try:
            intact = reader.row_is_intact(row)
            problem = "" if intact else "its vectors are not what was committed (checksum differs)"
        except DamagedStoreError as error:
            problem = str(error)
        if problem:
            yield Finding(entry.name, problem, row, reader.key(row).hex(), _text(reader, row))
        try:
            tokens = reader.tokens(row)
        except DamagedStoreError as error:
            yield Finding(entry.name, str(error), row, reader.key(row).hex())
            continue
        if sentence_key(tokens) != reader.key(row):
            keyed = "tokens and condition" if reader.condition(row) else "tokens"
            problem = f"the key is not that of the {keyed}"
            yield Finding(entry.name, problem, row, reader.key(row).hex(), _text(reader, row))


def _text(reader: ShardReader, row: int) -> str:
    """Return the beginning of a sentence, empty where its tokens cannot be read."""
    try:
        return " ".join(reader.tokens(row)[:8])
    except DamagedStoreError:
        return ""
