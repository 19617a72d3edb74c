"""Tokens whose end an encoder does not see: an ELMo reads the first 48 bytes of a token's UTF-8.

Two tokens that begin alike and differ only beyond that get the same vector. Counting them says whether a
text is one long word to its encoder: a protein, or a script that writes no spaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from featurestore.keys import Sentence

_SHOWN_CHARACTERS = 40


@dataclass(slots=True)
class CutTokens:
    """Counts the tokens of sentences, and those that an encoder sees the beginning of.

    Attributes
    ----------
    max_token_bytes : int
        Bytes of a token's UTF-8 that the encoder sees.
    n_tokens, n_cut : int
        Tokens counted, and those of them that are longer than that.
    n_bytes, n_unseen_bytes : int
        Bytes of all tokens, and those beyond the bound.
    first : str
        The first token that is cut, at most 40 characters of it.
    """

    max_token_bytes: int
    n_tokens: int = 0
    n_cut: int = 0
    n_bytes: int = 0
    n_unseen_bytes: int = 0
    first: str = ""

    def see(self, sentences: Iterable[Sentence]) -> None:
        """Count the tokens of further sentences."""
        bound = self.max_token_bytes
        for tokens in sentences:
            self.n_tokens += len(tokens)
            n_bytes = _n_bytes("".join(tokens))
            self.n_bytes += n_bytes
            # Most sentences are done here: no character takes more than four bytes.
            if n_bytes <= bound or max(map(len, tokens)) * 4 <= bound:
                continue
            for token in tokens:
                n_unseen = _n_bytes(token) - bound
                if n_unseen > 0:
                    self.n_unseen_bytes += n_unseen
                    self.n_cut += 1
                    self.first = self.first or token[:_SHOWN_CHARACTERS]


def _n_bytes(text: str) -> int:
    # Lone surrogates have no bytes in UTF-8; an ELMo leaves them out too.
    return len(text) if text.isascii() else len(text.encode("utf-8", "ignore"))
