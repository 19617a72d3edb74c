"""Tokens that a transformer would lose silently: those cut off, and those that Flair cannot find again.

Told to cut (``allow_long_sentences=False``), Flair gives the tokens that are cut off vectors of zeros. A
token that the tokenizer drops by itself gets zeros too, and rightly; so before anything is embedded the
subwords are counted. Where a tokenizer does not say which subwords are a token's, Flair guesses, and gives
zeros where it fails; those are found by asking the tokenizer whether it would drop the token.
"""

from __future__ import annotations

from collections.abc import Iterable

from flair.data import Sentence as FlairSentence
from flair.embeddings import TransformerWordEmbeddings
from torch import Tensor

from featurestore.encoders.flair.vocabulary import SEPARATOR, uses_separator
from featurestore.errors import EncoderError

_MARKS = ("▁", "Ġ")
"""Subwords that are only the beginning of a word."""


def require_whole(member: TransformerWordEmbeddings, sentences: Iterable[FlairSentence]) -> None:
    """Raise unless every token of the sentences reaches the model.

    Raises
    ------
    EncoderError
        Naming the first sentence of which tokens would be cut off.
    """
    limit = _limit(member)
    if limit is None:
        return
    special = member.tokenizer.num_special_tokens_to_add()
    for sentence in sentences:
        words = _words_that_must_fit(member, sentence)
        # Of plain letters no subword is empty, save for one mark before each word.
        if all(map(str.isascii, words)) and sum(map(len, words)) + len(words) + special <= limit:
            continue
        subwords = member.tokenizer(
            words, is_split_into_words=True, truncation=False, padding=False, verbose=False
        )
        n_subwords = len(subwords["input_ids"])
        if n_subwords > limit:
            tokens = [token.text for token in sentence.tokens]
            remedy = (
                "Make the embedding with allow_long_sentences=True (?allow_long_sentences=true), or split "
                "the sentence"
                if member.truncate
                else "Split the sentence"
            )
            raise EncoderError(
                f"a sentence of {len(tokens):,} tokens (starting with {' '.join(tokens[:8])!r}) is "
                f"{n_subwords:,} subwords with the context that counts, over the {limit:,} that "
                f"{member.name} takes: the last tokens would get no vectors. {remedy}"
            )


def require_vectors(
    member: TransformerWordEmbeddings, sentences: Iterable[FlairSentence], vectors: Tensor
) -> None:
    """Raise if a token has zeros for a vector that the tokenizer does not drop.

    Parameters
    ----------
    member : TransformerWordEmbeddings
    sentences : iterable of flair.data.Sentence
    vectors : (n_tokens, n) float
        Of all their tokens, in order.

    Raises
    ------
    EncoderError
        Naming the first such token.
    """
    lost = set((~vectors.any(1)).nonzero().flatten().tolist())
    if not lost:
        return
    tokens = [token for sentence in sentences for token in sentence.tokens]
    for number in sorted(lost):
        text = tokens[number].text
        pieces = [piece for piece in member.tokenizer.tokenize(text) if piece not in _MARKS]
        if pieces and text.strip():
            raise EncoderError(
                f"{member.name} has no vector for the token {text!r}, though its tokenizer makes "
                f"{pieces[:5]!r} of it: Flair could not tell which subwords are whose. Use a fast tokenizer, "
                "or replace the token"
            )


def _limit(member: TransformerWordEmbeddings) -> int | None:
    """Return how many subwords reach the model at most; None if there is no bound."""
    if member.allow_long_sentences:
        return None
    if member.truncate:
        return int(member.tokenizer.model_max_length)
    positions = getattr(member.model.config, "max_position_embeddings", None)
    return int(positions) if isinstance(positions, int) and positions > 0 else None


def _words_that_must_fit(member: TransformerWordEmbeddings, sentence: FlairSentence) -> list[str]:
    """Return a sentence's tokens and those around them that are cut off only after them."""
    left: list[str] = []
    right: list[str] = []
    if member.context_length > 0:
        context = member.context_length, member.respect_document_boundaries
        left = [token.text for token in sentence.left_context(*context)]
        right = [token.text for token in sentence.right_context(*context)]
        if uses_separator(member):
            left, right = [*left, SEPARATOR], [SEPARATOR, *right]
    tokens = [token.text for token in sentence.tokens]
    if not member.truncate:
        return left + tokens + right
    return tokens + right if member.tokenizer.truncation_side == "left" else left + tokens
