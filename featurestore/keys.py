"""Tokens to key: the one definition of a sentence's identity.

The key of a sentence is the 128-bit BLAKE2b digest of its tokens, each as UTF-8 bytes preceded by their
number as a little-endian 32-bit unsigned integer. Same tokens, same key, in every corpus, process and
machine; no separator that a token could contain; no Unicode normalisation. Lone surrogates, which have no
UTF-8 form, are encoded as Python's ``surrogatepass`` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from featurestore import limits
from featurestore.errors import SentenceError

KEY_BYTES = 16

Sentence = tuple[str, ...]
"""An already tokenised sentence: the unit of encoding."""


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


def key_of_bytes(tokens: Iterable[bytes]) -> bytes:
    """Return the key of tokens already given as UTF-8 bytes (see :func:`token_bytes`)."""
    message = b"".join([part for token in tokens for part in (len(token).to_bytes(4, "little"), token)])
    return hashlib.blake2b(message, digest_size=KEY_BYTES).digest()


def sentence_key(tokens: Sequence[str]) -> bytes:
    """Return the key of a sentence.

    Parameters
    ----------
    tokens : sequence of str
        The sentence's tokens, none of them empty.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    return key_of_bytes(token_bytes(tokens))


def require_sentence(tokens: Sequence[str]) -> Sentence:
    """Return the tokens as a sentence, checked.

    Raises
    ------
    SentenceError
        See :func:`token_bytes`.
    """
    token_bytes(tokens)
    if not isinstance(tokens, (tuple, list)):
        raise SentenceError(f"a sentence is a list or tuple of tokens, not a {type(tokens).__name__}")
    return tuple(tokens)
