"""Stores with vectors of another store in another codec, or with some of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.errors import UsageError
from featurestore.store.canaries import Canaries, read_canaries
from featurestore.store.format.codec import Codec, CodecError, Floats, get_codec
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.shard import ShardDraft, place
from featurestore.store.format.staging import StagingMemory
from featurestore.store.locks import committing
from featurestore.store.maintenance.derived import commit_all, make_like
from featurestore.store.store import Store

_ROUNDED = "int8"
"""The codec whose loss is large enough that a second one on top of it is asked for by name."""

Change = Callable[[Floats], NDArray[np.floating]]
"""From a sentence's (n_tokens, [n_layers,] dim) float32 to what the new store holds of it."""


@dataclass
class Recoded:
    """What was written.

    Attributes
    ----------
    n_sentences, n_tokens, n_bytes : int
    error : CodecError
        What the vectors differ by from the encoder's, as far as is known: what was measured when the source
        was written, and what was measured now on top of it.
    added : CodecError
        What the new codec lost alone.
    """

    n_sentences: int = 0
    n_tokens: int = 0
    n_bytes: int = 0
    error: CodecError = field(default_factory=CodecError)
    added: CodecError = field(default_factory=CodecError)


def recode(
    store: Store,
    into: str | Path,
    codec: str,
    *,
    again: bool = False,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Recoded:
    """Make a store of the same sentences in another codec.

    Parameters
    ----------
    store : Store
        It does not change.
    into : str or Path
        A directory that does not exist or is empty; or what a killed run of this left.
    codec : str
        Of the new store.
    again : bool
        Permit what rounds vectors of int8 a second time.
    progress : callable, optional
        Called with the bytes of each shard read.

    Raises
    ------
    UsageError
        If something else is at the path, there is no such codec, or vectors would be rounded twice.
    DamagedStoreError
        If a sentence is damaged: repair the store first.
    VectorError
        If the codec cannot hold a vector: too large for float16, or too small.
    StoreWriteError
        If the disk is full or failing. The new store is empty then; run it again.
    """
    new = get_codec(codec)
    _require_rounded_once(store, new, again)
    target = make_like(store, into, codec=codec, filesystem=filesystem)
    return _rewritten(store, target, new, None, progress, filesystem)


def change_layers(
    store: Store,
    into: str | Path,
    change: Change,
    *,
    recipe: Mapping[str, Any],
    n_layers: int,
    again: bool = False,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Recoded:
    """Make a store with other layers of the same sentences, in the same codec.

    Parameters
    ----------
    store : Store
        It does not change.
    into : str or Path
        As for :func:`recode`.
    change : callable
        From a sentence's (n_tokens, n_layers, dim) float32 to the vectors of the new store.
    recipe : mapping
        Of the encoder that makes such vectors at once.
    n_layers : int
        That ``change`` leaves; 1 if it leaves (n_tokens, dim).
    again : bool
        As for :func:`recode`.
    progress : callable, optional
        As for :func:`recode`.

    Raises
    ------
    UsageError, DamagedStoreError, VectorError, StoreWriteError
        As :func:`recode`.
    """
    codec = get_codec(store.manifest.codec)
    _require_rounded_once(store, codec, again)
    known = read_canaries(store)
    canaries = None
    if known is not None:
        canaries = Canaries(
            known.sentences,
            tuple(np.ascontiguousarray(change(vectors), np.float32) for vectors in known.vectors),
            known.tolerance,
            known.made_with,
        )
    target = make_like(
        store, into, recipe=recipe, n_layers=n_layers, canaries=canaries, filesystem=filesystem
    )
    return _rewritten(store, target, codec, change, progress, filesystem)


def _require_rounded_once(store: Store, codec: Codec, again: bool) -> None:
    rounded = [entry for entry in store.manifest.shards if entry.codec == _ROUNDED]
    if not rounded or again or codec.name == "float32":
        return
    lost = sum((entry.error for entry in rounded), CodecError()).relative_l2
    raise UsageError(
        f"{store.path} holds vectors in {_ROUNDED}, which lost {lost:.2g} of their length (relative L2) when "
        f"they were stored; {codec.name} would round them a second time, by about "
        f"{max(lost if codec.name == _ROUNDED else 0.0, codec.max_relative_l2):.2g}: extract the corpora "
        f"again with --codec {codec.name}, or give --again (in Python again=True)"
    )


def _rewritten(
    store: Store,
    target: Store,
    codec: Codec,
    change: Change | None,
    progress: Callable[[int], object] | None,
    filesystem: FileSystem,
) -> Recoded:
    done, entries, keys = Recoded(), list[ShardEntry](), list[NDArray[np.uint8]]()
    full = max(1, target.manifest.shard_bytes // codec.bytes_per_token(target.n_layers, target.dim))
    memory = StagingMemory(full * target.n_layers * target.dim * codec.staging_dtype.itemsize)
    with committing(target.location):
        for places in _shards(store, full, progress):
            draft = ShardDraft(
                [reader.tokens(row) for reader, row in places],
                dim=target.dim,
                n_layers=target.n_layers,
                codec=codec,
                sentence_keys=[reader.key(row) for reader, row in places],
                memory=memory,
            )
            for position, (reader, row) in enumerate(places):
                vectors = reader.read(row)
                draft.put(position, vectors if change is None else change(vectors))
            sealed = draft.seal(target.fingerprint)
            added = sealed.entry.error
            entry = replace(sealed.entry, error=_on_top(_known(places), added))
            place(target.location, entry, [sealed.head, sealed.values], filesystem)
            draft.release()
            entries.append(entry)
            keys.append(np.stack([reader.keys[row] for reader, row in places]))
            done.n_sentences += entry.n_sentences
            done.n_tokens += entry.n_tokens
            done.n_bytes += entry.n_bytes
            done.error, done.added = done.error + entry.error, done.added + added
        commit_all(target, entries, keys, store)
    return done


def _shards(
    store: Store, full: int, progress: Callable[[int], object] | None
) -> Iterator[Sequence[tuple[ShardReader, int]]]:
    """Yield the sentences of each new shard, in stored order, of ``full`` tokens."""
    waiting: list[tuple[ShardReader, int]] = []
    n_tokens = 0
    for shard, entry in enumerate(store.manifest.shards):
        reader = store.passing(shard)
        for row in range(len(reader)):
            waiting.append((reader, row))
            n_tokens += reader.length(row)
            if n_tokens >= full:
                yield waiting
                waiting, n_tokens = [], 0
        if progress is not None:
            progress(entry.n_bytes)
    if waiting:
        yield waiting


def _known(places: Sequence[tuple[ShardReader, int]]) -> CodecError:
    """Return what was measured of the shards that sentences come from."""
    readers = {reader.entry.name: reader for reader, _ in places}
    return sum((reader.entry.error for reader in readers.values()), CodecError())


def _on_top(known: CodecError, added: CodecError) -> CodecError:
    """Return a bound of two losses, one on top of the other: their relative lengths added."""
    length = math.sqrt(known.relative_l2**2 * added.squared_norm) + math.sqrt(added.squared_error)
    return CodecError(
        added.n_tokens,
        length**2,
        added.squared_norm,
        known.max_abs + added.max_abs,
        # 1 - cos of the sum of two angles, of which each is about sqrt(2 (1 - cos)).
        (math.sqrt(known.cosine_distance) + math.sqrt(added.cosine_distance)) ** 2,
    )
