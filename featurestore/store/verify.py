"""Verifying a store: every byte of every shard against what was committed, each finding with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from featurestore.errors import DamagedStoreError, FeaturestoreError
from featurestore.keys import sentence_key
from featurestore.store.filesystem import file_sha256
from featurestore.store.layout import ShardEntry
from featurestore.store.manifest import SHARDS, read_manifest
from featurestore.store.reader import ShardReader
from featurestore.store.store import Store
from featurestore.store.structure import inspect


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was committed.

    Attributes
    ----------
    shard : str
        File name, empty for the manifest.
    sentence : int or None
        Number in the shard.
    key : str
        Hexadecimal key of the sentence, where it is known.
    text : str
        Beginning of the sentence, where it is known.
    problem : str
    """

    shard: str
    problem: str
    sentence: int | None = None
    key: str = ""
    text: str = ""

    def __str__(self) -> str:
        place = self.shard or "manifest"
        if self.sentence is not None:
            place += f", sentence {self.sentence} ({self.text!r}, key {self.key})"
        return f"{place}: {self.problem}"


def verify(
    store: Store, *, quick: bool = False, progress: Callable[[int], object] | None = None
) -> Iterator[Finding]:
    """Check a store and yield what is wrong; nothing if it is sound.

    Parameters
    ----------
    store : Store
    quick : bool
        Check that every shard is there, has its size and a sound structure, without reading the vectors.
    progress : callable, optional
        Called with the bytes of each shard checked.
    """
    try:
        read_manifest(store.path, store.snapshot)
    except FeaturestoreError as error:
        yield Finding("", str(error))
    for number, entry in enumerate(store.manifest.shards):
        yield from _verify_shard(store, number, entry, quick)
        if progress is not None:
            progress(entry.n_bytes)


def _verify_shard(store: Store, number: int, entry: ShardEntry, quick: bool) -> Iterator[Finding]:
    path = store.path / SHARDS / entry.name
    try:
        reader = ShardReader(path, entry, access="pread", check="never")
    except DamagedStoreError as error:
        yield Finding(entry.name, str(error))
        return
    try:
        fingerprint, codec, extents = inspect(path)
    except FeaturestoreError as error:
        yield Finding(entry.name, str(error))
        return
    if fingerprint != store.fingerprint:
        yield Finding(
            entry.name, f"holds vectors of recipe {fingerprint[:16]}..., not {store.fingerprint[:16]}..."
        )
    if codec != entry.codec or dict(extents) != dict(entry.extents):
        yield Finding(entry.name, "HDF5 finds its datasets elsewhere than the manifest says")
    if quick:
        return
    found = file_sha256(path)
    if found == entry.sha256:
        # Equal to the byte: only what was wrong before it was hashed could be wrong now.
        yield from _verify_keys(reader, entry)
        return
    damaged = False
    for row in range(len(reader)):
        if not reader.is_sound(row):
            damaged = True
            tokens = reader.tokens(row)
            yield Finding(
                entry.name,
                "its vectors are not what was committed (checksum differs)",
                sentence=row,
                key=reader.key(row).hex(),
                text=" ".join(tokens[:8]),
            )
    if not damaged:
        yield Finding(entry.name, f"the file has hash {found[:16]}..., expected {entry.sha256[:16]}...")


def _verify_keys(reader: ShardReader, entry: ShardEntry) -> Iterator[Finding]:
    for row in range(len(reader)):
        try:
            tokens = reader.tokens(row)
        except DamagedStoreError as error:
            yield Finding(entry.name, str(error), sentence=row, key=reader.key(row).hex())
            continue
        if sentence_key(tokens) != reader.key(row):
            yield Finding(
                entry.name,
                "the key is not that of the tokens",
                sentence=row,
                key=reader.key(row).hex(),
                text=" ".join(tokens[:8]),
            )
