"""Opening at once: what was found of a corpus in a store is kept, and taken again while nothing has changed.

What an opening depends on is its identity: the content of the corpora, how they are read and by which code,
the options, and the shards of the stores. An opening is remembered under the hash of that, in the user's
cache folder: not beside the store, which may be read-only or another user's, travels to others, and must not
decide what a corpus is labelled.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from featurestore import limits
from featurestore.corpora.contract.identity import hash_of_sources
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.given import CorpusLike, as_corpora, is_corpus, read_examples
from featurestore.dataset import labels as label_sets
from featurestore.dataset.labels import LabelSet
from featurestore.dataset.opening.folder import first_alone, open_own, place_of, writing
from featurestore.dataset.opening.keeping import kept, placed_again
from featurestore.dataset.opening.openingfile import NotBelievedError, read_opening, write_opening
from featurestore.dataset.opening.placing import OnMissing, Placement, UnseenLabels, place
from featurestore.disk.explaining import FULL
from featurestore.errors import StoreWriteError
from featurestore.recipe import canonical_json
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

SWITCH = "FEATURESTORE_REMEMBER"
"""With 0 in this variable of the environment no opening is remembered."""


def open_placement(
    stores: Sequence[Store],
    examples: CorpusLike | Sequence[CorpusLike],
    *,
    labels: LabelSet | None,
    unseen_labels: UnseenLabels,
    on_missing: OnMissing,
    remember: bool,
) -> Placement:
    """Return where examples lie and how they are labelled, as :func:`place` finds it, or found it before.

    Parameters
    ----------
    stores, labels, unseen_labels, on_missing
        As for :func:`place`.
    examples : as for :func:`featurestore.corpora.given.read_examples`
    remember : bool
        Whether to look for what was found before, and to keep what is found now. Only what is read from files
        can be remembered.

    Raises
    ------
    MissingSentencesError, AlignmentError, LabelError, CorpusError, SentenceError
        As :class:`~featurestore.dataset.features.FeatureDataset`.
    """
    finder = functools.partial(
        place, stores, labels=labels, unseen_labels=unseen_labels, on_missing=on_missing
    )
    corpora = _files(examples) if remember and os.environ.get(SWITCH) != "0" else None
    if corpora is None:
        placement = finder(read_examples(examples))
    else:
        opening = _Opening(corpora, stores, labels, [unseen_labels, on_missing])
        placement = opening.recalled() or opening.found(lambda: finder(read_examples(corpora)))
    if placement.n_missing:
        for n_missing, store in zip(placement.n_missing_in, stores, strict=True):
            if n_missing:
                logger.warning("%d sentences are not in %s: %s", n_missing, store.path, on_missing)
    return placement


def _files(examples: CorpusLike | Sequence[CorpusLike]) -> list[Corpus] | None:
    """Return what was given as corpora that can be read again, None if it is something else."""
    if is_corpus(examples):
        return as_corpora(examples)
    if isinstance(examples, (list, tuple)) and examples and all(map(is_corpus, examples)):
        return as_corpora(examples)
    return None


class _Opening:
    """One opening: where it would be remembered, and under which identity."""

    def __init__(
        self, corpora: Sequence[Corpus], stores: Sequence[Store], labels: LabelSet | None, options: list[Any]
    ) -> None:
        self._corpora, self._stores, self._labels = corpora, stores, labels
        self._path: Path | None = None
        self._is_damaged = False
        try:
            found = [corpus.identity() for corpus in corpora]
            code = _code()
        except OSError as error:  # no sources, or a corpus that says so itself when it is read
            logger.debug("the opening is not remembered: %s", error)
            return
        self._identities = [identity for identity in found if identity is not None]
        if len(self._identities) < len(found):
            return
        self._identity = {
            "corpora": self._identities,
            "stores": list(map(_store_identity, stores)),
            "labels": None if labels is None else labels.names,
            "options": options,
            "code": code,
        }
        digest = hashlib.blake2b(canonical_json(self._identity), digest_size=16)
        self._path = place_of(digest.hexdigest())

    def recalled(self) -> Placement | None:
        """Return what was found before, if it is remembered and sound."""
        found = self._remembered()
        if found is None:
            return None
        placement, findings = found
        try:
            for corpus, identity, finding in zip(self._corpora, self._identities, findings, strict=True):
                corpus.recall(identity, finding)
        except (KeyError, TypeError, ValueError) as error:
            logger.info("what is remembered in %s of reading is not used: %s", self._path, error)
            return None
        logger.info("%d examples opened at once: remembered in %s", len(placement.lengths), self._path)
        return placement

    def found(self, find: Callable[[], Placement]) -> Placement:
        """Return what is found now and keep it, or what another process finds that has begun before."""
        if self._path is None:
            return find()
        with first_alone(self._path) as waited:
            # Another may have ended just before.
            look_again = waited or (not self._is_damaged and self._path.exists())
            return (self.recalled() if look_again else None) or self.kept(find())

    def kept(self, placement: Placement) -> Placement:
        """Keep what was found now, if that can be; return it, in the kept file where it is."""
        if self._path is None:
            return placement
        if [corpus.identity_read() for corpus in self._corpora] != self._identities:
            logger.info("the opening is not remembered: a corpus changed while it was read")
            return placement
        facts, arrays = kept(placement)
        if sum(array.nbytes for array in arrays.values()) > limits.MAX_OPENINGS_BYTES // 2:
            logger.info("the opening is not remembered: it is too large")
            return placement
        try:
            if self._is_damaged or not self._path.exists():  # else another process was faster
                findings = [corpus.findings() for corpus in self._corpora]
                with writing(self._path) as file:
                    write_opening(file, self._identity, {"placement": facts, "findings": findings}, arrays)
        except (StoreWriteError, OSError) as error:
            is_full = error.errno in FULL
            logger.log(
                logging.WARNING if is_full else logging.INFO, "the opening is not remembered: %s", error
            )
            return placement
        again = self._remembered()
        return placement if again is None else again[0]

    def _remembered(self) -> tuple[Placement, list[Any]] | None:
        """Return what is remembered, over a map of its file, and what the corpora had found."""
        if self._path is None:
            return None
        self._is_damaged = True
        try:
            descriptor = open_own(self._path)
            try:
                facts, arrays = read_opening(descriptor, self._identity)
            finally:
                os.close(descriptor)
            placement = placed_again(facts["placement"], arrays, self._stores, self._labels)
            return placement, list(facts["findings"])
        except FileNotFoundError:
            self._is_damaged = False
        except (NotBelievedError, OSError, KeyError, TypeError) as error:
            logger.info("the opening remembered in %s is not used: %s", self._path, error)
        return None


def _store_identity(store: Store) -> str:
    """Return a hash of what decides where sentences lie in a snapshot: its recipe and its shards."""
    digest = hashlib.blake2b(store.recipe.canonical, digest_size=16)
    for shard in store.manifest.shards:
        digest.update(canonical_json(shard.to_dict()))
    return digest.hexdigest()


@functools.cache
def _code() -> str:
    """Return a hash of the code that finds and keeps."""
    return hash_of_sources(Path(__file__).parent, Path(label_sets.__file__))
