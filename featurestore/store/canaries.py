"""Canaries: a few sentences whose vectors a store keeps, to notice when its encoder computes different ones.

A recipe names everything that a user decides. It cannot name what a library, a driver or a processor makes of
the arithmetic, so the same recipe may give different vectors elsewhere or next year. Whoever is about to add
an encoder's vectors has it encode the canaries first (:func:`require_canaries`); if the result differs from
what is stored by more than a tolerance, nothing is added. On disk the canaries are one more shard, float32
whatever the store's codec, from which no sentence is served.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.disk.filesystem import FileSystem
from featurestore.errors import DriftError, EncoderError, EncoderRuleError, SentenceError
from featurestore.families import Encodes, versions_for
from featurestore.keys import Sentence
from featurestore.recipe import Recipe
from featurestore.store.format.codec import Floats, get_codec
from featurestore.store.format.directory import CANARIES, TMP, publish
from featurestore.store.format.layout import ALIGNMENT, CanaryEntry
from featurestore.store.format.manifest import commit_note
from featurestore.store.format.reader import ShardReader
from featurestore.store.format.shard import ShardDraft, place
from featurestore.store.locks import committing
from featurestore.store.snapshot import AnySnapshot, Snapshot
from featurestore.vectors import (
    encoded,
    exceeds,
    layers_and_dim,
    relative_l2,
    require_same,
    tolerance_of,
)

logger = logging.getLogger(__name__)

_RARE = "Ångström ﬁ naïve Ωμέγα 漢字 ١٢٣ x² 😀 Rinderkennzeichnungsüberwachungsaufgabenübertragung"
_LONG = (
    "A miner who took two small yellow birds along into the dark went on working as long as he heard them , "
    "for he knew that they would fall silent before he could have noticed anything ."
)
SENTENCES: tuple[Sentence, ...] = (
    ("Canaries", "sing", "."), tuple(_RARE.split()), tuple(_LONG.split()),
)  # fmt: skip
"""Canaries of new stores; older stores keep theirs. A short sentence, one with rare characters and a word
longer than ELMo reads, and a long one."""


@dataclass(frozen=True)
class Canaries:
    """Sentences, and the vectors that an encoder computed for them.

    Attributes
    ----------
    sentences : tuple of Sentence
    vectors : tuple of (n_tokens, dim) or (n_tokens, n_layers, dim) float32
    tolerance : float
        Relative L2 by which each may differ when it is encoded again.
    made_with : str
    """

    sentences: tuple[Sentence, ...]
    vectors: tuple[Floats, ...]
    tolerance: float
    made_with: str = ""

    def put(self, store: Path, recipe: Recipe, filesystem: FileSystem) -> CanaryEntry:
        """Write them into a store's directory and return their entry for its manifest."""
        n_layers, dim = layers_and_dim(self.vectors[0].shape)
        draft = ShardDraft(self.sentences, dim=dim, n_layers=n_layers, codec=get_codec("float32"))
        for position, vectors in enumerate(self.vectors):
            draft.put(position, vectors)
        sealed = draft.seal(recipe.fingerprint)
        filesystem.make_directory(store / CANARIES)
        filesystem.make_directory(store / TMP, lasting=False)
        place(store, sealed.entry, [sealed.head, sealed.values], filesystem, directory=CANARIES)
        return CanaryEntry(sealed.entry, self.tolerance, self.made_with)

    def require(self, again: Sequence[NDArray[np.floating]], what: str, where: str, remedy: str) -> None:
        """Raise DriftError unless vectors of the same sentences equal these within the tolerance.

        Parameters
        ----------
        again : sequence of arrays
            The vectors to compare, in the order of the sentences.
        what, where : str
            For the message: what computed ``again``, and what keeps these.
        remedy : str
        """
        errors = [relative_l2(now, stored) for now, stored in zip(again, self.vectors, strict=True)]
        if not any(exceeds(error, self.tolerance) for error in errors):
            return
        worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
        tokens = self.sentences[worst]
        raise DriftError(
            f"{what} computes different vectors than {where} holds, by the same recipe: the canary sentence "
            f"{' '.join(tokens[:6])!r} differs by a relative L2 of {errors[worst]:.3g}, "
            f"expected at most {self.tolerance:.3g}. Nothing was written.\n{remedy}",
            tokens=tokens,
            difference=errors[worst],
        )


def canary_bytes(dim: int, n_layers: int) -> int:
    """Return about how many bytes the canaries of a new store take."""
    return sum(map(len, SENTENCES)) * dim * n_layers * 4 + 2 * ALIGNMENT


def make_canaries(encoder: Encodes) -> Canaries | None:
    """Have an encoder encode the sentences, each alone, then all in one batch, which must agree.

    Returns
    -------
    Canaries or None
        Without the sentences that it cannot encode; None if it can encode none of them.

    Raises
    ------
    EncoderRuleError
        If its arrays have another type or shape than it says, or differ in a batch.
    """
    kept: dict[Sentence, Floats] = {}
    room = limits.MAX_CANARY_BYTES - 2 * ALIGNMENT  # the head takes less than these two
    for tokens in SENTENCES:
        try:
            [array] = encoded(encoder, [tokens])
        except EncoderRuleError:
            raise
        except (EncoderError, SentenceError) as error:
            logger.info("%s cannot encode the canary %r: %s", encoder.spec, tokens, error)
            continue
        if np.isfinite(array).all() and array.nbytes <= room:
            kept[tokens] = array
            room -= array.nbytes
    if not kept:
        logger.warning("%s encodes none of the canary sentences: drift will not be noticed", encoder.spec)
        return None
    made = Canaries(tuple(kept), tuple(kept.values()), tolerance_of(encoder.recipe), _made_with(encoder))
    # Not sorted by length, so that an encoder that sorts a batch and returns it so is noticed.
    order = [*range(1, len(kept)), 0]
    again = encoded(encoder, [made.sentences[i] for i in order])
    require_same(
        encoder.spec,
        [made.sentences[i] for i in order],
        again,
        [made.vectors[i] for i in order],
        made.tolerance,
    )
    return made


def read_canaries(store: Snapshot) -> Canaries | None:
    """Return a store's canaries, None if it has none.

    Raises
    ------
    DamagedStoreError
        If their bytes are not what was committed.
    """
    entry = store.manifest.canaries
    if entry is None:
        return None
    reader = ShardReader(
        store.location / CANARIES / entry.name,
        entry.shard,
        access="pread",
        check="always",
        filesystem=store.filesystem,
    )
    rows = range(len(reader))
    return Canaries(
        tuple(map(reader.tokens, rows)), tuple(map(reader.read, rows)), entry.tolerance, entry.made_with
    )


def require_canaries(store: AnySnapshot, encoder: Encodes) -> AnySnapshot:
    """Compare an encoder's vectors of the canaries with those stored, before its store is added to.

    A store without canaries gets this encoder's; that says nothing of what was stored before.

    Parameters
    ----------
    store : Snapshot
    encoder : Encodes
        Of the store's recipe.

    Returns
    -------
    Snapshot
        The same, or its next snapshot, which has canaries.

    Raises
    ------
    DriftError
        If they differ by more than the tolerance. Nothing was written.
    DamagedStoreError
        If the canaries' bytes are not what was committed.
    EncoderError
        If the encoder cannot encode a canary.
    StoreWriteError
        If canaries have to be added, and the disk is full or read-only.
    """
    made = make_canaries(encoder) if store.manifest.canaries is None else None
    if made is not None:
        store = _with_canaries(store, made)
    stored = read_canaries(store)
    if stored is not None:
        known = dict(zip(made.sentences, made.vectors, strict=True)) if made is not None else {}
        remedy = (
            "A library, driver, processor or setting computes differently here: go back to what made the "
            "store, or extract into a new one. `featurestore verify --encode 20` compares the vectors stored "
            "with those computed here"
        )
        if not len(store):
            # Not replaced here: another process may be about to store vectors of the first encoder.
            remedy += ". The store holds no sentence yet: if the encoder was mended since, delete it"
        stored.require(
            [known[t] if t in known else encoded(encoder, [t])[0] for t in stored.sentences],
            encoder.spec or "the encoder",
            f"store {store.path}",
            f"It was made with {stored.made_with or 'unknown software'}; this is {_made_with(encoder)}. "
            f"{remedy}",
        )
    return store


def require_same_canaries(one: Snapshot, other: Snapshot) -> None:
    """Raise DriftError if the vectors of two stores of one recipe, where both have canaries, differ."""
    ours, theirs = read_canaries(one), read_canaries(other)
    if ours is None or theirs is None:
        return
    known = dict(zip(theirs.sentences, theirs.vectors, strict=True))
    shared = [i for i, tokens in enumerate(ours.sentences) if tokens in known]
    if shared:
        replace(
            ours,
            sentences=tuple(ours.sentences[i] for i in shared),
            vectors=tuple(ours.vectors[i] for i in shared),
        ).require(
            [known[ours.sentences[i]] for i in shared],
            f"what filled store {other.path} ({theirs.made_with})",
            f"store {one.path} ({ours.made_with})",
            "Their vectors must not be mixed: keep the stores apart, or extract one of them again",
        )


def _with_canaries(store: AnySnapshot, canaries: Canaries) -> AnySnapshot:
    """Publish canaries, unless another process does first; return the store with the ones published."""
    with committing(store.location):
        latest, entry = store.refreshed(), None
        while latest.manifest.canaries is None:
            if entry is None:
                entry = canaries.put(store.location, store.recipe, store.filesystem)
            last = latest.manifest
            following = replace(last, number=last.number + 1, canaries=entry, commit=commit_note(last.commit))
            published = publish(store.location, following, store.filesystem)
            if published is not None and len(latest):
                logger.warning(
                    "store %s had no canaries and has some now: what was stored before was not compared with "
                    "what the encoder computes here; `featurestore verify %s --encode 20` compares it",
                    store.path,
                    store.path,
                )
            latest = latest.refreshed()
    return latest


def _made_with(encoder: Encodes) -> str:
    # Imported here: it takes longer than all else that opening a store needs.
    from importlib.metadata import PackageNotFoundError, version

    versions = []
    for package in versions_for(encoder.recipe):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} of unknown version")
    return ", ".join((*versions, f"on {encoder.device}"))
