"""What is exported: sentences with their vectors, and labels where a corpus gives them, in a known order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import Example, Labels
from featurestore.corpora.corpus import Corpus
from featurestore.errors import MissingSentence, MissingSentencesError, UsageError
from featurestore.keys import Sentence
from featurestore.store.alignment import Asked, located
from featurestore.store.maintenance.selection import Selection, select
from featurestore.store.missing import how_to_add
from featurestore.store.store import Store
from featurestore.vectors import vector_shape

_STEP = 1024
"""Sentences of a corpus looked up at a time."""

_MOST_NAMED = 100

DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class ExportedSentence:
    """One sentence on its way out.

    Attributes
    ----------
    tokens : Sentence
    vectors : (n_tokens, dim) or (n_tokens, n_layers, dim) float16 or float32
    labels : str, tuple of str, or None
    key : bytes
    """

    tokens: Sentence
    vectors: NDArray[np.floating]
    labels: Labels
    key: bytes


@dataclass(frozen=True)
class Exported:
    """Sentences of a store: all, a selection, or those of a corpus in its order, repeats included.

    Iterating yields :class:`ExportedSentence`, again for each pass.

    Parameters
    ----------
    store : Store
    corpus : Corpus, optional
        Opened with a label, its labels go with the sentences.
    selection : Selection, optional
        Instead of a corpus.
    dtype : {"float16", "float32"}, optional
        Of the vectors; by default float16 for a store of float16, else float32.

    Raises
    ------
    UsageError
        If both a corpus and a selection are given, or there is no such type.
    MissingSentencesError
        When counted or iterated, if a sentence of the corpus is not stored.
    """

    store: Store
    corpus: Corpus | None = None
    selection: Selection | None = None
    dtype: str | None = None
    _rows: Selection = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"dtype {self.dtype!r}: expected {' or '.join(DTYPES)}")
        if self.corpus is not None and self.selection is not None:
            raise UsageError("give a corpus or a selection, not both: a corpus is exported in its own order")
        if self.corpus is None:
            object.__setattr__(self, "_rows", self.selection or select(self.store))

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Sentences and tokens; of a corpus, counted by reading it once."""
        if self.corpus is None:
            return self._rows.n_sentences, self._rows.n_tokens(self.store)
        n_sentences = n_tokens = 0
        for _ in self._places():
            n_sentences += 1
            n_tokens += len(_[0].tokens)
        if not n_sentences:
            raise UsageError(f"{self.corpus.path} holds no sentence to export")
        return n_sentences, n_tokens

    @property
    def n_sentences(self) -> int:
        """How many are exported, repeats included."""
        return self.counts[0]

    @property
    def n_tokens(self) -> int:
        """Tokens of all of them."""
        return self.counts[1]

    @property
    def value_type(self) -> np.dtype[np.floating]:
        """NumPy type of the vectors."""
        by_codec = "float16" if self.store.manifest.codec == "float16" else "float32"
        return np.dtype(self.dtype or by_codec)

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of a token's vectors: ``(dim,)``, or ``(n_layers, dim)``."""
        return vector_shape(1, self.store.n_layers, self.store.dim)[1:]

    @cached_property
    def label_kind(self) -> str | None:
        """Whether there is a label for each ``"token"``, one for the ``"sentence"``, or none."""
        if self.corpus is None:
            return None
        first = next(iter(self.corpus), None)
        if first is None or first.labels is None:
            return None
        return "sentence" if isinstance(first.labels, str) else "token"

    def __iter__(self) -> Iterator[ExportedSentence]:
        value_type = self.value_type
        if self.corpus is None:
            for shard, rows in enumerate(self._rows.rows):
                reader = self.store.passing(shard)
                for row in rows.tolist():
                    vectors = reader.read(row).astype(value_type, copy=False)
                    yield ExportedSentence(reader.tokens(row), vectors, None, reader.key(row))
            return
        for example, key, shard, row in self._places():
            vectors = self.store.reader_of(shard, row, key).read(row).astype(value_type, copy=False)
            yield ExportedSentence(example.tokens, vectors, example.labels, key)

    def _places(self) -> Iterator[tuple[Example, bytes, int, int]]:
        """Yield the examples of the corpus with their keys and places; the tokens are the stored ones."""
        examples = iter(() if self.corpus is None else self.corpus)
        missing: list[MissingSentence] = []
        n_missing = n_read = 0
        were_open = self.store.open_shards()
        try:
            while step := list(itertools.islice(examples, _STEP)):
                asked = Asked.of([example.tokens for example in step])
                n_read += len(step)
                used = set[int]()
                for example, key, (shard, row) in zip(
                    step, asked.keys, located(self.store, step, asked), strict=True
                ):
                    if shard < 0:
                        n_missing += 1
                        if len(missing) < _MOST_NAMED:
                            missing.append(MissingSentence(tuple(example.tokens), key, example.place))
                        continue
                    used.add(shard)
                    if not n_missing:
                        yield example, key, shard, row
                # A corpus often goes through a store in its order: what it has passed need not stay open.
                self.store.close_shards(but=were_open | used)
        finally:
            self.store.close_shards(but=were_open)
        if n_missing:
            shown = "".join(f"\n  {place}: {' '.join(tokens[:12])}" for tokens, _, place in missing[:3])
            raise MissingSentencesError(
                f"{n_missing:,} of {n_read:,} sentences are not in {self.store.path}; the first:{shown}\n"
                f"{how_to_add(self.store.recipe, self.store.path)}",
                sentences=missing,
                n_missing=n_missing,
                n_wanted=n_read,
                store=self.store.path,
            )
