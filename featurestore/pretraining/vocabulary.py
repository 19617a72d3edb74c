"""The words a biLM learns to predict, most frequent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from featurestore.encoders.elmo.model.characters import BEGIN_SENTENCE, END_SENTENCE
from featurestore.errors import CorpusError, UsageError

UNKNOWN = "<UNK>"
_AS_UNKNOWN = {"<unk>", UNKNOWN}
"""How corpora write words they left out: the same class for us."""


class Vocabulary:
    """Predictable words and their class numbers, as bilm-tf lays out a vocabulary file.

    Classes 0, 1 and 2 are the end marker, the begin marker and the unknown word; frequent words come first
    after them, which is the order that an adaptive softmax needs.

    Parameters
    ----------
    words : sequence of str
        All classes in order, the three special ones included.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        if self.words[:3] != (END_SENTENCE, BEGIN_SENTENCE, UNKNOWN):
            raise UsageError(
                f"a vocabulary begins with {END_SENTENCE}, {BEGIN_SENTENCE} and {UNKNOWN}, "
                f"found {' '.join(map(repr, self.words[:3]))}"
            )
        self._classes = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def of_counts(cls, counts: Counter[str], *, min_count: int, max_words: int) -> Vocabulary:
        """Return the vocabulary of counted words: ties in alphabetical order, so that it is reproducible.

        Parameters
        ----------
        counts : Counter of str
        min_count : int
            Rarer words are the unknown word.
        max_words : int
            Most words beside the three special classes; at least 2.

        Raises
        ------
        CorpusError
            If fewer than two words remain: there would be nothing to predict.
        """
        special = {BEGIN_SENTENCE, END_SENTENCE, *_AS_UNKNOWN}
        frequent = [word for word, n in counts.items() if n >= min_count and word not in special]
        frequent.sort(key=lambda word: (-counts[word], word))
        if len(frequent) < 2:
            raise CorpusError(
                f"a vocabulary of {len(frequent)} word(s): expected at least two that occur {min_count} "
                f"times or more in {sum(counts.values()):,} tokens. Give more text, or a lower --min-count"
            )
        return cls((END_SENTENCE, BEGIN_SENTENCE, UNKNOWN, *frequent[:max_words]))

    def __len__(self) -> int:
        return len(self.words)

    def classes(self, words: Iterable[str]) -> list[int]:
        """Return the class of each word."""
        get, unknown = self._classes.get, 2
        return [unknown if word in _AS_UNKNOWN else get(word, unknown) for word in words]
