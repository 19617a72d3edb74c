"""Vectors from a store, opened when the first one is needed, and what is done about missing ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.dataset.gathering.buffers import BufferPool
from featurestore.dataset.gathering.gather import Gatherer
from featurestore.encoders.base import Encoder
from featurestore.encoders.loading import require_no_code
from featurestore.errors import (
    MissingSentence,
    MissingSentencesError,
    NotAStoreError,
    SentenceError,
    UsageError,
)
from featurestore.families import family_of_recipe
from featurestore.integrations.layers import LayerChoice
from featurestore.integrations.read_through import ReadThrough
from featurestore.keys import Sentence, require_sentence, sentence_key
from featurestore.recipe import Recipe
from featurestore.store.missing import depends_on, how_to_add
from featurestore.store.pending import commit_pending
from featurestore.store.store import Store

logger = logging.getLogger(__name__)

MissPolicy = Literal["error", "compute", "zeros"]

_MOST_KNOWN_KEYS = 1 << 16
"""Upper bound on keys remembered, 20 MB of ordinary sentences: hashing costs as much as reading vectors."""

_LONGEST_KNOWN = 256
"""Keys of longer sentences are not remembered."""

Computed = Mapping[bytes, NDArray[np.floating]]


_NOWHERE = -1, -1


class _View:
    """An open store, its gatherer, and the places found in it: replaced together when the store has grown."""

    def __init__(self, store: Store) -> None:
        self.store, self.gatherer = store, Gatherer(store)
        self._known: dict[bytes, tuple[int, int]] = {}

    def locate(self, wanted: Sequence[bytes]) -> list[tuple[int, int]]:
        """Return the shard and row of each key, -1 and -1 where there is none.

        For a small batch the index costs as much as decoding, so places are remembered.

        Raises
        ------
        DamagedStoreError
            If the index points to the wrong sentence.
        """
        known = self._known
        places = [known.get(key, _NOWHERE) for key in wanted]
        new = [at for at, place in enumerate(places) if place is _NOWHERE]
        if new:
            asked = self.store.locate([wanted[at] for at in new])
            if len(known) >= _MOST_KNOWN_KEYS:
                known.clear()
            for at, shard, row in zip(new, asked.shard.tolist(), asked.row.tolist(), strict=True):
                if shard >= 0:
                    self.store.reader_of(shard, row, wanted[at])
                    places[at] = known[wanted[at]] = (shard, row)
        return places


class StoredVectors:
    """A store as a source of one vector per token.

    It can be pickled, and used after ``fork``: neither the open store nor a model goes along. It follows the
    store: sentences that anyone commits are found as soon as they are asked for.

    Parameters
    ----------
    path : str or Path
        Of the store, which need not be there yet.
    recipe : Recipe
        What the store must hold.
    choice : LayerChoice
    on_missing : {"error", "compute", "zeros"}
    fallback : Encoder or str, optional
        What computes with ``compute``; by default the encoder that the store names, unless it is one of
        Flair's, whose files may hold code.

    Attributes
    ----------
    n_served, n_missing : int
        Sentences asked for, and how many of them were not in the store when they were; with ``compute``, how
        many were computed: one that waits to be committed counts once.

    Raises
    ------
    RecipeMismatchError
        If the fallback has another recipe.
    """

    def __init__(
        self,
        path: str | Path,
        recipe: Recipe,
        choice: LayerChoice,
        *,
        on_missing: MissPolicy = "error",
        fallback: Encoder | str | None = None,
    ) -> None:
        if on_missing not in get_args(MissPolicy):
            raise UsageError(f"on_missing is {on_missing!r}, expected {', '.join(get_args(MissPolicy))}")
        if fallback is not None and on_missing != "compute":
            raise UsageError(
                f"a fallback computes what is missing, but on_missing is {on_missing!r}: expected 'compute'"
            )
        # Absolute, so that a worker or a later session in another directory finds it.
        self.path = Path(path).absolute()
        self.recipe, self.choice, self.on_missing = recipe, choice, on_missing
        self.n_served = self.n_missing = 0
        self._read_through = None if fallback is None else ReadThrough(fallback, recipe)
        self._close()

    @classmethod
    def of(
        cls, store: Store, layers: str, *, on_missing: MissPolicy, fallback: Encoder | str | None = None
    ) -> StoredVectors:
        """Return the vectors of an open store."""
        choice = LayerChoice.of(layers, store.recipe, dim=store.dim, n_layers=store.n_layers)
        source = cls(store.location, store.recipe, choice, on_missing=on_missing, fallback=fallback)
        if on_missing == "compute" and fallback is None:
            source._read_through = ReadThrough(_named_encoder(store), store.recipe, source.path)
        return source

    def _close(self) -> None:
        self._view: _View | None = None
        self._buffers = BufferPool()
        self._known_keys: dict[Sentence, bytes] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_view", "_buffers", "_known_keys", "_lock")
        return {name: value for name, value in self.__dict__.items() if name not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._close()

    def __repr__(self) -> str:
        shown = f"stored, {self.recipe.fingerprint[:12]}, {self.choice.length} dimensions"
        return shown + (f", {self.n_missing:,} of {self.n_served:,} missing" if self.n_missing else "")

    def open(self) -> Store:
        """Return the store, opened if it was not.

        Raises
        ------
        NotAStoreError
            If there is none.
        RecipeMismatchError
            If it holds vectors of another recipe.
        """
        return self._opened().store

    def rebind(self, store: Store) -> None:
        """Read another store of the same recipe from now on.

        Raises
        ------
        RecipeMismatchError
        """
        self._require_recipe(store)
        self.flush()
        self.path = store.location
        self._close()

    def flush(self) -> None:
        """Commit what was computed; see :meth:`ReadThrough.flush`."""
        if self._read_through is not None:
            with self._lock:
                self._read_through.flush()

    def vectors(self, sentences: Sequence[Sequence[str]], *, device: str = "auto") -> Tensor:
        """Return the vectors of a batch, sentence after sentence.

        Parameters
        ----------
        sentences : sequence of token sequences
            Each with its condition, where vectors depend on more than the tokens.
        device : str
            Where to load the encoder if one is needed.

        Returns
        -------
        (n_tokens, length) float32 on the CPU

        Raises
        ------
        SentenceError
            For an empty sentence or token.
        MissingSentencesError
            With ``on_missing="error"``, naming the first few and the command that adds them.
        NotAStoreError, RecipeMismatchError
            See :meth:`open`.
        DamagedStoreError
            If stored bytes are not those that were committed.
        """
        wanted = self._keys(sentences)
        view = self._opened()
        places = view.locate(wanted)
        computed: Computed = {}
        if _NOWHERE in places:
            # One thread at a time: the model, the buffer and the store's next snapshot are shared.
            with self._lock:
                if self._read_through is None:
                    commit_pending(self.path)  # another embedding of this process may have computed it
                view = self._refreshed()
                places = view.locate(wanted)
                missing = [at for at, place in enumerate(places) if place is _NOWHERE]
                if missing:
                    computed = self._do_without(missing, wanted, sentences, device)
        self.n_served += len(wanted)
        lengths = list(map(len, sentences))
        shards, rows = [shard for shard, _ in places], [row for _, row in places]
        out = self._buffers.empty(view.store.vector_shape(sum(lengths)), torch.float32)
        view.gatherer.gather_packed(out, lengths, shards, rows)
        if computed:
            starts = np.cumsum([0, *lengths]).tolist()
            for key, shard, start in zip(wanted, shards, starts, strict=False):
                if shard < 0 and key in computed:
                    vectors = torch.from_numpy(computed[key])
                    out[start : start + len(vectors)].copy_(vectors)
        return self.choice.applied(out)

    def to_params(self) -> dict[str, Any]:
        """Return plain values from which :meth:`from_params` makes an equal source."""
        return {
            "kind": "stored",
            "path": str(self.path),
            "recipe": self.recipe.to_dict(),
            "dim": self.choice.dim,
            "n_layers": self.choice.n_layers,
            "layers": self.choice.text,
            "on_missing": self.on_missing,
            "fallback": self._read_through.spec if self._read_through else None,
        }

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> StoredVectors:
        """Return a source that has opened nothing yet."""
        recipe = Recipe(params["recipe"])
        choice = LayerChoice.of(params["layers"], recipe, dim=params["dim"], n_layers=params["n_layers"])
        return cls(
            params["path"],
            recipe,
            choice,
            on_missing=params["on_missing"],
            fallback=params["fallback"],
        )

    def _keys(self, sentences: Sequence[Sequence[str]]) -> list[bytes]:
        """Return the key of each sentence; training asks for the same ones in every epoch.

        A sentence with a condition is its own dictionary key, as it is and as it compares: with it.
        """
        known, found = self._known_keys, []
        for at, sentence in enumerate(sentences):
            tokens = sentence if isinstance(sentence, tuple) else tuple(sentence)
            key = known.get(tokens)
            if key is None:
                try:
                    key = sentence_key(tokens)
                except SentenceError as error:
                    raise SentenceError(
                        f"sentence {at} of {len(sentences)} in the batch: {error} "
                        "(in Flair: corpus.filter_empty_sentences())"
                    ) from error
                if len(known) >= _MOST_KNOWN_KEYS:
                    known.clear()
                if len(tokens) <= _LONGEST_KNOWN:
                    known[tokens] = key
            found.append(key)
        return found

    def _require_recipe(self, store: Store) -> None:
        store.recipe.require_equal(
            self.recipe,
            where=f"store {store.path}",
            remedy="The model was trained on vectors of the recipe asked for: bind it to a store of that "
            "recipe, or train it again.",
        )

    def _opened(self) -> _View:
        view = self._view
        if view is None:
            try:
                view = self._taken(Store.open(self.path))
            except NotAStoreError as error:
                raise NotAStoreError(
                    f"{error}\nAn embedding reads the store of fingerprint {self.recipe.fingerprint[:12]}. "
                    "If it has moved: featurestore.integrations.flair.bind(model, 'WHERE/IT/IS'); to do "
                    "without: to_live(model, ENCODER)"
                ) from error
        return view

    def _refreshed(self) -> _View:
        """Return the store with what anyone has added since it was opened."""
        view = self._opened()
        latest = view.store.refreshed()
        return view if latest is view.store else self._taken(latest)

    def _taken(self, store: Store) -> _View:
        self._require_recipe(store)
        self._view = view = _View(store)
        return view

    def _do_without(
        self, missing: list[int], wanted: list[bytes], sentences: Sequence[Sequence[str]], device: str
    ) -> Computed:
        """Raise, compute or give zeros, as ``on_missing`` says; return the vectors computed, by key."""
        first = self.n_missing == 0
        if self._read_through is None:
            self.n_missing += len(missing)
        else:
            self.n_missing += len({wanted[at] for at in missing}.difference(self._read_through.waiting))
        shown = "".join(f"\n  {' '.join(sentences[i][:12])}" for i in missing[:3])
        found_out = f"{len(missing):,} of {len(wanted):,} sentences of a batch are not in {self.path}"
        if self.on_missing == "error":
            # The encoder that a store names is not loaded for it where that may run code.
            fallback = ", fallback=ENCODER" if family_of_recipe(self.recipe).runs_code else ""
            raise MissingSentencesError(
                f"{found_out}; the first:{shown}\n{self._how_to_add()} "
                f"Or compute them when they are needed, on_missing='compute'{fallback}, or give them zeros: "
                "on_missing='zeros'",
                sentences=[MissingSentence(tuple(sentences[at]), wanted[at]) for at in missing],
                n_missing=len(missing),
                n_wanted=len(wanted),
                store=self.path,
            )
        if first:
            done = "computed and added" if self.on_missing == "compute" else "given zeros"
            logger.warning(
                "%s and are %s; further ones are counted in n_missing. The first:%s", found_out, done, shown
            )
        if self.on_missing == "zeros" or self._read_through is None:
            return {}
        return self._read_through.vectors(
            self.path,
            [wanted[i] for i in missing],
            [require_sentence(sentences[i]) for i in missing],
            device=device,
        )

    def _how_to_add(self) -> str:
        others = depends_on(self.recipe)
        if others:
            return (
                f"Their vectors depend on more than the tokens ({', '.join(others)}), and all of it must "
                "be as it was when they were extracted. Add them: "
                "extract(from_flair(corpus, encoder_or_dependence=encoder), encoder, STORE)\n"
                "If they were added: predict, and with it the evaluation in training, links sentences "
                "without a context to others of the batch; set_context(corpus) before extraction and "
                "training says what their context is."
            )
        return (
            f"{how_to_add(self.recipe, self.path)}\n"
            "The tokens must be those of training: Flair's Sentence('text') tokenises and drops "
            "zero-width characters, Sentence([tokens]) does not."
        )


def _named_encoder(store: Store) -> str:
    if not store.encoder:
        raise UsageError(
            f"the store {store.path} does not name its encoder: give one with fallback=, or use "
            "on_missing='error'"
        )
    require_no_code(store.encoder, store.path)
    return store.encoder
