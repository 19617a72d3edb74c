"""The second pass over the corpora: what is not stored yet, each sentence once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from featurestore import keys
from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.keyarrays import keys_array

SENTENCES_AT_ONCE = 4096
"""Sentences looked up at a time, in either pass."""


def new_examples(
    corpora: Iterable[Corpus], is_stored: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
) -> Iterator[tuple[bytes, Example]]:
    """Yield each distinct example that is not stored yet, after its key, in corpus order.

    What was yielded is expected to be stored soon: only the keys of what is not yet stay in memory.

    Parameters
    ----------
    corpora : iterable of Corpus
    is_stored : callable
        (n, 16) uint8 keys to (n,) bool.
    """
    yielded: set[bytes] = set()
    most_yielded = SENTENCES_AT_ONCE
    for corpus in corpora:
        iterator = iter(corpus)
        while chunk := list(islice(iterator, SENTENCES_AT_ONCE)):
            chunk_keys = [keys.sentence_key(example.tokens) for example in chunk]
            stored = is_stored(keys_array(chunk_keys))
            for example, key, known in zip(chunk, chunk_keys, stored.tolist(), strict=True):
                if not known and key not in yielded:
                    yielded.add(key)
                    yield key, example
            if len(yielded) > most_yielded:
                asked = list(yielded)
                stored = is_stored(keys_array(asked))
                yielded = {key for key, known in zip(asked, stored.tolist(), strict=True) if not known}
                most_yielded = 2 * len(yielded) + SENTENCES_AT_ONCE
        corpus.check_unchanged()
