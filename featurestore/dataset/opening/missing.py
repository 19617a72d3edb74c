"""The error for sentences of a corpus that are not in a store: which, of how many, and what adds them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from featurestore import keys
from featurestore.corpora.contract.example import Example
from featurestore.errors import MissingSentence, MissingSentencesError
from featurestore.store.missing import how_to_add, missing_note
from featurestore.store.store import Store

_MOST_SHOWN, _MOST_PATHS = 3, 20
_MOST_TOKENS = 12
_INSTEAD = "Or leave them out, or give them zeros: on_missing='skip' or 'zeros' (--on-missing)"


class MissingSentences:
    """Notes sentences that are not in a store.

    Parameters
    ----------
    store : Store

    Attributes
    ----------
    n_missing : int
    sentences : list of MissingSentence
        The first of them.
    paths : list of str
        The first corpora they are from.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.n_missing = 0
        self.sentences: list[MissingSentence] = []
        self.paths: list[str] = []

    @classmethod
    def of(cls, error: MissingSentencesError, stores: Iterable[Store]) -> list[MissingSentences]:
        """Return what an error tells of each of the stores that it names, in its order."""
        told = []
        for part in (error, *error.in_other_stores):
            for store in stores:
                if store.path == part.store:
                    notes = cls(store)
                    notes.n_missing, notes.sentences = part.n_missing or 0, list(part.sentences)
                    notes.paths = list(part.paths)
                    told.append(notes)
        return told

    def note(self, example: Example) -> None:
        """Take in a missing sentence."""
        self.n_missing += 1
        if len(self.sentences) < _MOST_SHOWN:
            key = keys.sentence_key(example.tokens)
            self.sentences.append(MissingSentence(tuple(example.tokens), key, example.place))
        if example.is_of_file and len(self.paths) < _MOST_PATHS and example.path not in self.paths:
            self.paths.append(example.path)


def missing_error(
    missing: Sequence[MissingSentences], n_wanted: int, reading: Sequence[str] = ()
) -> MissingSentencesError:
    """Return the error for sentences that are not in a store, or in several, with the commands that add them.

    Parameters
    ----------
    missing : sequence of MissingSentences
        Of each store.
    n_wanted : int
    reading : sequence of str
        Options of the command line by which the corpora are read: read otherwise, they would hold other
        sentences.
    """
    texts, errors = [], []
    for notes in missing:
        if not notes.n_missing:
            continue
        text, store = _text(notes, n_wanted, reading), notes.store
        texts.append(text)
        errors.append(
            MissingSentencesError(
                f"{text}\n{_INSTEAD}{missing_note(store)}",
                sentences=notes.sentences,
                n_missing=notes.n_missing,
                n_wanted=n_wanted,
                store=store.path,
                paths=notes.paths,
            )
        )
    if len(errors) == 1:
        return errors[0]
    first = errors[0]
    noted = "".join(dict.fromkeys(missing_note(notes.store) for notes in missing if notes.n_missing))
    return MissingSentencesError(
        "\n".join([*texts, _INSTEAD]) + noted,
        sentences=first.sentences,
        n_missing=first.n_missing,
        n_wanted=n_wanted,
        store=first.store,
        paths=first.paths,
        in_other_stores=errors[1:],
    )


def _text(missing: MissingSentences, n_wanted: int, reading: Sequence[str]) -> str:
    shown = "".join(
        f"\n  {place}: {' '.join(tokens[:_MOST_TOKENS])}" for tokens, _, place in missing.sentences
    )
    corpora = shlex.join([*reading, *(missing.paths or ["CORPUS"])])
    store = missing.store
    return (
        f"{missing.n_missing:,} of {n_wanted:,} sentences are not in the store {store.path}; the "
        f"first:{shown}\n{how_to_add(store.recipe, store.path, corpora)}"
    )
