"""Shards: immutable HDF5 files of sentences; how one is filled, sealed and put into a store.

A draft knows its sentences from the start, so their vectors may arrive in any order. A sealed shard is two
parts end to end: the *head* (HDF5 structure, keys, offsets, tokens, conditions) and the values. FORMAT.md is
the specification.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore import keys, limits
from featurestore.disk.filesystem import FileSystem
from featurestore.disk.hashes import file_sha256
from featurestore.disk.storage import BytesLike
from featurestore.disk.temporary import temporary_name
from featurestore.errors import StoreError, StoreLimitError, VectorError
from featurestore.keyarrays import keys_array
from featurestore.keys import Sentence
from featurestore.store.format.casting import cast
from featurestore.store.format.codec import Array, Codec, CodecError, measure_error
from featurestore.store.format.directory import SHARDS, TMP
from featurestore.store.format.layout import ShardEntry, checksums
from featurestore.store.format.staging import (
    Sample,
    StagingMemory,
    excerpt,
    sample,
    sampling_stride,
    stage,
    stage_rows,
)
from featurestore.store.format.structure import lay_out
from featurestore.vectors import vector_shape

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SealedShard:
    """A complete shard in memory: the entry for the manifest and the file's two parts."""

    entry: ShardEntry
    head: bytes
    values: Array


class ShardDraft:
    """A shard being filled: its sentences are fixed, their vectors arrive in any order.

    Parameters
    ----------
    sentences : sequence of Sentence
        Distinct sentences in the order in which they will be stored.
    dim, n_layers : int
        Shape of the vectors: ``(n_tokens, dim)`` if ``n_layers`` is 1, else ``(n_tokens, n_layers, dim)``.
    codec : Codec
        How they will be stored.
    sentence_keys : sequence of bytes, optional
        Their keys, if known already.
    memory : StagingMemory, optional
        Where the vectors are kept until :meth:`release`.

    Raises
    ------
    SentenceError
        For a sentence that has no key.
    StoreLimitError
        For more than a shard may hold.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        *,
        dim: int,
        n_layers: int,
        codec: Codec,
        sentence_keys: Sequence[bytes] | None = None,
        memory: StagingMemory | None = None,
    ) -> None:
        self.sentences = list(sentences)
        self.dim, self.n_layers, self.codec = dim, n_layers, codec
        if len(self.sentences) > limits.MAX_SHARD_SENTENCES:
            raise StoreLimitError(
                f"a shard of {len(self.sentences):,} sentences exceeds {limits.MAX_SHARD_SENTENCES:,}: "
                "choose smaller shards"
            )
        self.keys = list(sentence_keys or map(keys.sentence_key, self.sentences))
        self.offsets = _offsets(self.sentences)
        self._bounds: list[int] = self.offsets.tolist()
        self.n_tokens = self._bounds[-1]
        self._shape = vector_shape(self.n_tokens, n_layers, dim)
        self._memory = memory or StagingMemory(0)
        self._taken: tuple[NDArray[np.uint8], Array] | None = None
        self._filled = np.zeros(len(self.sentences), bool)
        self._sampled: dict[int, Sample] = {}

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which sentences have their vectors, (n_sentences,) bool."""
        return self._filled

    def tokens_in(self, positions: Sequence[int]) -> int:
        """Return how many tokens some of the sentences have together."""
        return sum(len(self.sentences[position]) for position in positions)

    @property
    def _staged(self) -> Array:
        """The vectors so far, in the shape and type that the codec takes."""
        if self._taken is None:
            # Not before the first vectors arrive: the previous draft may have released its memory by then.
            n_bytes = math.prod(self._shape) * self.codec.staging_dtype.itemsize
            memory = self._memory.take(n_bytes)
            self._taken = memory, memory[:n_bytes].view(self.codec.staging_dtype).reshape(self._shape)
        return self._taken[1]

    def put(self, position: int, vectors: NDArray[np.floating]) -> None:
        """Store the vectors of a sentence.

        Parameters
        ----------
        position : int
            Of the sentence in the draft.
        vectors : (n_tokens, dim) or (n_tokens, n_layers, dim) float

        Raises
        ------
        StoreError
            If the shape is not the sentence's, a value is not finite, or the codec cannot hold it.
        """
        start, target = self._room(position)
        if vectors.shape != target.shape:
            raise VectorError(
                f"vectors of shape {vectors.shape} for sentence {position} of the shard, expected "
                f"{target.shape}: {excerpt(self.sentences[position])}"
            )
        stage(target, vectors, self.sentences[position], self.codec)
        self._keep(position, sample(start, vectors, self.n_tokens))

    def put_all(self, positions: Sequence[int], vectors: NDArray[np.floating]) -> bool:
        """Store the vectors of several sentences at once, without a loop over them.

        Parameters
        ----------
        positions : sequence of int
            Of the sentences in the draft, all different.
        vectors : (n_tokens, dim) or (n_tokens, n_layers, dim) float
            Of all of them, end to end.

        Returns
        -------
        bool
            False, and nothing is stored, if :meth:`put` would refuse the vectors of one of them.
        """
        chosen = np.asarray(positions, np.intp)
        starts = self.offsets[chosen].astype(np.intp)
        lengths = self.offsets[chosen + 1].astype(np.intp) - starts
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
        if vectors.shape != (len(rows), *self._shape[1:]):
            return False
        if not stage_rows(self._staged, rows, vectors, self.codec):
            return False
        # Sentences with a sampled token; most have none.
        for i in np.flatnonzero(-starts % sampling_stride(self.n_tokens) < lengths).tolist():
            its_own = vectors[ends[i] - lengths[i] : ends[i]]
            self._sampled[positions[i]] = sample(int(starts[i]), its_own, self.n_tokens)
        self._filled[chosen] = True
        return True

    def put_staged(self, position: int, staged: Array, sampled: Sample) -> None:
        """Store vectors of a sentence that :func:`stage` has cast, and what :func:`sample` took of them."""
        start, target = self._room(position)
        target[...] = staged
        rows, vectors = sampled
        # Sampled when the shard was smaller, so perhaps with a smaller stride.
        kept = (start + rows) % sampling_stride(self.n_tokens) == 0
        self._keep(position, (rows[kept], vectors[kept]))

    def _room(self, position: int) -> tuple[int, Array]:
        start = self._bounds[position]
        return start, self._staged[start : self._bounds[position + 1]]

    def _keep(self, position: int, sampled: Sample) -> None:
        if len(sampled[0]):
            self._sampled[position] = sampled
        self._filled[position] = True

    def subset(self, positions: Sequence[int]) -> ShardDraft:
        """Return a new draft with some of the sentences, vectors included."""
        smaller = ShardDraft(
            [self.sentences[p] for p in positions],
            dim=self.dim,
            n_layers=self.n_layers,
            codec=self.codec,
            sentence_keys=[self.keys[p] for p in positions],
        )
        for new, old in enumerate(positions):
            if self._filled[old]:
                smaller._room(new)[1][...] = self._room(old)[1]
                smaller._filled[new] = True
                if old in self._sampled:
                    smaller._sampled[new] = self._sampled[old]
        return smaller

    def release(self) -> None:
        """Empty the draft and let another one use its memory."""
        if self._taken is not None:
            self._memory.give_back(self._taken[0])
            self._taken = None
        self._filled[:] = False

    def seal(self, fingerprint: str) -> SealedShard:
        """Return the complete shard file in memory.

        Raises
        ------
        StoreError
            If there are no sentences, or some lack their vectors.
        """
        if not self.sentences:
            raise StoreError("a shard needs at least one sentence")
        if not self._filled.all():
            position = int(np.argmin(self._filled))
            raise StoreError(f"no vectors yet for {excerpt(self.sentences[position])}")
        datasets = self.codec.seal(self._staged)
        error = self._measured(datasets["values"], datasets)
        return assemble(self.sentences, self.keys, self.codec.name, datasets, fingerprint, error)

    def _measured(self, values: Array, datasets: Mapping[str, Array]) -> CodecError:
        if not self._sampled:
            return CodecError()
        starts = self.offsets.astype(np.intp)
        rows = np.concatenate([starts[position] + rows for position, (rows, _) in self._sampled.items()])
        given = np.concatenate([vectors for _, vectors in self._sampled.values()])
        original, decoded = np.empty(given.shape, np.float32), np.empty(given.shape, np.float32)
        cast(original, given)
        scales = datasets.get("scales")
        self.codec.decode_into(
            decoded, values[rows], None if scales is None else scales[rows], datasets.get("norms")
        )
        return measure_error(original, decoded)


def assemble(
    sentences: Sequence[Sentence],
    sentence_keys: Sequence[bytes],
    codec: str,
    stored: Mapping[str, Array],
    fingerprint: str,
    error: CodecError,
) -> SealedShard:
    """Return the complete shard file of sentences whose vectors are encoded by the codec already.

    Parameters
    ----------
    sentences : sequence of Sentence
        Valid sentences.
    sentence_keys : sequence of bytes
        Their keys.
    codec : str
    stored : mapping of str to array
        ``values``, and ``scales`` and ``norms`` if the codec has them.
    fingerprint : str
        Of the recipe.
    error : CodecError
        For the manifest.

    Raises
    ------
    StoreLimitError
        If the file would exceed the bound.
    """
    conditions = [keys.condition_of(sentence) for sentence in sentences]
    offsets = _offsets(sentences)
    token_offsets, tokens = _end_to_end(keys.bytes_of_sentences(sentences))
    datasets = dict(stored)
    values = datasets.pop("values")
    datasets.update(
        offsets=offsets,
        keys=keys_array(sentence_keys),
        checksums=checksums(offsets, values, datasets.get("scales")),
        token_offsets=token_offsets,
        tokens=tokens,
    )
    if any(conditions):
        datasets["condition_offsets"], datasets["conditions"] = _end_to_end(conditions)
    head, extents = lay_out(datasets, values, codec, fingerprint)
    n_bytes = len(head) + values.nbytes
    if n_bytes > limits.MAX_SHARD_BYTES:
        raise StoreLimitError(f"a shard of {n_bytes:,} bytes exceeds the bound")
    whole = hashlib.sha256(head)
    head_digest = whole.copy().hexdigest()
    whole.update(values.reshape(-1).view(np.uint8).data)
    entry = ShardEntry(
        sha256=whole.hexdigest(),
        head_sha256=head_digest,
        n_bytes=n_bytes,
        n_sentences=len(sentences),
        n_tokens=int(offsets[-1]),
        codec=codec,
        error=error,
        extents=extents,
    )
    return SealedShard(entry, head, values)


def place(
    store: Path,
    entry: ShardEntry,
    parts: Sequence[BytesLike],
    filesystem: FileSystem,
    *,
    directory: str = SHARDS,
) -> None:
    """Put a shard's file into a directory of a store: complete, synced, and never over a sound one.

    Hold :func:`~featurestore.store.locks.committing` from before this until a manifest names the shard.

    Raises
    ------
    StoreWriteError
        If the disk is full or failing.
    """
    temporary = store / TMP / temporary_name(".h5")
    with filesystem.temporary_file(temporary, parts):
        place_file(store, entry, temporary, filesystem, directory=directory)


def place_file(
    store: Path, entry: ShardEntry, temporary: Path, filesystem: FileSystem, *, directory: str = SHARDS
) -> None:
    """Link a shard file, complete and synced under a temporary name, as :func:`place` does."""
    target = store / directory / entry.name
    # The name is the hash, so a file of that name is this shard, or was damaged since.
    if not filesystem.link_new(temporary, target) and file_sha256(target) != entry.sha256:
        logger.warning("replacing the damaged file %s", target)
        filesystem.replace(temporary, target)


def _end_to_end(pieces: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return the offsets of n pieces, (n + 1,) uint64, and their bytes end to end."""
    return _offsets(pieces), np.frombuffer(b"".join(pieces), np.uint8)


def _offsets(pieces: Sequence[Sized]) -> NDArray[np.uint64]:
    """Return the offsets of n pieces laid end to end, (n + 1,) uint64."""
    offsets = np.zeros(len(pieces) + 1, "<u8")
    np.cumsum(np.fromiter(map(len, pieces), np.uint64, len(pieces)), out=offsets[1:])
    return offsets
