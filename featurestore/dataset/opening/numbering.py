"""The labels of a dataset's examples as numbers: collected example by example, then looked up."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from featurestore.corpora.contract.example import IGNORED, Example, MissingLabel
from featurestore.dataset.labels import PADDING_LABEL, LabelSet, require_names
from featurestore.errors import LabelError

LabelKind = Literal["token", "sentence"]


@dataclass(frozen=True)
class NumberedLabels:
    """The labels of examples.

    Attributes
    ----------
    kind : {"token", "sentence"} or None
        None if the examples have no labels.
    labels : LabelSet
    names : tuple of str
        By number: ``labels.names``, then unseen ones that were kept.
    occurrences : tuple of int
        Of each name.
    numbers : (n_labels,) int8, int16 or int32
        Of one example after the other; -100 for a token whose label is missing and ignored.
    edges : (n_examples + 1,) int64
        Where the labels of each example's tokens begin, and the last ones end; empty unless there is a label
        for each token.
    """

    kind: LabelKind | None
    labels: LabelSet
    names: tuple[str, ...]
    occurrences: tuple[int, ...]
    numbers: NDArray[np.signedinteger[Any]]
    edges: NDArray[np.int64]

    def counts(self) -> dict[str, int]:
        """Return the number of occurrences of each label, in the order of their numbers."""
        return dict(zip(self.names, self.occurrences, strict=True))

    def digest(self) -> str:
        """Return a hash of every label and its name."""
        found = xxhash.xxh3_64(repr((self.kind, self.names, str(self.numbers.dtype))).encode())
        for numbers in (self.numbers, self.edges):
            found.update(np.ascontiguousarray(numbers).view(np.uint8).data)
        return found.hexdigest()

    def of_one(self, position: int) -> Tensor | None:
        """Return a copy of an example's labels: (n_tokens,) or () int64, or None."""
        if self.kind is None:
            return None
        if self.kind == "sentence":
            return torch.tensor(int(self.numbers[position]))
        start, stop = int(self.edges[position]), int(self.edges[position + 1])
        return torch.from_numpy(self.numbers[start:stop].astype(np.int64))

    def of_batch(self, at: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        """Return a batch's labels: (batch,), or (batch, longest) with -100 where the mask is false."""
        if self.kind is None:
            return None
        if self.kind == "sentence":
            return self.numbers[at].astype(np.int64)
        # The labels of whoever follows are read for the padding, and then overwritten.
        beyond = self.edges[at][:, None] + np.arange(mask.shape[1])
        found: NDArray[np.int64] = self.numbers.take(beyond, mode="clip").astype(np.int64)
        found[~mask] = PADDING_LABEL
        return found


def narrowest(n_names: int) -> np.dtype[Any]:
    """Return the smallest integer type that holds the numbers of ``n_names`` labels."""
    return np.min_scalar_type(-max(n_names, -PADDING_LABEL) - 1)


class LabelNumbering:
    """Numbers labels, example after example.

    Parameters
    ----------
    known : LabelSet, optional
        Numbered as they are there; by default the labels that are met, sorted.
    keep_unseen : bool
        Number labels that are not known behind those that are, instead of refusing them.

    Attributes
    ----------
    kind : {"token", "sentence"} or None
        Of the examples so far.
    """

    def __init__(self, known: LabelSet | None, *, keep_unseen: bool) -> None:
        self.kind: LabelKind | None = None
        self._known, self._keep_unseen = known, keep_unseen
        self._ids: dict[str | MissingLabel, int] = {IGNORED: PADDING_LABEL}
        self._ids.update((name, i) for i, name in enumerate(() if known is None else known.names))
        self._numbers, self._edges = array("i"), array("q", [0])

    def add(self, example: Example) -> None:
        """Add the labels of the next example.

        Raises
        ------
        LabelError
            If they are no labels, of another kind than those before, not one a token, or not known.
        """
        labels, kind = example.labels, _kind_of(example)
        if len(self._edges) == 1:
            self.kind = kind
        if kind != self.kind:
            raise _refused(
                example, f"has {_kind_text(kind)}, but the examples before it have {_kind_text(self.kind)}"
            )
        if labels is not None:
            mine = (labels,) if isinstance(labels, str) else labels
            if kind == "token" and len(mine) != len(example.tokens):
                raise _refused(example, f"has {len(mine)} labels for {len(example.tokens)} tokens")
            try:
                met = all(map(self._ids.__contains__, mine))
            except TypeError:  # unhashable, so not a label
                met = False
            if not met:
                self._meet(example, mine)
            self._numbers.extend(map(self._ids.__getitem__, mine))
        self._edges.append(len(self._numbers))

    def finished(self) -> NumberedLabels:
        """Return the labels of all examples."""
        names = tuple(name for name in self._ids if name is not IGNORED)
        numbers = np.frombuffer(self._numbers, np.intc) if self._numbers else np.empty(0, np.intc)
        labels, order = self._known, list(range(len(names)))
        if labels is None:
            # In alphabetical order, so that numbers do not depend on the order of the corpus.
            order.sort(key=names.__getitem__)
            names = tuple(names[number] for number in order)
            labels = LabelSet(names)
        # By the number when it was met, from -1 for what has none.
        new_number = np.full(len(order) + 1, PADDING_LABEL, narrowest(len(order)))
        new_number[np.array(order, np.intp) + 1] = np.arange(len(order))
        found = np.maximum(numbers, -1) + 1
        counts = np.bincount(found, minlength=len(order) + 1)[1:]
        occurrences = tuple(counts[order].tolist())
        edges = np.array(self._edges if self.kind == "token" else (), np.int64)
        return NumberedLabels(self.kind, labels, names, occurrences, new_number[found], edges)

    def _meet(self, example: Example, labels: tuple[str | MissingLabel, ...]) -> None:
        """Number the labels that are new."""
        names = [label for label in labels if label is not IGNORED]
        try:
            require_names(names)
        except LabelError as error:
            raise _refused(example, str(error), of_label=True) from None
        for name in names:
            if name not in self._ids and self._known is not None and not self._keep_unseen:
                known = ", ".join(self._known.names[:20]) or "none"
                raise _refused(example, f"has the label {name!r}, which is not one of {known}")
            self._ids.setdefault(name, len(self._ids) - 1)


def _kind_of(example: Example) -> LabelKind | None:
    labels: Any = example.labels
    if labels is None:
        return None
    if isinstance(labels, str):
        return "sentence"
    if isinstance(labels, (tuple, list)):
        return "token"
    raise _refused(
        example,
        f"label {' '.join(repr(labels).split()):.40} is of type {type(labels).__name__}, expected a str for "
        "the sentence, or a tuple with a str for each token",
        of_label=True,
    )


def _kind_text(kind: LabelKind | None) -> str:
    return {"token": "a label for each token", "sentence": "a label for the sentence", None: "no labels"}[
        kind
    ]


def _refused(example: Example, what: str, *, of_label: bool = False) -> LabelError:
    """Return the error for the labels of an example; ``what`` is said of it, or of one of its labels."""
    if example.path:
        subject = "" if of_label else "the sentence "
        return LabelError(f"{subject}{what}", **example.where)
    more = " ..." if len(example.tokens) > 8 else ""
    place = f"{example.place} ({' '.join(example.tokens[:8])}{more})"
    return LabelError(f"{place}: {what}" if of_label else f"{place} {what}")
