"""A new store filled with vectors at hand, committed all at once: until then it is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.keyarrays import keys_array
from featurestore.keys import Sentence, sentence_key
from featurestore.store.format.codec import Array, CodecError, get_codec
from featurestore.store.format.layout import ShardEntry
from featurestore.store.format.shard import ShardDraft, place
from featurestore.store.format.staging import Sample, StagingMemory, sample, stage
from featurestore.store.locks import committing
from featurestore.store.maintenance.derived import commit_all
from featurestore.store.store import Store


@dataclass
class Filled:
    """What was stored.

    Attributes
    ----------
    n_sentences, n_tokens, n_bytes : int
    error : CodecError
        What the codec lost of the vectors as they were given.
    """

    n_sentences: int = 0
    n_tokens: int = 0
    n_bytes: int = 0
    error: CodecError = field(default_factory=CodecError)


def fill_at_once(
    target: Store,
    sentences: Iterable[tuple[Sentence, NDArray[np.floating]]],
    *,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> Filled:
    """Store sentences with their vectors in an empty store, in full shards, and commit them together.

    In memory are, at most, a shard's worth of vectors twice.

    Parameters
    ----------
    target : Store
        Empty.
    sentences : iterable of (Sentence, (n_tokens, dim) or (n_tokens, n_layers, dim) float)
        All different.
    progress : callable, optional
        Called with the tokens of each sentence.

    Raises
    ------
    VectorError
        If the codec cannot hold a vector. The store stays empty.
    StoreWriteError
        If the disk is full or failing. The store stays empty.
    UsageError
        If another process has filled the store meanwhile.
    """
    codec = get_codec(target.manifest.codec)
    full = max(1, target.manifest.shard_bytes // codec.bytes_per_token(target.n_layers, target.dim))
    memory = StagingMemory(full * target.n_layers * target.dim * codec.staging_dtype.itemsize)
    done, entries, keys = Filled(), list[ShardEntry](), list[NDArray[np.uint8]]()
    pending: dict[bytes, tuple[Sentence, Array, Sample]] = {}
    n_pending = 0

    def seal() -> None:
        draft = ShardDraft(
            [sentence for sentence, _, _ in pending.values()],
            dim=target.dim,
            n_layers=target.n_layers,
            codec=codec,
            sentence_keys=list(pending),
            memory=memory,
        )
        for position, (_, staged, sampled) in enumerate(pending.values()):
            draft.put_staged(position, staged, sampled)
        sealed = draft.seal(target.fingerprint)
        place(target.location, sealed.entry, [sealed.head, sealed.values], filesystem)
        draft.release()
        entries.append(sealed.entry)
        keys.append(keys_array(list(pending)))
        done.n_sentences += sealed.entry.n_sentences
        done.n_tokens += sealed.entry.n_tokens
        done.n_bytes += sealed.entry.n_bytes
        done.error += sealed.entry.error
        pending.clear()

    with committing(target.location):
        for sentence, vectors in sentences:
            staged = np.empty(target.vector_shape(len(sentence)), codec.staging_dtype)
            stage(staged, vectors, sentence, codec)
            start, n_pending = n_pending, n_pending + len(sentence)
            pending[sentence_key(sentence)] = sentence, staged, sample(start, vectors, n_pending)
            if n_pending >= full:
                seal()
                n_pending = 0
            if progress is not None:
                progress(len(sentence))
        if pending:
            seal()
        commit_all(target, entries, keys)
    return done
