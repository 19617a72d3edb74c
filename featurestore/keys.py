"""Tokens to key: the one definition of a sentence's identity.

The key of a sentence is the 128-bit BLAKE2b digest of its tokens, each as UTF-8 bytes preceded by their
number as a little-endian 32-bit unsigned integer. Same tokens, same key, in every corpus, process and
machine; no separator that a token could contain; no Unicode normalisation. Lone surrogates, which have no
UTF-8 form, are encoded as Python's ``surrogatepass`` does.

Where a vector depends on more than the tokens (the sentences around it, the language, the spaces between
words), that more is the sentence's *condition*: bytes that the encoder understands and nobody else. A
condition is hashed into the key; without one the key is that of the tokens alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from featurestore import limits
from featurestore.errors import SentenceError

KEY_BYTES = 16

Sentence = tuple[str, ...]
"""An already tokenised sentence: the unit of encoding."""


class ConditionedSentence(tuple[str, ...]):
    """A sentence whose vectors depend on more than its tokens.

    Equal to another only if tokens and condition are. Turning it into a plain tuple forgets the condition.

    Parameters
    ----------
    tokens : sequence of str
    condition : bytes
        What else decides the vectors; not empty.

    Raises
    ------
    SentenceError
        If the condition is empty or over :data:`featurestore.limits.MAX_CONDITION_BYTES`.
    """

    condition: bytes

    def __new__(cls, tokens: Iterable[str], condition: bytes) -> ConditionedSentence:
        """Return the sentence, checked."""
        if not 0 < len(condition) <= limits.MAX_CONDITION_BYTES:
            raise SentenceError(
                f"a condition of {len(condition):,} bytes is not between 1 and "
                f"{limits.MAX_CONDITION_BYTES:,}: a sentence without one is a plain tuple"
            )
        sentence = super().__new__(cls, tokens)
        sentence.condition = bytes(condition)
        return sentence

    def __getnewargs__(self) -> tuple[tuple[str, ...], bytes]:
        return tuple(self), self.condition

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConditionedSentence):
            return False
        return super().__eq__(other) and self.condition == other.condition

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.condition))

    def __repr__(self) -> str:
        return f"ConditionedSentence({tuple(self)!r}, {self.condition!r})"


def sentence_with(tokens: Iterable[str], condition: bytes) -> Sentence:
    """Return tokens as a sentence: with the condition if there is one, else a plain tuple."""
    return ConditionedSentence(tokens, condition) if condition else tuple(tokens)


def condition_of(tokens: Sequence[str]) -> bytes:
    """Return the condition of a sentence, empty if it has none."""
    return tokens.condition if isinstance(tokens, ConditionedSentence) else b""


def token_bytes(tokens: Sequence[str]) -> list[bytes]:
    """Return the tokens' UTF-8 bytes, checking that they form a sentence.

    Raises
    ------
    SentenceError
        For a bare string, no tokens, an empty token, something that is not a string, or a size over
        :mod:`featurestore.limits`.
    """
    if isinstance(tokens, (str, bytes)):
        raise SentenceError(
            f"a sentence is a list of tokens, not one {type(tokens).__name__} ({tokens[:40]!r}): "
            "pass text.split(), or the tokens of your tokeniser"
        )
    if not tokens:
        raise SentenceError("a sentence needs at least one token: leave empty sentences out")
    if len(tokens) > limits.MAX_SENTENCE_TOKENS:
        raise SentenceError(
            f"a sentence of {len(tokens):,} tokens exceeds the bound of {limits.MAX_SENTENCE_TOKENS:,}: "
            f"split it (starts with {list(tokens[:5])!r})"
        )
    encoded = []
    for position, token in enumerate(tokens):
        if not isinstance(token, str):
            raise SentenceError(f"token {position} is a {type(token).__name__} ({token!r}), expected str")
        if not token:
            raise SentenceError(
                f"token {position} of {len(tokens)} is empty (sentence starts with {list(tokens[:5])!r}): "
                "drop it together with its label"
            )
        raw = token.encode("utf-8", "surrogatepass")
        if len(raw) > limits.MAX_TOKEN_BYTES:
            raise SentenceError(
                f"token {position} has {len(raw):,} bytes, over the bound of {limits.MAX_TOKEN_BYTES:,}"
            )
        encoded.append(raw)
    return encoded


def key_of_bytes(tokens: Iterable[bytes], condition: bytes = b"") -> bytes:
    """Return the key of tokens already given as UTF-8 bytes (see :func:`token_bytes`).

    A condition makes it a keyed BLAKE2b, the key being the condition's own 32-byte digest.
    """
    message = b"".join([part for token in tokens for part in (len(token).to_bytes(4, "little"), token)])
    secret = hashlib.blake2b(condition, digest_size=32).digest() if condition else b""
    return hashlib.blake2b(message, digest_size=KEY_BYTES, key=secret).digest()


def sentence_key(tokens: Sequence[str]) -> bytes:
    """Return the key of a sentence, its condition included.

    Parameters
    ----------
    tokens : sequence of str
        The sentence's tokens, none of them empty; a :class:`ConditionedSentence` where there is more.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    return key_of_bytes(token_bytes(tokens), condition_of(tokens))


def require_sentence(tokens: Sequence[str]) -> Sentence:
    """Return the tokens as a sentence, checked; a condition stays with them.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    token_bytes(tokens)
    if not isinstance(tokens, (tuple, list)):
        raise SentenceError(f"a sentence is a list or tuple of tokens, not a {type(tokens).__name__}")
    return tokens if isinstance(tokens, ConditionedSentence) else tuple(tokens)
