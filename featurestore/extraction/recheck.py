"""Encoding stored sentences again: whether the encoder, here and now, gives the vectors that are stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import CheckedEncoder, checked_encoder
from featurestore.extraction.batching import batches_by_length
from featurestore.keys import Sentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.canaries import read_canaries
from featurestore.store.store import Store
from featurestore.store.verification import draw_sentences
from featurestore.vectors import exceeds, relative_l2, tolerance_of

CODEC_TOLERANCE = {"float32": 0.0, "float16": 1e-3, "int8": 5e-2}
"""Relative L2 that a codec may lose of one sentence."""


@dataclass(frozen=True)
class Difference:
    """A sentence whose vectors differ when it is encoded again.

    Attributes
    ----------
    key : str
        Hexadecimal.
    tokens : tuple of str
    relative_l2 : float
        Norm of the difference over norm of what the encoder gives now.
    tolerance : float
        What was allowed.
    """

    key: str
    tokens: Sentence
    relative_l2: float
    tolerance: float


@dataclass
class Recheck:
    """What :func:`encode_again` found.

    Attributes
    ----------
    n_sentences, n_tokens : int
        Encoded again.
    mean, largest : float
        Relative L2 of the sentences.
    n_canaries : int
        Encoded again too, by themselves; not counted above.
    differing : list of Difference
        Those beyond the tolerance, the worst first.
    """

    n_sentences: int = 0
    n_tokens: int = 0
    mean: float = 0.0
    largest: float = 0.0
    n_canaries: int = 0
    differing: list[Difference] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings for ``--json``."""
        return asdict(self)


def encode_again(
    store: Store, encoder: Encoder, n: int, *, seed: int = 0, tolerance: float | None = None
) -> Recheck:
    """Encode a store's canaries and sentences drawn at random, and compare with what is stored.

    Parameters
    ----------
    store : Store
    encoder : Encoder
        Of the store's recipe.
    n : int
        Sentences.
    seed : int
        Of the draw.
    tolerance : float, optional
        Relative L2 by which a sentence may differ; by default what the recipe's precision
        (:func:`~featurestore.vectors.tolerance_of`) and the shard's codec (:data:`CODEC_TOLERANCE`)
        explain.

    Raises
    ------
    RecipeMismatchError
        If the encoder has another recipe, naming the fields.
    EncoderError
        If it cannot encode them.
    DamagedStoreError
        If a stored sentence is not what was committed.
    """
    encoder = checked_encoder(encoder)
    store.recipe.require_equal(
        encoder.recipe,
        where=f"store {store.path}",
        remedy="Compare with the encoder that filled the store (leave --encoder out).",
    )
    places = [(shard, row) for shard, rows in draw_sentences(store, n, seed).items() for row in rows]
    sentences = [store.reader(shard).tokens(row) for shard, row in places]
    found: list[Difference] = []
    for batch in batches_by_length([len(tokens) for tokens in sentences], encoder.token_budget):
        for i, vectors in zip(batch, encoder.encode([sentences[i] for i in batch]), strict=True):
            reader = store.reader(places[i][0])
            allowed = _explained(store.recipe, reader.entry.codec) if tolerance is None else tolerance
            error = relative_l2(vectors, reader.read(places[i][1]))
            found.append(Difference(sentence_key(sentences[i]).hex(), sentences[i], error, allowed))
    errors = [difference.relative_l2 for difference in found]
    canaries = _canaries_again(store, encoder, tolerance)
    return Recheck(
        n_sentences=len(found),
        n_tokens=sum(map(len, sentences)),
        mean=float(np.mean(errors)) if errors else 0.0,
        largest=max(errors, default=0.0),
        n_canaries=len(canaries),
        differing=sorted(
            (each for each in found + canaries if exceeds(each.relative_l2, each.tolerance)),
            key=lambda each: -each.relative_l2,
        ),
    )


def _canaries_again(store: Store, encoder: CheckedEncoder, tolerance: float | None) -> list[Difference]:
    stored = read_canaries(store)
    if stored is None:
        return []
    return [
        Difference(
            sentence_key(tokens).hex(),
            tokens,
            relative_l2(encoder.encode([tokens])[0], vectors),
            stored.tolerance if tolerance is None else tolerance,
        )
        for tokens, vectors in zip(stored.sentences, stored.vectors, strict=True)
    ]


def _explained(recipe: Recipe, codec: str) -> float:
    return tolerance_of(recipe) + CODEC_TOLERANCE[codec]
