"""Tokens to key: the one definition of a sentence's identity.

The key of a sentence is the 128-bit BLAKE2b digest of its tokens, each as UTF-8 bytes preceded by their
number as a little-endian 32-bit unsigned integer. Same tokens, same key, in every corpus, process and
machine; no separator that a token could contain; no Unicode normalisation. Lone surrogates, which have no
UTF-8 form, are encoded as by Python's ``surrogatepass``.

If a vector depends on more than the tokens (the sentences around it, the language, the spaces between words),
the rest is the sentence's *condition*: bytes that only the encoder interprets. A condition is hashed into the
key; without one the key is that of the tokens alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

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
        Whatever else decides the vectors; not empty.

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


class _EncodedTokens(dict[str, bytes]):
    """UTF-8 bytes of recent tokens, checked: most of a text are repetitions of few tokens."""

    def __missing__(self, token: str) -> bytes:
        raw = self._encoded(token)
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        if len(raw) <= _LONGEST_REMEMBERED:
            self[token] = raw
        return raw

    @staticmethod
    def _encoded(token: Any) -> bytes:
        if not isinstance(token, str) or not token:
            raise SentenceError("not a token")
        raw = token.encode("utf-8", "surrogatepass")
        if len(raw) > limits.MAX_TOKEN_BYTES:
            raise SentenceError("a token too long")
        return raw


class _Prefixed(_EncodedTokens):
    """The same bytes, preceded by their number in four bytes: what a key is hashed from."""

    @staticmethod
    def _encoded(token: Any) -> bytes:
        raw = _EncodedTokens._encoded(token)
        return len(raw).to_bytes(4, "little") + raw


_MOST_REMEMBERED, _LONGEST_REMEMBERED = 1 << 15, 64
_encoded, _prefixed = _EncodedTokens(), _Prefixed()


def token_bytes(tokens: Sequence[str]) -> list[bytes]:
    """Return the tokens' UTF-8 bytes, checking that they form a sentence.

    Raises
    ------
    SentenceError
        For a bare string, no tokens, an empty token, something that is not a string, or a size over
        :mod:`featurestore.limits`.
    """
    return _looked_up(_encoded, tokens)


def bytes_of_sentences(sentences: Iterable[Sequence[str]]) -> list[bytes]:
    """Return the UTF-8 bytes of the tokens of checked sentences, one after the other."""
    return list(map(_encoded.__getitem__, chain.from_iterable(sentences)))


def check_sentence(tokens: Sequence[str]) -> None:
    """Raise unless tokens form a sentence; faster than :func:`token_bytes`.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    try:
        sized = isinstance(tokens, (tuple, list)) and 0 < len(tokens) <= limits.MAX_SENTENCE_TOKENS
        if sized and all(map(_encoded.__contains__, tokens)):  # remembered tokens were checked
            return
    except TypeError:
        pass  # an unhashable token, which token_bytes explains
    token_bytes(tokens)


def _looked_up(table: _EncodedTokens, tokens: Sequence[str]) -> list[bytes]:
    if not isinstance(tokens, (tuple, list)):  # other sequences are rare and slower to check
        _require_sequence(tokens)
    if not tokens:
        raise SentenceError("a sentence needs at least one token: leave empty sentences out")
    if len(tokens) > limits.MAX_SENTENCE_TOKENS:
        raise SentenceError(
            f"a sentence of {len(tokens):,} tokens exceeds the bound of {limits.MAX_SENTENCE_TOKENS:,}: "
            f"split it (starts with {list(tokens[:5])!r})"
        )
    try:
        return list(map(table.__getitem__, tokens))
    except (SentenceError, TypeError):
        raise _explained(tokens) from None


def _require_sequence(tokens: object) -> None:
    if isinstance(tokens, (str, bytes)):
        raise SentenceError(
            f"a sentence is a list of tokens, not one {type(tokens).__name__} ({tokens[:40]!r}): "
            "pass text.split(), or the tokens of your tokeniser"
        )
    if not isinstance(tokens, Sequence):
        raise SentenceError(
            f"a sentence is a list or tuple of tokens, not one {type(tokens).__name__} ({repr(tokens)[:40]})"
        )


def _explained(tokens: Sequence[Any]) -> SentenceError:
    """Return the error of the first thing that is not a token."""
    for position, token in enumerate(tokens):
        if not isinstance(token, str):
            return SentenceError(f"token {position} is a {type(token).__name__} ({token!r}), expected str")
        if not token:
            return SentenceError(
                f"token {position} of {len(tokens)} is empty (sentence starts with {list(tokens[:5])!r}): "
                "drop it together with its label"
            )
        n_bytes = len(token.encode("utf-8", "surrogatepass"))
        if n_bytes > limits.MAX_TOKEN_BYTES:
            return SentenceError(
                f"token {position} has {n_bytes:,} bytes, over the bound of {limits.MAX_TOKEN_BYTES:,}"
            )
    return SentenceError(f"{tokens!r} is not a sequence of tokens")


def sentence_message(tokens: Sequence[str]) -> bytes:
    """Return what is hashed: for each token the number of its UTF-8 bytes, in four bytes, then the bytes.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    return b"".join(_looked_up(_prefixed, tokens))


def key_of_message(message: bytes, condition: bytes = b"") -> bytes:
    """Return the key of what :func:`sentence_message` returned.

    With a condition it is a keyed BLAKE2b, whose secret is the 32-byte digest of the condition.
    """
    secret = hashlib.blake2b(condition, digest_size=32).digest() if condition else b""
    return hashlib.blake2b(message, digest_size=KEY_BYTES, key=secret).digest()


def sentence_key(tokens: Sequence[str]) -> bytes:
    """Return the key of a sentence, its condition included.

    Parameters
    ----------
    tokens : sequence of str
        At least one, none of them empty; a :class:`ConditionedSentence` if vectors depend on more than
        tokens.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    return key_of_message(sentence_message(tokens), condition_of(tokens))


def require_sentence(tokens: Sequence[str]) -> Sentence:
    """Return the tokens as a checked sentence; a condition stays with them.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    check_sentence(tokens)
    if not isinstance(tokens, (tuple, list)):
        raise SentenceError(f"a sentence is a list or tuple of tokens, not a {type(tokens).__name__}")
    return tokens if isinstance(tokens, ConditionedSentence) else tuple(tokens)
