"""Shards: the immutable HDF5 file that holds a batch of sentences; how one is filled and sealed.

A draft knows its sentences from the start, so vectors may arrive in any order. Sealing lets h5py lay out the
file's structure against an in-memory stand-in (never the disk: on a full disk libhdf5 can lose data silently
and crash), with ``/values`` last. A shard file is then two parts laid end to end: the *head* (everything
HDF5 needs, keys, offsets, tokens) and the values. FORMAT.md specifies the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore import keys, limits
from featurestore.errors import SentenceError, StoreError, StoreLimitError, VectorError
from featurestore.keys import KEY_BYTES, Sentence
from featurestore.store.codec import Array, Codec, CodecError, Floats, measure_error
from featurestore.store.layout import ALIGNMENT, FORMAT_VERSION, Extent, ShardEntry

_MEASURE_EVERY = 16
"""Tokens between two whose codec error is measured."""


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

    Raises
    ------
    SentenceError
        For a sentence that has no key.
    StoreLimitError
        For more than a shard may hold.
    """

    def __init__(self, sentences: Sequence[Sentence], *, dim: int, n_layers: int, codec: Codec) -> None:
        self.sentences = list(sentences)
        self.dim, self.n_layers, self.codec = dim, n_layers, codec
        if len(self.sentences) > limits.MAX_SHARD_SENTENCES:
            raise StoreLimitError(
                f"a shard of {len(self.sentences):,} sentences exceeds {limits.MAX_SHARD_SENTENCES:,}: "
                "choose smaller shards"
            )
        self._token_bytes = [keys.token_bytes(sentence) for sentence in self.sentences]
        self.keys = [keys.key_of_bytes(tokens) for tokens in self._token_bytes]
        self.offsets = np.zeros(len(self.sentences) + 1, "<u8")
        np.cumsum([len(tokens) for tokens in self._token_bytes], out=self.offsets[1:])
        self.n_tokens = int(self.offsets[-1])
        shape = (self.n_tokens, dim) if n_layers == 1 else (self.n_tokens, n_layers, dim)
        self._staged: Array = np.empty(shape, codec.staging_dtype)
        self._filled = np.zeros(len(self.sentences), bool)
        self._sampled: dict[int, tuple[NDArray[np.intp], Floats]] = {}

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which sentences have their vectors, (n_sentences,) bool."""
        return self._filled

    def put(self, position: int, vectors: NDArray[np.floating]) -> None:
        """Give a sentence its vectors.

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
        start, stop = int(self.offsets[position]), int(self.offsets[position + 1])
        target = self._staged[start:stop]
        if vectors.shape != target.shape:
            raise VectorError(
                f"vectors of shape {vectors.shape} for sentence {position} of the shard, expected "
                f"{target.shape}: {_excerpt(self.sentences[position])}"
            )
        stage(target, vectors, self.sentences[position], self.codec)
        rows = np.arange(-start % _MEASURE_EVERY, stop - start, _MEASURE_EVERY)
        if len(rows):
            self._sampled[position] = (rows, vectors[rows].astype(np.float32))
        self._filled[position] = True

    def subset(self, positions: Sequence[int]) -> ShardDraft:
        """Return a new draft with some of the sentences, vectors included."""
        smaller = ShardDraft(
            [self.sentences[p] for p in positions], dim=self.dim, n_layers=self.n_layers, codec=self.codec
        )
        for new, old in enumerate(positions):
            if self._filled[old]:
                target = slice(int(smaller.offsets[new]), int(smaller.offsets[new + 1]))
                smaller._staged[target] = self._staged[int(self.offsets[old]) : int(self.offsets[old + 1])]
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
        values = datasets.pop("values")
        lengths = [len(token) for tokens in self._token_bytes for token in tokens]
        token_offsets = np.zeros(self.n_tokens + 1, "<u8")
        np.cumsum(lengths, out=token_offsets[1:])
        datasets.update(
            offsets=self.offsets,
            keys=np.frombuffer(b"".join(self.keys), np.uint8).reshape(-1, KEY_BYTES),
            checksums=checksums(self.offsets, values, datasets.get("scales")),
            token_offsets=token_offsets,
            tokens=np.frombuffer(b"".join(t for tokens in self._token_bytes for t in tokens), np.uint8),
        )
        head, extents = _lay_out(datasets, values, self.codec.name, fingerprint)
        if len(head) + values.nbytes > limits.MAX_SHARD_BYTES:
            raise StoreLimitError(f"a shard of {len(head) + values.nbytes:,} bytes exceeds the bound")
        whole = hashlib.sha256(head)
        head_digest = whole.copy().hexdigest()
        whole.update(values.reshape(-1).view(np.uint8).data)
        entry = ShardEntry(
            sha256=whole.hexdigest(),
            head_sha256=head_digest,
            n_bytes=len(head) + values.nbytes,
            n_sentences=len(self.sentences),
            n_tokens=self.n_tokens,
            codec=self.codec.name,
            error=self._measured(values, datasets),
            extents=extents,
        )
        return SealedShard(entry, head, values)

    def _measured(self, values: Array, datasets: Mapping[str, Array]) -> CodecError:
        if not self._sampled:
            return CodecError()
        starts = self.offsets.astype(np.intp)
        rows = np.concatenate([starts[position] + rows for position, (rows, _) in self._sampled.items()])
        original = np.concatenate([vectors for _, vectors in self._sampled.values()])
        scales = datasets.get("scales")
        decoded = np.empty(original.shape, np.float32)
        self.codec.decode_into(
            decoded, values[rows], None if scales is None else scales[rows], datasets.get("norms")
        )
        return measure_error(original, decoded)


def stage(out: Array, vectors: NDArray[np.floating], sentence: Sentence, codec: Codec) -> None:
    """Cast a sentence's vectors to the codec's staging type, making sure that they arrive finite.

    Raises
    ------
    StoreError
        Naming the token, if a value is not finite or the codec cannot hold it.
    """
    with np.errstate(over="ignore"):
        out[...] = vectors
    if np.isfinite(out).all():
        return
    place = tuple(np.argwhere(~np.isfinite(out))[0])
    where = f"token {place[0]} ({sentence[place[0]]!r}) of {_excerpt(sentence)}"
    value = float(vectors[place])
    if not np.isfinite(value):
        raise VectorError(f"the encoder returned NaN or infinity for {where}; try --precision float32")
    raise VectorError(f"codec {codec.name} cannot hold {value:.6g} in {where}: use --codec float32 or int8")


def _excerpt(sentence: Sentence) -> str:
    return repr(" ".join(sentence[:8])) + (f" ... ({len(sentence)} tokens)" if len(sentence) > 8 else "")


def checksums(offsets: NDArray[np.uint64], values: Array, scales: Array | None) -> NDArray[np.uint64]:
    """Return the XXH3-64 of each sentence's stored bytes, rows of values then scales; (n,) uint64."""
    result = np.empty(len(offsets) - 1, "<u8")
    bounds = offsets.tolist()
    for i in range(len(bounds) - 1):
        result[i] = checksum(
            values[bounds[i] : bounds[i + 1]], None if scales is None else scales[bounds[i] : bounds[i + 1]]
        )
    return result


def checksum(values: Array, scales: Array | None) -> int:
    """Return the XXH3-64 of one sentence's stored bytes."""
    if scales is None:
        return xxhash.xxh3_64_intdigest(values.data)
    digest = xxhash.xxh3_64(values.data)
    digest.update(np.ascontiguousarray(scales).data)
    return digest.intdigest()


class _StructureSink:
    """A file-like object that keeps what h5py writes and pretends the rest of the file exists."""

    def __init__(self) -> None:
        self.position = self.end = 0
        self.pieces: dict[int, bytes] = {}

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = (0, self.position, self.end)[whence] + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces[self.position] = piece
        self.position += len(piece)
        self.end = max(self.end, self.position)
        return len(piece)

    def truncate(self, size: int | None = None) -> int:
        self.end = self.position if size is None else size
        return self.end

    def flush(self) -> None:
        pass

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        for offset, piece in self.pieces.items():
            start, stop = max(offset, self.position), min(offset + len(piece), self.position + len(view))
            if start < stop:
                view[start - self.position : stop - self.position] = piece[start - offset : stop - offset]
        self.position += len(view)
        return len(view)


def _lay_out(
    datasets: Mapping[str, Array], values: Array, codec: str, fingerprint: str
) -> tuple[bytes, dict[str, Extent]]:
    """Return the bytes before ``/values`` and where every dataset lies."""
    sink = _StructureSink()
    extents: dict[str, Extent] = {}
    # HDF5 aligns what is at least as large as the threshold, and the values of a tiny shard are aligned too.
    threshold = max(1, min(ALIGNMENT, values.nbytes))
    with h5py.File(
        sink, "w", libver=("earliest", "v108"), alignment_threshold=threshold, alignment_interval=ALIGNMENT
    ) as file:
        # Fixed-length strings: variable-length ones need a heap, which is no place for a stranger's bytes.
        file.attrs["format"] = np.bytes_(b"featurestore shard")
        file.attrs["format_version"] = np.uint32(FORMAT_VERSION)
        file.attrs["fingerprint"] = np.bytes_(fingerprint.encode())
        file.attrs["codec"] = np.bytes_(codec.encode())
        for name, array in sorted(datasets.items()):
            identifier = _create_contiguous(file, name, array)
            identifier.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(array))
            extents[name] = Extent(int(identifier.get_offset()), array.dtype.str, array.shape)
        identifier = _create_contiguous(file, "values", values)
        extents["values"] = Extent(int(identifier.get_offset()), values.dtype.str, values.shape)
    start = extents["values"].offset
    head = bytearray(start)
    for offset, piece in sink.pieces.items():
        if offset + len(piece) > start:
            raise StoreError(
                f"HDF5 put structure behind the values (offset {offset}): cannot lay out the shard"
            )
        head[offset : offset + len(piece)] = piece
    if start % ALIGNMENT or sink.end != start + values.nbytes:
        raise StoreError(f"HDF5 laid the shard out unexpectedly: values at {start}, file end {sink.end}")
    return bytes(head), extents


def _create_contiguous(file: h5py.File, name: str, array: Array) -> Any:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    space = h5py.h5s.create_simple(array.shape)
    return h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(array.dtype), space, plan)


def require_sentence(tokens: Sequence[str]) -> Sentence:
    """Return the tokens as a sentence, checked.

    Raises
    ------
    SentenceError
        See :func:`featurestore.keys.token_bytes`.
    """
    keys.token_bytes(tokens)
    if not isinstance(tokens, (tuple, list)):
        raise SentenceError(f"a sentence is a list or tuple of tokens, not a {type(tokens).__name__}")
    return tuple(tokens)
