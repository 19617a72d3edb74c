"""A Flair embedding as an encoder: sentences in, NumPy arrays out, with the recipe that decides them.

The vectors are those of evaluation mode, in float32. How far a sentence's vectors may depend on the batch
it was in, as relative L2 difference per sentence: at most :data:`BATCH_INVARIANCE`. A transformer pads, and
adds up in another order; word embeddings do not differ at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import flair
import numpy as np
import torch
from flair.data import Sentence as FlairSentence
from flair.embeddings import TransformerWordEmbeddings
from flair.embeddings.base import TokenEmbeddings
from numpy.typing import NDArray
from torch import Tensor

from featurestore.devices import out_of_memory_as_ours
from featurestore.encoders.flair.conditions import Dependence, TokensOnly, flair_sentence
from featurestore.encoders.flair.identity import flair_recipe
from featurestore.encoders.flair.members import frozen, members_of
from featurestore.encoders.flair.overflow import require_vectors, require_whole
from featurestore.encoders.flair.rules import dependence_of
from featurestore.encoders.vectors import BatchVectors
from featurestore.errors import EncoderError, EncoderOutOfMemory, UsageError
from featurestore.keys import Sentence, check_sentence

BATCH_INVARIANCE = 1e-5
"""Bound on the relative L2 difference of a sentence's vectors between any two batches."""

TOKEN_BUDGET = {"cpu": 2_048, "cuda": 16_384}
"""Tokens per batch by default; transformers pad, and keep the output of every layer."""


class FlairEncoder:
    """A Flair token embedding as :class:`featurestore.encoders.base.Encoder`.

    It shares the embedding with the caller and leaves it as it was. Sentences that it embeds are its own; the
    caller's are never touched.

    Parameters
    ----------
    embedding : flair.embeddings.TokenEmbeddings
        Any with vectors that depend on the sentence alone, or on what a
        :class:`~featurestore.keys.ConditionedSentence` can tell about it; also a stack of such.
    spec : str
        The specification that loads it again, if there is one.
    allow_trainable : bool
        Take an embedding that would be trained along with a model, as it is now.
    dependence : Dependence, optional
        What the vectors of an embedding of an unknown class depend on besides the tokens.

    Attributes
    ----------
    dependence : Dependence
        What besides the tokens decides the vectors.
    token_budget : int
        Tokens that are embedded at once, context included; less after memory has run out.

    Raises
    ------
    UsageError
        If its vectors cannot be cached, with the reason.

    Notes
    -----
    Between a sentence and its context Flair puts a separator, which it draws at random whenever it makes a
    transformer with ``use_context``. In another process that is another embedding, of another recipe, whose
    vectors the store refuses. Fixed right after it is made, it is the same everywhere, and the one that its
    specification loads::

        embedding = TransformerWordEmbeddings(MODEL, use_context=True, fine_tune=False)
        fix_separator(embedding)
        encoder = FlairEncoder(embedding)
    """

    def __init__(
        self,
        embedding: TokenEmbeddings,
        *,
        spec: str = "",
        allow_trainable: bool = False,
        dependence: Dependence | None = None,
    ) -> None:
        self._members = members_of(embedding)
        self.dependence = dependence_of(self._members, allow_trainable=allow_trainable, told=dependence)
        self._device = torch.device(flair.device)
        self.spec = spec
        self.recipe = flair_recipe(self._members, self.dependence)
        self.dim = sum(int(member.embedding_length) for member in self._members)
        self.n_layers = 1
        self.device = str(self._device)
        self.token_budget = TOKEN_BUDGET.get(self._device.type, TOKEN_BUDGET["cpu"])

    def submit(self, sentences: Sequence[Sentence]) -> PendingFlairVectors:
        """Encode a batch; on a GPU return before the vectors are copied.

        A batch of many short sentences may have far more context than tokens of its own: it is embedded in
        parts, each within the token budget with its context, or as large as the batch is without any.

        Parameters
        ----------
        sentences : sequence of tuple of str
            With context, a language or spaces of its own, a
            :class:`~featurestore.keys.ConditionedSentence`; a plain tuple has no context, whatever is in its
            batch.

        Raises
        ------
        SentenceError
            For an empty sentence or token, something that is no list of strings, or a condition of another
            encoder.
        EncoderOutOfMemory
            If the batch does not fit.
        EncoderError
            If tokens of a sentence would be cut off, or Flair cannot embed it.
        UsageError
            If vectors depend on more than tokens, and sentences come from
            :func:`~featurestore.integrations.flair.from_flair` that was not told so.
        """
        sentences = list(sentences)
        for sentence in sentences:
            check_sentence(sentence)
        self._require_context(sentences)
        lengths = [len(sentence) for sentence in sentences]
        if not lengths:
            return PendingFlairVectors(None, [])
        room = max(sum(lengths), self.token_budget)
        try:
            with self._memory_of(sentences), frozen(self._members, self._device):
                vectors = torch.cat([self._embedded(part) for part in self._parts(sentences, room)])
        except EncoderOutOfMemory:
            # The caller halves its batch; the room for sentences with context must shrink as fast.
            if len(lengths) > 1:
                self.token_budget = max(1, min(self.token_budget, room // 2))
            raise
        return PendingFlairVectors(vectors, lengths)

    def encode(self, sentences: Sequence[Sentence]) -> list[NDArray[np.floating]]:
        """Return one ``(n_tokens, dim)`` float32 array per sentence."""
        return list(self.submit(sentences).result())

    def _memory_of(self, sentences: Sequence[Sequence[object]]) -> AbstractContextManager[None]:
        """Return a context that names these sentences when memory runs out."""
        subject = f"a batch of {sum(map(len, sentences)):,} tokens in {len(sentences):,} sentences"
        return out_of_memory_as_ours(f"{subject} on {self.device}", "Use a smaller token budget")

    def _require_context(self, sentences: Sequence[Sentence]) -> None:
        """Raise UsageError for sentences that came without their context by oversight."""
        if self.dependence and any(isinstance(sentence, TokensOnly) for sentence in sentences):
            raise UsageError(
                f"the vectors of {self.spec or 'this encoder'} depend on more than tokens "
                f"({', '.join(self.dependence.to_dict())}), which the sentences of the Flair corpus came "
                "without: from_flair(corpus, encoder_or_dependence=encoder) takes it along. To take every "
                "sentence without it: encoder_or_dependence=Dependence()"
            )

    def _parts(self, sentences: Sequence[Sentence], room: int) -> Iterator[list[FlairSentence]]:
        """Yield sentences for Flair, in order, as many at a time as there is room for with their context."""
        part: list[FlairSentence] = []
        n_tokens, reach = 0, self.dependence.context
        for sentence in sentences:
            private = flair_sentence(sentence)
            n_read = len(private) + len(private.left_context(reach)) + len(private.right_context(reach))
            if part and n_tokens + n_read > room:
                yield part
                part, n_tokens = [], 0
            part.append(private)
            n_tokens += n_read
        yield part

    def _embedded(self, private: list[FlairSentence]) -> Tensor:
        """Return the vectors of some sentences, (n_tokens, dim) float32."""
        return torch.cat([self._embedded_by(member, private) for member in self._members], 1)

    def _embedded_by(self, member: TokenEmbeddings, private: list[FlairSentence]) -> Tensor:
        """Return the vectors of one member, (n_tokens, length) float32; nothing stays on the sentences."""
        if isinstance(member, TransformerWordEmbeddings):
            require_whole(member, private)
        try:
            with self._memory_of([sentence.tokens for sentence in private]):
                member.embed(private)
        except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            first = " ".join(token.text for token in private[0].tokens[:8])
            raise EncoderError(
                f"{type(member).__name__} failed on a batch of {len(private):,} sentences, the first of "
                f"which begins {first!r}: {type(error).__name__}: {error}"
            ) from error
        rows = []
        for sentence in private:
            for token in sentence.tokens:
                rows += token.get_each_embedding([member.name])
            sentence.clear_embeddings()
        n_tokens = sum(len(sentence.tokens) for sentence in private)
        if len(rows) != n_tokens or len(rows[0]) != member.embedding_length:
            raise EncoderError(
                f"{type(member).__name__} gave {len(rows):,} vectors for {n_tokens:,} tokens, expected one "
                f"each with {member.embedding_length:,} numbers"
            )
        # Detached: a character model that may be fine-tuned computes gradients, whatever is asked for.
        vectors = torch.stack(rows).detach().float()
        if isinstance(member, TransformerWordEmbeddings):
            require_vectors(member, private, vectors)
        return vectors


class PendingFlairVectors:
    """Vectors of one batch on their way from the device.

    Parameters
    ----------
    vectors : Tensor or None
        (n_tokens, dim) float32, sentence by sentence as given; None for a batch without sentences.
    lengths : list of int
        Tokens of each sentence.
    """

    def __init__(self, vectors: Tensor | None, lengths: list[int]) -> None:
        self._vectors, self._lengths = vectors, lengths

    def result(self) -> Sequence[NDArray[np.floating]]:
        """Return one array per sentence, in the order given."""
        if self._vectors is None:
            return []
        with out_of_memory_as_ours("a batch on its way from the GPU", "Use a smaller token budget"):
            host = self._vectors.cpu().numpy()
        return BatchVectors(host, self._lengths)
