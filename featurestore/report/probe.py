"""What a label can be read off the vectors by a linear map: which layer to use for a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import Example, MissingLabel
from featurestore.errors import DamagedStoreError, LabelError
from featurestore.keys import sentence_key
from featurestore.store.store import Store

_MOST_TRAINED, _MOST_TESTED = 6_000, 3_000
"""Tokens at most; sentences where labels are those of sentences."""

_RIDGE = 1e-2
"""The penalty, as a share of the dimensions' mean variance."""


@dataclass(frozen=True)
class LayerScore:
    """How many labels a linear map of a layer gets right; ``margin`` is twice the standard error."""

    name: str
    accuracy: float
    margin: float


@dataclass
class Probe:
    """A label of a corpus, read off the vectors.

    Attributes
    ----------
    label : str
    of : {"token", "sentence"}
    n_trained, n_tested : int
        Tokens or sentences that the map was fitted on and scored on; no sentence is in both.
    n_labels : int
    majority : float
        Accuracy of always guessing the most frequent label.
    scores : list of LayerScore
        One for each layer, and one for the layers' average where there are several.
    n_missing : int
        Sentences of the corpus that are not stored, and left out.
    """

    label: str
    of: str
    n_trained: int
    n_tested: int
    n_labels: int
    majority: float
    scores: list[LayerScore] = field(default_factory=list)
    n_missing: int = 0


@dataclass
class Labelled:
    """Vectors with labels: (n, n_layers, dim), and for each vector the number of its sentence."""

    vectors: NDArray[np.float32]
    labels: list[str]
    sentences: NDArray[np.int64]
    words: list[str]
    of: str
    n_missing: int


def labelled(store: Store, examples: Iterable[Example], label: str, *, seed: int = 0) -> Labelled:
    """Read the vectors of a labelled corpus: a sample of its tokens, or sentences as means of theirs.

    Raises
    ------
    LabelError
        If no stored sentence of the corpus has a label.
    """
    chance = np.random.default_rng(seed)
    vectors: list[NDArray[np.float32]] = []
    labels: list[str] = []
    sentences: list[int] = []
    words: list[str] = []
    of, n_missing, wanted = "token", 0, _MOST_TRAINED + _MOST_TESTED
    kept = list(examples)
    chance.shuffle(kept)
    for number, example in enumerate(kept):
        if len(labels) >= wanted:
            break
        if example.labels is None:
            continue
        place = store.locate([sentence_key(example.tokens)])
        if not place.found[0]:
            n_missing += 1
            continue
        try:
            found = store.reader(int(place.shard[0])).read(int(place.row[0]))
        except DamagedStoreError:
            continue
        layers = found.reshape(len(found), store.n_layers, store.dim)
        if isinstance(example.labels, str):
            of = "sentence"
            vectors.append(layers.mean(axis=0, keepdims=True, dtype=np.float32))
            labels.append(example.labels)
            words.append(" ".join(example.tokens))
            sentences.append(number)
            continue
        at = [i for i, one in enumerate(example.labels) if not isinstance(one, MissingLabel)]
        vectors.append(layers[at])
        labels += [str(example.labels[i]) for i in at]
        words += [example.tokens[i] for i in at]
        sentences += [number] * len(at)
    if not labels:
        raise LabelError(
            f"no stored sentence of the corpus has a label {label!r}: give a labelled corpus that "
            "was extracted "
            f"into this store ({n_missing:,} sentences tried are not stored)"
        )
    return Labelled(np.concatenate(vectors), labels, np.array(sentences), words, of, n_missing)


def probe(data: Labelled, label: str) -> Probe | None:
    """Fit a ridge regression to each layer, score it on other sentences; None of one label or sentence."""
    names = [name for name, _ in Counter(data.labels).most_common()]
    numbers = np.array([names.index(one) for one in data.labels])
    numbered = np.unique(data.sentences)
    tested = np.isin(data.sentences, numbered[::3])
    if len(names) < 2 or tested.all() or not tested.any():
        return None
    train, test = np.flatnonzero(~tested)[:_MOST_TRAINED], np.flatnonzero(tested)[:_MOST_TESTED]
    commonest = int(np.bincount(numbers[train], minlength=len(names)).argmax())
    found = Probe(
        label, data.of, len(train), len(test), len(names), float((numbers[test] == commonest).mean()),
        n_missing=data.n_missing,
    )  # fmt: skip
    n_layers = data.vectors.shape[1]
    layers = [
        (f"layer {i}" if n_layers > 1 else "the stored vectors", data.vectors[:, i]) for i in range(n_layers)
    ]
    if n_layers > 1:
        layers.append(("average of the layers", data.vectors.mean(axis=1)))
    for name, vectors in layers:
        right = ridge(vectors[train], numbers[train], vectors[test], len(names)) == numbers[test]
        accuracy = float(right.mean())
        margin = 2 * float(np.sqrt(accuracy * (1 - accuracy) / len(test)))
        found.scores.append(LayerScore(name, accuracy, margin))
    return found


def ridge(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], n_labels: int
) -> NDArray[np.int64]:
    """Return the label that a ridge regression onto one-hot labels predicts for each test vector."""
    mean = train.mean(axis=0, dtype=np.float64)
    x = train - mean
    scale = x.std(axis=0)
    x /= np.where(scale > 0, scale, 1)
    wanted = np.eye(n_labels)[labels]
    wanted -= wanted.mean(axis=0)
    shares = np.bincount(labels, minlength=n_labels) / len(labels)
    product = x.T @ x
    product[np.diag_indices_from(product)] += _RIDGE * len(x)
    weights = np.linalg.solve(product, x.T @ wanted)
    predicted: NDArray[np.int64] = np.argmax(
        (test - mean) / np.where(scale > 0, scale, 1) @ weights + shares, axis=1
    )
    return predicted
