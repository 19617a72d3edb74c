"""Tokens whose end an encoder does not see: an ELMo reads the first 48 bytes of a token's UTF-8.

Two tokens that begin alike and differ only beyond that get the same vector. Counting them says whether a
text is one long word to its encoder: a protein, or a script that writes no spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from featurestore.keys import Sentence

_SHOWN_CHARACTERS = 40


@dataclass(slots=True)
class CutTokens:
    """Counts the tokens of sentences, and those of which an encoder reads only the beginning.

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

    @property
    def n_cut_bytes(self) -> int:
        """Bytes of the tokens that are cut."""
        return self.n_cut * self.max_token_bytes + self.n_unseen_bytes

    @property
    def share(self) -> float:
        """Share of the text that stands in tokens that are cut."""
        return self.n_cut_bytes / max(1, self.n_bytes)

    def see(self, sentences: Sequence[Sentence]) -> None:
        """Count the tokens of further sentences."""
        text = "".join(chain.from_iterable(sentences))
        self.n_tokens += sum(map(len, sentences))
        self.n_bytes += _n_bytes(text)
        # No character takes more than four bytes.
        most_characters = self.max_token_bytes // (1 if text.isascii() else 4)
        for token in [token for token in chain.from_iterable(sentences) if len(token) > most_characters]:
            n_unseen = _n_bytes(token) - self.max_token_bytes
            if n_unseen > 0:
                self.n_unseen_bytes += n_unseen
                self.n_cut += 1
                self.first = self.first or token[:_SHOWN_CHARACTERS]


def _n_bytes(text: str) -> int:
    # Lone surrogates have no bytes in UTF-8; an ELMo leaves them out too.
    return len(text) if text.isascii() else len(text.encode("utf-8", "ignore"))
