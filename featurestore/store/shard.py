"""Shards: the immutable HDF5 file that holds a batch of sentences; how one is filled and sealed.

A draft knows its sentences from the start, so vectors may arrive in any order. Sealed, a shard file is two
parts laid end to end: the *head* (HDF5's structure, keys, offsets, tokens, conditions) and the values.
FORMAT.md has the specification.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore import keys, limits
from featurestore.errors import StoreError, StoreLimitError, VectorError
from featurestore.keys import Sentence
from featurestore.store.casting import cast
from featurestore.store.codec import Array, Codec, CodecError, measure_error
from featurestore.store.filesystem import Buffer, FileSystem, file_sha256, temporary_name
from featurestore.store.keyarrays import keys_array
from featurestore.store.layout import ShardEntry, checksums
from featurestore.store.manifest import SHARDS, TMP
from featurestore.store.reader import ShardReader
from featurestore.store.structure import lay_out

logger = logging.getLogger(__name__)

_MEASURED_TOKENS = 1024
"""Tokens whose codec error is measured at least, evenly spread; all tokens of a smaller shard."""

Sample = tuple[NDArray[np.intp], NDArray[np.floating]]
"""Rows of a sentence, and the vectors that an encoder gave for them."""

_NO_ROWS = np.empty(0, np.intp)

_BLOCK_VALUES = 1 << 16
"""Values looked at at a time: so few that they stay in a processor's cache."""


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
        Theirs, where they are known already.

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
    ) -> None:
        self.sentences = list(sentences)
        self.dim, self.n_layers, self.codec = dim, n_layers, codec
        if len(self.sentences) > limits.MAX_SHARD_SENTENCES:
            raise StoreLimitError(
                f"a shard of {len(self.sentences):,} sentences exceeds {limits.MAX_SHARD_SENTENCES:,}: "
                "choose smaller shards"
            )
        self.keys = list(sentence_keys or map(keys.sentence_key, self.sentences))
        self.offsets = np.zeros(len(self.sentences) + 1, "<u8")
        np.cumsum([len(sentence) for sentence in self.sentences], out=self.offsets[1:])
        self._bounds: list[int] = self.offsets.tolist()
        self.n_tokens = self._bounds[-1]
        shape = (self.n_tokens, dim) if n_layers == 1 else (self.n_tokens, n_layers, dim)
        self._staged: Array = np.empty(shape, codec.staging_dtype)
        self._filled = np.zeros(len(self.sentences), bool)
        self._sampled: dict[int, Sample] = {}

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which sentences have their vectors, (n_sentences,) bool."""
        return self._filled

    def put(self, position: int, vectors: NDArray[np.floating], *, fits: bool = False) -> None:
        """Give a sentence its vectors.

        Parameters
        ----------
        position : int
            Of the sentence in the draft.
        vectors : (n_tokens, dim) or (n_tokens, n_layers, dim) float
        fits : bool
            That :func:`all_fit` said so of them: their values are not looked at again.

        Raises
        ------
        StoreError
            If the shape is not the sentence's, a value is not finite, or the codec cannot hold it.
        """
        start, target = self._room(position)
        if vectors.shape != target.shape:
            raise VectorError(
                f"vectors of shape {vectors.shape} for sentence {position} of the shard, expected "
                f"{target.shape}: {_excerpt(self.sentences[position])}"
            )
        if fits:
            cast(target, vectors)
        else:
            stage(target, vectors, self.sentences[position], self.codec)
        self._keep(position, sample(start, vectors, self.n_tokens))

    def put_staged(self, position: int, staged: Array, sampled: Sample) -> None:
        """Give a sentence vectors that :func:`stage` has cast, and what :func:`sample` took of them."""
        start, target = self._room(position)
        target[...] = staged
        rows, vectors = sampled
        # Sampled when the shard was smaller, so perhaps more of them than it takes.
        kept = (start + rows) % _every(self.n_tokens) == 0
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
            raise StoreError(f"no vectors yet for {_excerpt(self.sentences[position])}")
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
    """Return the complete shard file of sentences whose vectors are already as they lie on disk.

    Parameters
    ----------
    sentences : sequence of Sentence
    sentence_keys : sequence of bytes
        Theirs.
    codec : str
    stored : mapping of str to array
        ``values`` and, where the codec has them, ``scales`` and ``norms``.
    fingerprint : str
        Of the recipe.
    error : CodecError
        For the manifest.

    Raises
    ------
    StoreLimitError
        If the file would exceed the bound.
    """
    token_bytes = [keys.token_bytes(sentence) for sentence in sentences]
    conditions = [keys.condition_of(sentence) for sentence in sentences]
    offsets = np.zeros(len(sentences) + 1, "<u8")
    np.cumsum([len(tokens) for tokens in token_bytes], out=offsets[1:])
    token_offsets, tokens = _end_to_end([token for tokens in token_bytes for token in tokens])
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


def part_of(reader: ShardReader, rows: Sequence[int], fingerprint: str) -> SealedShard:
    """Return a shard of some sentences of another, their bytes as they are: nothing is decoded.

    What the codec lost is known of the whole shard only, so the part keeps its figures.

    Raises
    ------
    DamagedStoreError
        If the bytes of one of the sentences are not those that were committed.
    """
    rows_stored = [reader.stored(row) for row in rows]
    stored = {"values": np.concatenate([values for values, _ in rows_stored])}
    if reader.scales is not None and reader.norms is not None:
        stored["scales"] = np.concatenate([scales for _, scales in rows_stored if scales is not None])
        stored["norms"] = reader.norms
    sentences = [reader.tokens(row) for row in rows]
    sentence_keys = list(map(keys.sentence_key, sentences))
    return assemble(sentences, sentence_keys, reader.entry.codec, stored, fingerprint, reader.entry.error)


def place(
    store: Path,
    entry: ShardEntry,
    parts: Sequence[Buffer],
    filesystem: FileSystem,
    *,
    directory: str = SHARDS,
) -> None:
    """Put a shard's file under its name in a directory of a store: complete, synced, never over a sound one.

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
    """Do the same with a shard that lies complete and synced under a temporary name."""
    target = store / directory / entry.name
    # The name is the hash, so a file of that name is this shard, or was damaged since.
    if not filesystem.link_new(temporary, target) and file_sha256(target) != entry.sha256:
        logger.warning("replacing the damaged file %s", target)
        filesystem.replace(temporary, target)


def stage(out: Array, vectors: NDArray[np.floating], sentence: Sentence, codec: Codec) -> None:
    """Cast a sentence's vectors to the codec's staging type, making sure that they arrive finite.

    Raises
    ------
    StoreError
        Naming the token, if a value is not finite or the codec cannot hold it.
    """
    cast(out, vectors)
    if _fits(vectors, codec) or np.isfinite(out).all():
        return
    place = tuple(np.argwhere(~np.isfinite(out))[0])
    where = f"token {place[0]} ({sentence[place[0]]!r}) of {_excerpt(sentence)}"
    value = float(vectors[place])
    if not np.isfinite(value):
        raise VectorError(f"the encoder returned NaN or infinity for {where}; try --precision float32")
    raise VectorError(f"codec {codec.name} cannot hold {value:.6g} in {where}: use --codec float32 or int8")


def all_fit(arrays: Sequence[NDArray[np.floating]], codec: Codec) -> bool:
    """Return whether all values of arrays are surely finite once they are cast, if that can be told at once.

    It can where the arrays are views that fill most of one array, as those of a batch often do. False says
    nothing: :func:`stage` looks at each.
    """
    whole = arrays[0].base if arrays else None
    if not isinstance(whole, np.ndarray) or not whole.flags.c_contiguous:
        return False
    if any(array.base is not whole or array.dtype != whole.dtype for array in arrays):
        return False
    values = whole.reshape(-1)
    if values.size > 2 * sum(array.size for array in arrays):
        return False
    blocks = range(0, values.size, _BLOCK_VALUES)
    return all(_fits(values[start : start + _BLOCK_VALUES], codec) for start in blocks)


def sample(start: int, vectors: NDArray[np.floating], n_tokens: int) -> Sample:
    """Take the rows of a sentence by which its shard's codec is judged.

    Parameters
    ----------
    start : int
        Tokens before it in the shard.
    vectors : (n, dim) or (n, n_layers, dim) float
    n_tokens : int
        Of the shard, as far as it is known: with more of them fewer rows are taken, all of which would have
        been taken with fewer.
    """
    every = _every(n_tokens)
    first = -start % every
    if first >= len(vectors):
        return _NO_ROWS, vectors[:0]
    return np.arange(first, len(vectors), every), vectors[first::every].copy()


def _every(n_tokens: int) -> int:
    """Return a power of two: one in so many tokens is sampled."""
    return 1 << max(0, (n_tokens // _MEASURED_TOKENS).bit_length() - 1)


def _fits(vectors: NDArray[np.floating], codec: Codec) -> bool:
    """Return whether all values are surely finite once they are cast."""
    if vectors.dtype == np.float16:
        # An exponent of ones is infinity or NaN. NumPy compares halves one by one, but integers many at once.
        exponents = vectors.view(np.uint16) & np.uint16(0x7C00)
        return bool(exponents.max() < 0x7C00)
    # Not out of bounds, and so not NaN: faster than asking every value whether it is finite.
    most = np.finfo(codec.staging_dtype.name).max
    return bool(vectors.min() >= -most and vectors.max() <= most)


def _end_to_end(pieces: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return where each of n pieces begins and the last ends, (n + 1,) uint64, and all their bytes."""
    offsets = np.zeros(len(pieces) + 1, "<u8")
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    return offsets, np.frombuffer(b"".join(pieces), np.uint8)


def _excerpt(sentence: Sentence) -> str:
    return repr(" ".join(sentence[:8])) + (f" ... ({len(sentence)} tokens)" if len(sentence) > 8 else "")
