"""Sentences too large to be keyed or stored, refused where they are read."""

from __future__ import annotations

from featurestore import limits
from featurestore.corpora.contract.example import Example
from featurestore.errors import CorpusError


def check_size(example: Example) -> None:
    """Refuse, with the place, what could not be keyed or stored later.

    Raises
    ------
    CorpusError
        If a sentence has too many tokens, or a token too many bytes.
    """
    n_tokens = len(example.tokens)
    if n_tokens > limits.MAX_SENTENCE_TOKENS:
        raise CorpusError(
            f"the sentence has {n_tokens:,} tokens, over the bound of {limits.MAX_SENTENCE_TOKENS:,}: "
            "are the sentences separated?",
            **example.where,
        )
    # No character takes more than four bytes.
    if max(map(len, example.tokens)) * 4 <= limits.MAX_TOKEN_BYTES:
        return
    longest = max(len(token.encode("utf-8", "surrogatepass")) for token in example.tokens)
    if longest > limits.MAX_TOKEN_BYTES:
        raise CorpusError(
            f"a token has {longest:,} bytes, over the bound of {limits.MAX_TOKEN_BYTES:,}: is this text?",
            **example.where,
        )
