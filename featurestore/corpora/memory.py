"""Corpora in memory: sentences that somebody has already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.errors import SentenceError
from featurestore.keys import check_sentence

MEMORY = "(memory)"
"""What messages call a corpus in memory."""


class _MemoryCorpus(Corpus):
    format = "memory"

    def __init__(self, examples: Sequence[Example], name: str) -> None:
        self.path = name
        self._examples = tuple(examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def __len__(self) -> int:
        return len(self._examples)

    def check_unchanged(self) -> None:
        """Do nothing: the examples were copied and cannot change."""

    @property
    def bytes_read(self) -> int:
        return 0

    @property
    def n_bytes(self) -> None:
        return None


def corpus_from_sentences(sentences: Iterable[Sequence[str] | Example], name: str = MEMORY) -> Corpus:
    """Make a corpus of sentences that are in memory already.

    Parameters
    ----------
    sentences : iterable of sequences of str, or of Example
        They are copied, so that later changes to the lists do not matter.
    name : str
        What messages call the corpus.

    Returns
    -------
    Corpus
        A corpus that is in memory as a whole. It may be empty.

    Raises
    ------
    SentenceError
        If one of them is not a sentence, naming its position.
    """
    return _MemoryCorpus([checked_example(s, position, name) for position, s in enumerate(sentences)], name)


def checked_example(sentence: Sequence[str] | Example, position: int, name: str = MEMORY) -> Example:
    """Return a sentence of a corpus in memory as an example.

    Raises
    ------
    SentenceError
        If it is not one, naming its position.
    """
    tokens = sentence.tokens if isinstance(sentence, Example) else sentence
    try:
        check_sentence(tokens)
    except SentenceError as error:
        raise SentenceError(f"{name}, sentence {position}: {error}") from error
    if isinstance(sentence, Example):
        return sentence
    # A tuple stays as it is: it may have a condition.
    return Example(tokens if isinstance(tokens, tuple) else tuple(tokens))
