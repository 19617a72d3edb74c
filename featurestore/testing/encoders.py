"""``check_encoder``: does an encoder of your own keep every rule that extraction relies on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.base import Encoder
from featurestore.encoders.checked import CheckedEncoder, checked_encoder
from featurestore.encoders.vectors import BatchVectors, PendingVectors
from featurestore.errors import EncoderOutOfMemory, EncoderRuleError, UsageError
from featurestore.keys import Sentence, require_sentence
from featurestore.store.canaries import SENTENCES
from featurestore.vectors import relative_l2, require_arrays, require_same, tolerance_of, vector_shape

Array = NDArray[np.floating]

RULES = {
    "encodes every sentence": "encode() raises for no sentence of at least one token",
    "one array per sentence": "encode() returns as many arrays as it was given sentences",
    "arrays": "encode() returns a list of NumPy arrays of floats",
    "shapes": "an array is (n_tokens, dim), or (n_tokens, n_layers, dim) where n_layers is not 1",
    "finite": "no NaN, no infinity",
    "repeatable": "the same sentence twice in a row has the same vectors: no dropout, nothing random",
    "no state": "a sentence has the same vectors whatever was encoded before it",
    "neighbours": "a sentence has the same vectors whatever is in the batch with it",
    "padding": "a sentence has the same vectors beside longer ones",
    "order": "the arrays come in the order of the sentences",
    "sentences left alone": "encode() does not change the list it is given",
    "recipe": "the recipe stays the same: it is what a store is found by",
    "BatchVectors left alone": "values handed over as BatchVectors are not written to again",
    "submit": "submit(), if there is one, hands over what encode() returns, with two batches under way",
    "depends on the sentence alone": "what extraction checks of all these when it makes or opens a store",
}
"""The rules by name: what :attr:`featurestore.errors.EncoderRuleError.rule` may be."""

_MADE: tuple[Sentence, ...] = (
    ("One",),
    ("two", "words"),
    ("words", "two"),
    ("Canaries", "do", "sing"),
    ("the", "the", "the", "the"),
    ("!", "…", "-", "'s", "1,000.5"),
    tuple(f"w{number}" for number in range(60)),
)
"""Beside the canaries: other lengths, some of them twice, and repeated words."""


@dataclass(frozen=True)
class EncoderCheck:
    """What :func:`check_encoder` did.

    Attributes
    ----------
    n_sentences : int
        Different ones.
    n_batches : int
        Calls of ``encode`` and ``submit``.
    largest : float
        Largest relative L2 between vectors of one sentence.
    tolerance : float
        What was allowed.
    has_submit : bool
    """

    n_sentences: int
    n_batches: int
    largest: float
    tolerance: float
    has_submit: bool


def check_encoder(
    encoder: Encoder, sentences: Iterable[Sequence[str]] | None = None, *, tolerance: float | None = None
) -> EncoderCheck:
    """Raise unless an encoder keeps the rules that extraction relies on (:data:`RULES`).

    It encodes some two hundred tokens a few times: alone, again, among others, in another order. What passes
    here ``extract`` accepts, and what ``extract`` refuses fails here, with the same words.

    Parameters
    ----------
    encoder : Encoder
        See :class:`featurestore.Encoder`. An empty batch is never asked for.
    sentences : iterable of token sequences, optional
        Sentences of your own, at least two of different lengths; by default the canaries that every store
        keeps and a few more, with rare characters and 1 to 60 tokens.
    tolerance : float, optional
        Relative L2 that rounding may make of the vectors of a sentence; by default what its recipe's
        ``precision`` explains: 1e-4, for float16 1e-2, for bfloat16 5e-2.

    Returns
    -------
    EncoderCheck

    Raises
    ------
    UsageError
        If it lacks an attribute or one is of another type, or fewer than two sentences are given.
    EncoderRuleError
        For the first rule that is broken; its attribute ``rule`` names it.

    Examples
    --------
    In a test of your own::

        def test_my_encoder():
            check_encoder(MyEncoder())
    """
    chosen = (*SENTENCES, *_MADE) if sentences is None else tuple(map(require_sentence, sentences))
    chosen = tuple(dict.fromkeys(chosen))
    if len(set(map(len, chosen))) < 2:
        raise UsageError(
            f"{len(chosen)} different sentences of one length do not show whether padding counts: give at "
            "least two of different lengths"
        )
    return _Check(checked_encoder(encoder), chosen, tolerance).run()


class _Check:
    """One encoder, and the vectors that it gave each sentence alone."""

    def __init__(
        self, encoder: CheckedEncoder, sentences: Sequence[Sentence], tolerance: float | None
    ) -> None:
        self._encoder, self._sentences = encoder, sentences
        self._name = encoder.spec or type(encoder.wrapped).__name__
        self._tolerance = tolerance_of(encoder.recipe) if tolerance is None else tolerance
        self._alone: dict[Sentence, Array] = {}
        self._n_batches, self._largest = 0, 0.0

    def run(self) -> EncoderCheck:
        """Test rule after rule: each needs those before it."""
        self._alone_and_again()
        self._after_others()
        self._beside_others()
        self._require_lasting_vectors()
        has_submit = callable(getattr(self._encoder.wrapped, "submit", None))
        if has_submit:
            self._submitted()
        if checked_encoder(self._encoder.wrapped).recipe != self._encoder.recipe:
            raise self._broken("recipe", "has another recipe than before it encoded anything")
        return EncoderCheck(len(self._sentences), self._n_batches, self._largest, self._tolerance, has_submit)

    def _alone_and_again(self) -> None:
        for tokens in self._sentences:
            [first] = self._encoded([tokens])
            if not np.isfinite(first).all():
                raise self._broken("finite", "gives vectors that are not finite", tokens)
            self._alone[tokens] = first
            self._compare(
                [tokens],
                self._encoded([tokens]),
                "repeatable",
                "the second time in a row",
                "turn dropout off (model.eval()), draw nothing at random, carry no state from call to call",
            )

    def _after_others(self) -> None:
        for tokens in reversed(self._sentences):
            self._compare(
                [tokens],
                self._encoded([tokens]),
                "no state",
                "after others were encoded",
                "carry no state from call to call, and let nothing learn (model.eval())",
            )

    def _beside_others(self) -> None:
        by_length = sorted(self._sentences, key=len)
        alike = [list(group) for _, group in groupby(by_length, key=len)]
        neighbours = "no sentence of a batch may have a part in the vectors of another"
        for group in alike:
            batch = [*group, group[0]]  # the same sentence twice, too
            self._compare(batch, self._encoded(batch), "neighbours", "beside others as long", neighbours)
        for tokens in by_length[:-1]:
            batch = [tokens, by_length[-1]]
            self._compare(
                batch,
                self._encoded(batch),
                "padding",
                "beside a longer one",
                "mask what pads a sentence, in every layer, pooling and normalisation",
            )
        for batch in (list(self._sentences), by_length, by_length[::-1]):
            self._compare(batch, self._encoded(batch), "neighbours", "in a batch of all", neighbours)

    def _require_lasting_vectors(self) -> None:
        """Raise if vectors that extraction does not copy are written to by the next call."""
        given = self._called(self._sentences[:2])
        if isinstance(given, BatchVectors):
            kept = given.values.copy()
            self._called(self._sentences[::-1])
            if not np.array_equal(kept, given.values):
                raise self._broken(
                    "BatchVectors left alone",
                    "writes the next batch into the values of the last: make a new array for each, or return "
                    "a plain list, which is copied",
                )

    def _submitted(self) -> None:
        """Let two batches be under way, as extraction does on a device other than a CPU."""
        half = max(1, len(self._sentences) // 2)
        batches = [list(self._sentences[:half]), list(self._sentences[half:])]
        pending = [self._guarded(self._encoder.submit, batch) for batch in batches]
        found = []
        for batch, one in zip(batches, pending, strict=True):
            if not callable(getattr(one, "result", None)):
                raise self._broken(
                    "submit",
                    f"has a submit() that returns a {type(one).__name__}: expected an object with result()",
                )
            given = self._checked(self._guarded(partial(_result, one), batch), batch)
            found.append(given if isinstance(given, BatchVectors) else [array.copy() for array in given])
        for batch, vectors in zip(batches, found, strict=True):
            self._compare(
                batch,
                vectors,
                "submit",
                "from submit(), with two batches under way",
                "let result() return the vectors of its own batch",
            )

    def _encoded(self, batch: Sequence[Sentence]) -> list[Array]:
        """Encode a batch; return copies of its vectors in float32."""
        return [np.array(array, np.float32) for array in self._called(batch)]

    def _called(self, batch: Sequence[Sentence]) -> Sequence[Array]:
        """Encode a batch; return what was given, checked."""
        handed = list(batch)
        given = self._guarded(self._encoder.encode, handed)
        if handed != list(batch):
            raise self._broken(
                "sentences left alone", "changes the list of sentences that it is given: copy it"
            )
        return self._checked(given, batch)

    def _guarded(self, call: Callable[[Sequence[Sentence]], Any], batch: Sequence[Sentence]) -> Any:
        self._n_batches += 1
        try:
            return call(batch)
        except EncoderOutOfMemory:
            raise
        except Exception as error:
            of = f"{len(batch)} sentences" if len(batch) > 1 else "a sentence"
            raise self._broken(
                "encodes every sentence", f"raises {type(error).__name__} for {of}: {error}", batch[0]
            ) from error

    def _checked(self, given: object, batch: Sequence[Sentence]) -> Sequence[Array]:
        shapes = [vector_shape(len(tokens), self._encoder.n_layers, self._encoder.dim) for tokens in batch]
        return require_arrays(given, len(batch), self._name, shapes)

    def _compare(
        self, batch: Sequence[Sentence], now: Sequence[Array], rule: str, when: str, remedy: str
    ) -> None:
        alone = [self._alone[tokens] for tokens in batch]
        try:
            largest = require_same(
                self._name, batch, now, alone, self._tolerance, rule=rule, when=when, remedy=remedy
            )
        except EncoderRuleError as error:
            whose = [self._owner(vectors) for vectors in now]
            if None not in whose and Counter(whose) == Counter(batch):
                raise self._broken(
                    "order", "returns the vectors of another sentence of the batch", error.tokens
                ) from error
            raise
        self._largest = max(self._largest, largest)

    def _owner(self, vectors: Array) -> Sentence | None:
        """Return the sentence that has these vectors."""
        for tokens, alone in self._alone.items():
            if relative_l2(vectors, alone) <= self._tolerance:
                return tokens
        return None

    def _broken(self, rule: str, what: str, tokens: Sentence = ()) -> EncoderRuleError:
        shown = f" The sentence: {' '.join(tokens[:8])!r} ({len(tokens)} tokens)." if tokens else ""
        return EncoderRuleError(
            f"the encoder {self._name!r} {what}.{shown} The rule: {RULES[rule]}. This is an error in "
            "the encoder",
            rule=rule,
            tokens=tokens,
        )


def _result(pending: PendingVectors, _: Sequence[Sentence]) -> Sequence[Array]:
    return pending.result()
