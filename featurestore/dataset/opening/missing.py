"""The error for sentences of a corpus that are not in a store: which, of how many, and what adds them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from featurestore import keys
from featurestore.corpora.contract.example import Example
from featurestore.errors import MissingSentence, MissingSentencesError
from featurestore.store.missing import how_to_add, missing_note
from featurestore.store.store import Store

_MOST_SHOWN, _MOST_PATHS = 3, 20
_MOST_TOKENS = 12


class MissingSentences:
    """Notes sentences that are not in a store.

    Attributes
    ----------
    n_missing : int
    sentences : list of MissingSentence
        The first of them.
    paths : list of str
        The first corpora they are from.
    """

    def __init__(self) -> None:
        self.n_missing = 0
        self.sentences: list[MissingSentence] = []
        self.paths: list[str] = []

    def note(self, example: Example) -> None:
        """Take in a missing sentence."""
        self.n_missing += 1
        if len(self.sentences) < _MOST_SHOWN:
            key = keys.sentence_key(example.tokens)
            self.sentences.append(MissingSentence(tuple(example.tokens), key, example.place))
        if example.path and len(self.paths) < _MOST_PATHS and example.path not in self.paths:
            self.paths.append(example.path)

    def error(self, store: Store, n_wanted: int) -> MissingSentencesError:
        """Return the error for the sentences that were noted, of ``n_wanted`` in all."""
        return missing_error(store, self.sentences, self.n_missing, n_wanted, self.paths)


def missing_error(
    store: Store,
    sentences: Sequence[MissingSentence],
    n_missing: int,
    n_wanted: int,
    paths: Sequence[str],
    reading: Sequence[str] = (),
) -> MissingSentencesError:
    """Return the error for sentences that are not in a store, with the command that adds them.

    Parameters
    ----------
    store : Store
    sentences : sequence of MissingSentence
        The first of them.
    n_missing, n_wanted : int
    paths : sequence of str
        The corpora they are from.
    reading : sequence of str
        Options of the command line by which the corpora are read: read otherwise, they would hold other
        sentences.
    """
    shown = "".join(f"\n  {place}: {' '.join(tokens[:_MOST_TOKENS])}" for tokens, _, place in sentences)
    corpora = shlex.join([*reading, *(paths or ["CORPUS"])])
    return MissingSentencesError(
        f"{n_missing:,} of {n_wanted:,} sentences are not in the store {store.path}; the first:{shown}\n"
        f"{how_to_add(store.recipe, store.path, corpora)}\n"
        "Or leave them out, or give them zeros: on_missing='skip' or 'zeros' (--on-missing)"
        f"{missing_note(store)}",
        sentences=sentences,
        n_missing=n_missing,
        n_wanted=n_wanted,
        store=store.path,
        paths=paths,
    )
