"""Shards: the immutable HDF5 file that holds a batch of sentences; how one is filled and sealed.

A draft knows its sentences from the start, so vectors may arrive in any order. Sealed, a shard file is two
parts laid end to end: the *head* (HDF5's structure, keys, offsets, tokens) and the values. FORMAT.md has the
specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore import keys, limits
from featurestore.errors import StoreError, StoreLimitError, VectorError
from featurestore.keys import KEY_BYTES, Sentence
from featurestore.store.codec import Array, Codec, CodecError, Floats, measure_error
from featurestore.store.layout import ShardEntry, checksums
from featurestore.store.structure import lay_out

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
        head, extents = lay_out(datasets, values, self.codec.name, fingerprint)
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
