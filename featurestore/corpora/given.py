"""What a caller may give as corpora: paths, opened corpora, or sentences in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.corpus import Corpus, open_corpus
from featurestore.corpora.files.expanding import means_several
from featurestore.corpora.files.source import STDIN
from featurestore.corpora.foreign import refuse_foreign, refuse_foreign_item
from featurestore.corpora.libraries.objects import is_document, kind_of
from featurestore.corpora.libraries.spacy_docs import DocsCorpus, examples_of_docs
from featurestore.corpora.memory import checked_example, corpus_from_sentences
from featurestore.errors import CorpusError, UsageError

CorpusLike = str | os.PathLike[str] | Corpus | Iterable[Example] | Iterable[Sequence[str]]
"""A path, an opened corpus, or sentences in memory, also in an object of another library."""

_DOCUMENTS = "(spaCy documents)"


def as_corpora(given: CorpusLike | Sequence[CorpusLike]) -> list[Corpus]:
    """Open what was given as corpora; sentences are copied.

    Parameters
    ----------
    given : path, Corpus, iterable of Example or token lists, or a sequence of paths and corpora
        What :func:`featurestore.open_corpus` takes is a corpus too, and so are Doc objects of spaCy.

    Raises
    ------
    UsageError
        For an object of Flair or of another library, naming what makes a corpus of it.
    CorpusError, SentenceError
        As :func:`featurestore.open_corpus` and :func:`featurestore.corpora.memory.corpus_from_sentences`.
    """
    if is_corpus(given):
        return [_opened(given)]
    items = list(_iterated(given))
    if items and all(map(is_document, items)):
        return [DocsCorpus(ReadOptions(_DOCUMENTS), items)]
    if items and all(map(is_corpus, items)):
        return [_opened(item, alone=False) for item in items]
    return [corpus_from_sentences(items)]


def read_examples(given: CorpusLike | Sequence[CorpusLike]) -> Iterator[Example]:
    """Yield the examples of what was given as corpora, in their order, none of them kept.

    Parameters
    ----------
    given : as for :func:`as_corpora`

    Raises
    ------
    UsageError, CorpusError, SentenceError
        As :func:`as_corpora`, when the place is reached.
    """
    if is_corpus(given):
        yield from _opened(given)
        return
    items = _iterated(given)
    for first in items:
        if is_document(first):
            yield from examples_of_docs(chain([first], items), ReadOptions(_DOCUMENTS))
            return
        if is_corpus(first):
            yield from chain.from_iterable(as_corpora([first, *items]))
            return
        for position, sentence in enumerate(chain([first], items)):
            yield checked_example(sentence, position)


def is_corpus(given: object) -> bool:
    """Return whether something is one corpus: a path, one that was opened, or an object that holds one."""
    return isinstance(given, (str, os.PathLike, Corpus)) or kind_of(given) is not None


def _iterated(given: Any) -> Iterator[Any]:
    """Return an iterator over what is neither a path nor a corpus, its first object inspected."""
    _refuse_flair(given)
    refuse_foreign(given)
    try:
        items = iter(given)
    except TypeError:
        raise UsageError(
            f"a {type(given).__name__} is no corpus: expected a path, open_corpus(path), or lists of tokens"
        ) from None
    first = list(islice(items, 1))
    for item in first:
        _refuse_flair(item)
        refuse_foreign_item(item)
    return chain(first, items)


def _opened(given: Any, alone: bool = True) -> Corpus:
    if isinstance(given, Corpus):
        return given
    if kind_of(given) is not None:
        return open_corpus(given)
    path = os.fspath(given)
    if not alone and path != STDIN and not os.path.exists(path) and not means_several(path):
        raise CorpusError(
            "no such file: check the path, or, if it is a sentence, give it as a list of tokens", path=path
        )
    return open_corpus(path)


def _refuse_flair(given: object) -> None:
    """Raise for an object of Flair, which is known by where its class comes from: nothing here imports it."""
    if any(base.__module__.partition(".")[0] == "flair" for base in type(given).__mro__):
        raise UsageError(
            f"a Flair {type(given).__name__} cannot be read as it is, for an encoder may look at "
            "more than tokens: pass featurestore.integrations.flair_corpora.from_flair(corpus), and the "
            "encoder to it"
        )
