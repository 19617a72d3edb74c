"""What corpora and a store have that the other has not: missing sentences, and stored ones nobody uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.inspection.likeness import Like, stored_likes
from featurestore.keyarrays import keys_array
from featurestore.keys import Sentence, sentence_key
from featurestore.store.format.directory import TMP
from featurestore.store.index.keyset import KeySet
from featurestore.store.maintenance.selection import Selection
from featurestore.store.store import Store

_STEP = 4096
"""Sentences looked up at a time."""


@dataclass(frozen=True)
class Missing:
    """A sentence of a corpus that is not stored: its tokens, key and place, and stored ones like it."""

    tokens: Sentence
    key: str
    place: str
    likes: Sequence[Like] = ()


@dataclass
class CorpusDifference:
    """What a corpus holds, and what of it the store lacks.

    Attributes
    ----------
    path : str
    n_sentences, n_tokens : int
        Read, repeated sentences included.
    n_distinct : int
        Distinct sentences of this corpus that no earlier corpus had.
    n_missing, n_missing_tokens : int
        Those of ``n_distinct`` that are not stored, and their tokens.
    missing : list of Missing
        The first few of them.
    """

    path: str
    n_sentences: int = 0
    n_tokens: int = 0
    n_distinct: int = 0
    n_missing: int = 0
    n_missing_tokens: int = 0
    missing: list[Missing] = field(default_factory=list)


@dataclass
class StoreDifference:
    """What :func:`diff_corpora` found.

    Attributes
    ----------
    corpora : list of CorpusDifference
    n_stored : int
    unused : Selection
        Stored sentences that no corpus has.
    n_unused_tokens, n_unused_bytes : int
        Tokens of the unused sentences, and bytes of their vectors.
    """

    corpora: list[CorpusDifference]
    n_stored: int
    unused: Selection
    n_unused_tokens: int
    n_unused_bytes: int

    @property
    def n_missing(self) -> int:
        """Distinct sentences of the corpora that are not stored."""
        return sum(corpus.n_missing for corpus in self.corpora)

    @property
    def n_missing_tokens(self) -> int:
        """Tokens of these sentences."""
        return sum(corpus.n_missing_tokens for corpus in self.corpora)


def diff_corpora(
    store: Store,
    corpora: Iterable[Corpus],
    *,
    most: int = 10,
    progress: Callable[[int], object] | None = None,
) -> StoreDifference:
    """Compare what corpora hold with what is stored; no vectors are read.

    Takes a byte of memory for each stored sentence, and two for each distinct sentence of the corpora once
    these are many, with 16 bytes on the disk.

    Parameters
    ----------
    store : Store
    corpora : iterable of Corpus
    most : int
        Missing sentences listed of each corpus, with stored ones that differ from them by a space, a quote,
        case or Unicode form only.
    progress : callable, optional
        Called with the number of sentences read since the last call.

    Raises
    ------
    CorpusError
        If a corpus cannot be read.
    DamagedStoreError
        If a shard's head is not what was committed.
    """
    used = [np.zeros(entry.n_sentences, bool) for entry in store.manifest.shards]
    seen = KeySet(store.location / TMP)
    found = []
    for corpus in corpora:
        difference = CorpusDifference(str(corpus.path))
        examples = iter(corpus)
        while chunk := list(islice(examples, _STEP)):
            _count(chunk, store, seen, used, difference, most)
            if progress is not None:
                progress(len(chunk))
        found.append(difference)
    likes = stored_likes(store, [one.tokens for difference in found for one in difference.missing])
    for difference in found:
        difference.missing = [
            Missing(one.tokens, one.key, one.place, likes.get(one.tokens, ())) for one in difference.missing
        ]
    unused = Selection(tuple(np.flatnonzero(~rows) for rows in used))
    per_token = [entry.extents["values"].n_bytes / max(1, entry.n_tokens) for entry in store.manifest.shards]
    n_tokens = [_n_tokens(store, shard, rows) for shard, rows in enumerate(unused.rows)]
    return StoreDifference(
        corpora=found,
        n_stored=len(store),
        unused=unused,
        n_unused_tokens=sum(n_tokens),
        n_unused_bytes=int(sum(n * size for n, size in zip(n_tokens, per_token, strict=True))),
    )


def _count(
    chunk: list[Example], store: Store, seen: KeySet, used: list[NDArray[np.bool_]],
    difference: CorpusDifference, most: int,
) -> None:  # fmt: skip
    keys = [sentence_key(example.tokens) for example in chunk]
    array = keys_array(keys)
    new, located = seen.add(array), store.locate(array)
    for shard in np.unique(located.shard[located.found]).tolist():
        used[shard][located.row[located.shard == shard]] = True
    difference.n_sentences += len(chunk)
    difference.n_tokens += sum(len(example.tokens) for example in chunk)
    difference.n_distinct += int(new.sum())
    for at in np.flatnonzero(new & ~located.found).tolist():
        example = chunk[at]
        difference.n_missing += 1
        difference.n_missing_tokens += len(example.tokens)
        if len(difference.missing) < most:
            difference.missing.append(Missing(tuple(example.tokens), keys[at].hex(), example.place))


def _n_tokens(store: Store, shard: int, rows: NDArray[np.int64]) -> int:
    if len(rows) == 0:
        return 0
    if len(rows) == store.manifest.shards[shard].n_sentences:
        return store.manifest.shards[shard].n_tokens
    offsets = store.passing(shard).offsets.astype(np.int64)
    return int((offsets[rows + 1] - offsets[rows]).sum())
