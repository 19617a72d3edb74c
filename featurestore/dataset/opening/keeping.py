"""A placement as values and arrays that can be kept, and back, every number checked against its store."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.dataset.labels import PADDING_LABEL, LabelSet
from featurestore.dataset.opening.numbering import NumberedLabels, narrowest
from featurestore.dataset.opening.openingfile import Array, NotBelievedError
from featurestore.dataset.opening.placing import Placement, Places
from featurestore.errors import LabelError, UsageError
from featurestore.keys import Sentence, condition_of, sentence_with
from featurestore.store.store import Store

_STEP = 1 << 14
"""Numbers checked at a time: few enough to stay in the processor's cache."""


def kept(placement: Placement) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a placement as values of JSON and arrays."""
    labels, zeros = placement.labels, placement.zeros
    texts = [json.dumps([*tokens, condition_of(tokens).hex()]).encode() for tokens in zeros.values()]
    facts = {
        "kind": labels.kind,
        "names": labels.names,
        "occurrences": labels.occurrences,
        "n_missing": placement.n_missing,
        "n_missing_in": placement.n_missing_in,
        "teller": placement.teller,
    }
    arrays: dict[str, Array] = {
        "lengths": placement.lengths,
        "document_starts": placement.document_starts,
        "edges": labels.edges,
        "zeros_at": np.array(list(zeros), np.int64),
        "zeros_ends": np.cumsum([len(text) for text in texts], dtype=np.int64),
        "zeros_texts": np.frombuffer(b"".join(texts), np.uint8),
        "numbers": labels.numbers,
    }
    for number, places in enumerate(placement.places):
        arrays[f"shard_{number}"], arrays[f"row_{number}"] = places
    return facts, arrays


def placed_again(
    facts: Mapping[str, Any], arrays: Mapping[str, Array], stores: Sequence[Store], known: LabelSet | None
) -> Placement:
    """Return the placement that was :func:`kept`.

    Parameters
    ----------
    facts, arrays
        From a file that may hold anything.
    stores : sequence of Store
        In which every place must be one.
    known : LabelSet, optional
        The labels that were given.

    Raises
    ------
    NotBelievedError
        If they are no placement in these stores.
    """
    try:
        zeros = KeptSentences(arrays["zeros_at"], arrays["zeros_ends"], arrays["zeros_texts"])
        placement = _placement(facts, arrays, zeros, len(stores), known)
    except (KeyError, TypeError, ValueError, LabelError, UsageError) as error:
        raise NotBelievedError(f"it holds no placement ({error})") from error
    _require_counts(placement)
    lengths = placement.lengths
    has_labels = {None: 0, "sentence": len(lengths), "token": len(placement.labels.numbers)}
    _require("labels", len(placement.labels.numbers) == has_labels[placement.labels.kind])
    edges = placement.labels.edges
    _require("edges", len(edges) == (len(lengths) + 1 if placement.labels.kind == "token" else 0))
    if len(edges):
        _require("edges", edges[0] == 0 and edges[-1] == len(placement.labels.numbers))
    for piece in _pieces(len(lengths)):
        here = lengths[piece]
        _require("lengths", here.min() >= 1 and here.max() <= limits.MAX_SENTENCE_TOKENS)
        if len(edges):
            _require("edges", np.array_equal(np.diff(edges[piece.start : piece.stop + 1]), here))
    for piece in _pieces(len(placement.labels.numbers)):
        numbers = placement.labels.numbers[piece]
        _require("labels", numbers.max() < len(placement.labels.names))
        _require("labels", numbers.min() >= 0 or bool((numbers[numbers < 0] == PADDING_LABEL).all()))
    for places, store in zip(placement.places, stores, strict=True):
        _require_places(places, store, len(lengths))
    _require_zeros(zeros, placement)
    return placement


def _placement(
    facts: Mapping[str, Any],
    arrays: Mapping[str, Array],
    zeros: KeptSentences,
    n_stores: int,
    known: LabelSet | None,
) -> Placement:
    names, occurrences = tuple(facts["names"]), tuple(map(int, facts["occurrences"]))
    labels = LabelSet(names)  # which checks them
    if known is not None:
        _require("names", names[: len(known)] == known.names)
        labels = known
    kind = facts["kind"]
    _require("kind", kind in ("token", "sentence", None))
    numbers = arrays["numbers"]
    _require("labels", numbers.dtype == narrowest(len(names)))
    whole = {name: array for name, array in arrays.items() if name not in ("numbers", "zeros_texts")}
    _require("arrays", all(array.dtype == np.int64 for array in whole.values()))
    return Placement(
        places=tuple(Places(whole[f"shard_{i}"], whole[f"row_{i}"]) for i in range(n_stores)),
        lengths=whole["lengths"],
        labels=NumberedLabels(kind, labels, names, occurrences, numbers, whole["edges"]),
        n_missing=facts["n_missing"],
        n_missing_in=tuple(facts["n_missing_in"]),
        teller=facts["teller"],
        zeros=zeros,
        document_starts=whole["document_starts"],
    )


def _require_counts(placement: Placement) -> None:
    """Raise unless the counts can be those of the arrays."""
    counts = (placement.n_missing, placement.teller, *placement.n_missing_in, *placement.labels.occurrences)
    _require("counts", all(type(count) is int and count >= 0 for count in counts))
    _require("counts", len(placement.n_missing_in) == len(placement.places) > placement.teller)
    _require("counts", len(placement.labels.occurrences) == len(placement.labels.names))
    starts, n = placement.document_starts, len(placement.lengths)
    if len(starts):
        ascending = bool((np.diff(starts) > 0).all())
        _require("documents", starts[0] == 0 and starts[-1] < n and ascending)


def _require_places(places: Places, store: Store, n: int) -> None:
    """Raise unless every place is one of the store's, or -1."""
    shard, row = places
    sizes = np.append(store.manifest.shards.sizes.astype(np.int64), 0)
    _require("places", len(shard) == len(row) == n)
    for piece in _pieces(n):
        s, r = shard[piece], row[piece]
        _require("places", s.min() >= -1 and s.max() < len(sizes) - 1)
        # Without a shard the size is 0, and the row -1.
        _require("places", bool((r < sizes[s]).all()) and bool(((r >= 0) | (s < 0)).all()))
        _require("places", r.min() >= -1)


def _require_zeros(zeros: KeptSentences, placement: Placement) -> None:
    """Raise unless there are tokens for the examples without a place, and only for them."""
    shard = placement.places[placement.teller].shard
    without = [piece.start + np.flatnonzero(shard[piece] < 0) for piece in _pieces(len(shard))]
    _require("zeros", np.array_equal(zeros.at, np.concatenate([*without, np.empty(0, np.int64)])))
    _require("zeros", len(zeros.ends) == len(zeros.at))
    edges = np.concatenate([[0], zeros.ends, [len(zeros.texts)]])
    _require("zeros", bool((np.diff(edges) >= 0).all()) and edges[-2] == edges[-1])
    _require("zeros", zeros.texts.dtype == np.uint8)


def _pieces(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _STEP, n)) for start in range(0, n, _STEP))


def _require(what: str, holds: bool | np.bool_) -> None:
    if not holds:
        raise NotBelievedError(f"its {what} cannot be those of this store")


@dataclass(frozen=True)
class KeptSentences(Mapping[int, Sentence]):
    """Sentences by the positions of their examples, read when they are asked for.

    Parameters
    ----------
    at : (n,) int64
        The positions, ascending.
    ends : (n,) int64
        Where each sentence's text ends.
    texts : (n_bytes,) uint8
        Of each sentence a list in JSON: its tokens, then its condition in hexadecimal digits.
    """

    at: NDArray[np.int64]
    ends: NDArray[np.int64]
    texts: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.at)

    def __iter__(self) -> Iterator[int]:
        return iter(self.at.tolist())

    def __getitem__(self, position: int) -> Sentence:
        i = bisect.bisect_left(self.at, position)
        if i == len(self.at) or self.at[i] != position:
            raise KeyError(position)
        start = int(self.ends[i - 1]) if i else 0
        *tokens, condition = json.loads(self.texts[start : int(self.ends[i])].tobytes())
        return sentence_with(tokens, bytes.fromhex(condition))
