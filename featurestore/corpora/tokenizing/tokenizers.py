"""The tokenisers by name: what a reader asks for the tokens or the sentences of a raw text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from featurestore.corpora.contract.options import CHARACTERS, ICU, RULES, ReadOptions
from featurestore.corpora.tokenizing import rules, unspaced
from featurestore.corpora.tokenizing.characters import character_tokens
from featurestore.errors import CorpusError
from featurestore.keys import Sentence


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How the raw text of one file becomes tokens.

    Attributes
    ----------
    name : str
        One of :data:`~featurestore.corpora.contract.options.TOKENIZERS`.
    path : str
        The file, for messages.
    unit : str
        What its numbers count, for messages: ``line`` or ``row``.
    """

    name: str
    path: str
    unit: str = "line"

    def tokens(self, text: str, line: int) -> Sentence:
        """Return the tokens of a text, which is one sentence.

        Raises
        ------
        CorpusError
            If the text writes no spaces between words and the tokeniser cannot split it.
        UsageError
            If the tokeniser needs a package that is not installed.
        """
        self._check(text, line)
        return _TOKENS[self.name](text)

    def sentences(self, text: str, line: int) -> list[Sentence]:
        """Return the sentences of a text, each as its tokens; errors as of :meth:`tokens`.

        The tokeniser ``characters`` takes the whole text as one sentence.
        """
        self._check(text, line)
        return _SENTENCES[self.name](text)

    def _check(self, text: str, line: int) -> None:
        if self.name == CHARACTERS or text.isascii():
            return
        found = unspaced.unparted(text, by_icu=self.name == ICU)
        if found is not None:
            self._refuse(found, line)

    def _refuse(self, found: str, line: int) -> NoReturn:
        where: dict[str, Any] = {"line": line, "unit": self.unit}
        if self.name == ICU:
            raise CorpusError(
                f"ICU has no dictionary for the script of {found!r}, which writes no spaces between words: "
                "take --tokenize characters (in Python tokenize='characters'), or bring your own tokens",
                path=self.path,
                **where,
            )
        raise CorpusError(
            f"{found!r} writes no spaces between words, and --tokenize splits where they are: take "
            f"--tokenize icu, which knows words of Chinese, Japanese, Thai, Lao, Khmer and Burmese "
            f"({unspaced.EXTRA}), or --tokenize characters (in Python tokenize='icu' or 'characters'), or "
            "bring your own tokens",
            path=self.path,
            **where,
        )


def make_tokenizer(options: ReadOptions, unit: str = "line") -> Tokenizer | None:
    """Return the tokeniser that was asked for; None for text whose tokens stand between spaces."""
    return None if options.tokenize is None else Tokenizer(options.tokenize, options.path, unit)


def _one_sentence(text: str) -> list[Sentence]:
    return [character_tokens(text)]


_TOKENS: dict[str, Callable[[str], Sentence]] = {
    RULES: rules.tokenize,
    ICU: unspaced.icu_tokens,
    CHARACTERS: character_tokens,
}
_SENTENCES: dict[str, Callable[[str], list[Sentence]]] = {
    RULES: rules.split_sentences,
    ICU: unspaced.icu_sentences,
    CHARACTERS: _one_sentence,
}
