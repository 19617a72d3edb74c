"""Shards made of stored sentences of other shards, with their bytes as they are: nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore import keys
from featurestore.store.format.codec import CodecError
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.shard import SealedShard, assemble


def part_of(reader: ShardReader, rows: Sequence[int], fingerprint: str) -> SealedShard:
    """Return a shard of some sentences of another.

    What the codec lost is known of the whole shard only, so the part keeps its figures.

    Raises
    ------
    DamagedStoreError
        If the bytes of one of the sentences are not those that were committed.
    """
    return _assembled([(reader, row) for row in rows], fingerprint, reader.entry.error)


def joined(readers: Sequence[ShardReader], fingerprint: str) -> SealedShard:
    """Return one shard of the sentences of several.

    Parameters
    ----------
    readers : sequence of ShardReader
        Of one codec; of int8, with equal norms.
    fingerprint : str
        Of the recipe.

    Raises
    ------
    DamagedStoreError
        If the bytes of one of the sentences are not those that were committed.
    """
    places = [(reader, row) for reader in readers for row in range(len(reader))]
    return _assembled(places, fingerprint, sum((reader.entry.error for reader in readers), CodecError()))


def _assembled(places: Sequence[tuple[ShardReader, int]], fingerprint: str, error: CodecError) -> SealedShard:
    first = places[0][0]
    rows = [reader.stored(row) for reader, row in places]
    stored = {"values": np.concatenate([values for values, _ in rows])}
    if first.scales is not None and first.norms is not None:
        stored["scales"] = np.concatenate([scales for _, scales in rows if scales is not None])
        stored["norms"] = first.norms
    sentences = [reader.tokens(row) for reader, row in places]
    sentence_keys = list(map(keys.sentence_key, sentences))
    return assemble(sentences, sentence_keys, first.entry.codec, stored, fingerprint, error)
