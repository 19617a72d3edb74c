"""What the sentences of a column file look like as a whole: signs that the file is not what it is read as."""

from __future__ import annotations

from featurestore.corpora.options import ReadOptions
from featurestore.errors import CorpusError
from featurestore.keys import Sentence

LONG_SENTENCE = 1000
"""Tokens from which a sentence is mentioned: the longest of Universal Dependencies have about 500."""

_WITHHELD = "_"


class Plausibility:
    """Counts what is implausible in the sentences of one pass over a file.

    - A sentence of over 1,000 tokens is mentioned; if it is the only one, the file is refused, since its blank lines
      are missing.
    - Sentences of nothing but underscores stand for text that may not be published. A file of them is refused, some
      of them are mentioned.
    """

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._n_sentences = 0
        self._longest = 0
        self._first_line = 0
        self._n_withheld = 0
        self._first_withheld = 0

    def add(self, tokens: Sentence, line: int) -> None:
        """Take in the next sentence and its first line."""
        n_tokens = len(tokens)
        self._n_sentences += 1
        if self._n_sentences == 1:
            self._first_line = line
        if n_tokens > self._longest:
            self._longest = n_tokens
        if n_tokens > 1 and tokens[0] == _WITHHELD and tokens.count(_WITHHELD) == n_tokens:
            self._n_withheld += 1
            self._first_withheld = self._first_withheld or line

    def finish(self) -> None:
        """Judge the file, at its end.

        Raises
        ------
        CorpusError
            If it cannot be what it is read as.
        """
        path = self._options.path
        if self._longest > LONG_SENTENCE:
            if self._n_sentences == 1:
                raise CorpusError(
                    f"the whole file is one sentence of {self._longest:,} words: a blank line must separate "
                    "sentences; --split-sentences (in Python split_sentences=True) ends them after . ! and ?",
                    path=path,
                    line=self._first_line,
                )
            self._options.warn_once(
                "the longest sentence has %d words: are blank lines missing? --split-sentences also ends "
                "sentences after . ! and ?",
                self._longest,
            )
        if not self._n_withheld:
            return
        if self._n_withheld == self._n_sentences:
            raise CorpusError(
                "every word is an underscore: the text is withheld, as in treebanks whose licence does not "
                "allow to publish it; its README says how to put the words in",
                path=path,
                line=self._first_withheld,
            )
        self._options.warn_once(
            "%d of %d sentences consist of underscores, first line %d: their text is withheld, see the "
            "corpus's README",
            self._n_withheld,
            self._n_sentences,
            self._first_withheld,
        )
