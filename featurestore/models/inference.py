"""Trained models at work: scores on a labelled corpus, labels for an unlabelled one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

import torch

from featurestore.corpora.contract.example import Example
from featurestore.corpora.given import CorpusLike, read_examples
from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.loader import feature_loader
from featurestore.dataset.stores import StoresLike, needs_dict, opened
from featurestore.devices import choose_device
from featurestore.errors import ModelError
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import Head
from featurestore.models.scoring import Scorer, Scores
from featurestore.models.spans import list_counts
from featurestore.store.store import Store

log = logging.getLogger(__name__)

TOKEN_BUDGET = 8192
"""Tokens in one batch, padding included, where nothing is learned."""

_CHUNK_SENTENCES = 4096
"""Sentences whose labels are held while they are put back into corpus order."""


def label_batches(
    head: Head,
    label_names: tuple[str, ...],
    dataset: FeatureDataset,
    *,
    device: torch.device,
    token_budget: int = TOKEN_BUDGET,
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield ``(position in the dataset, its labels)``, each sentence once, in the loader's order.

    A sentence label comes as a tuple of one. The head must be on the device; it is left in evaluation mode.
    """
    head.eval()
    with torch.inference_mode():
        for batch in feature_loader(dataset, token_budget=token_budget, shuffle=False, num_replicas=1):
            on_device = batch.to(device)
            decoded = head.decode(on_device.features, on_device.lengths, on_device.mask).cpu()
            rows = decoded.tolist() if decoded.dim() == 2 else decoded.unsqueeze(1).tolist()
            lengths = batch.lengths.tolist() if decoded.dim() == 2 else [1] * len(rows)
            for index, row, length in zip(batch.indices.tolist(), rows, lengths, strict=True):
                yield index, tuple(label_names[label] for label in row[:length])


def unknown_labels(label_names: tuple[str, ...], dataset: FeatureDataset) -> dict[str, int]:
    """Return the gold labels of a dataset that a model does not know, and how often each occurs."""
    return {name: n for name, n in dataset.label_counts.items() if n and name not in set(label_names)}


def require_common_labels(
    label_names: tuple[str, ...], dataset: FeatureDataset, *, corpus: str, trained_on: str
) -> None:
    """Refuse to score a model on labels of which it knows none.

    Parameters
    ----------
    label_names : tuple of str
        Of the model.
    dataset : FeatureDataset
        With gold labels.
    corpus, trained_on : str
        What the message calls the corpus, and what the model learned its labels from.

    Raises
    ------
    ModelError
        Naming labels of both.
    """
    unknown = unknown_labels(label_names, dataset)
    if unknown and len(unknown) == sum(n > 0 for n in dataset.label_counts.values()):
        raise ModelError(
            f"{corpus} has none of the labels of {trained_on}: it has {list_counts(unknown)} instead of "
            f"{list_counts(dict.fromkeys(label_names, 0))}. Name another label (--label), or take another "
            "model"
        )


def warn_of_unseen(label_names: tuple[str, ...], dataset: FeatureDataset) -> None:
    """Log one warning if a dataset has gold labels that a model does not know."""
    unseen = sorted(set(dataset.label_names) - set(label_names))
    if unseen:
        shown = ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        log.warning("labels that are not in the training corpus count as errors; %d: %s", len(unseen), shown)


def score_head(
    head: Head,
    label_names: tuple[str, ...],
    dataset: FeatureDataset,
    *,
    device: torch.device,
    metric: str = "auto",
    token_budget: int = TOKEN_BUDGET,
) -> Scores:
    """Return the scores of a head on a labelled dataset; see :func:`evaluate`."""
    _require_label_kind(head, dataset)
    counts = {**dict.fromkeys(label_names, 0), **dataset.label_counts}
    scorer = Scorer(head.label_kind, counts, metric)
    for index, predicted in label_batches(
        head, label_names, dataset, device=device, token_budget=token_budget
    ):
        gold = dataset.gold(index)
        scorer.add((gold,) if isinstance(gold, str) else gold, predicted)
    return scorer.scores()


def _require_label_kind(head: Head, dataset: FeatureDataset) -> None:
    if dataset.label_kind != head.label_kind:
        found = "no labels" if dataset.label_kind is None else f"one label per {dataset.label_kind}"
        raise ModelError(
            f"{head.name} gives one label per {head.label_kind}, the corpus has {found}: "
            "choose another label of the corpus (--label), or another model"
        )


def evaluate(
    model: TrainedModel,
    dataset: FeatureDataset,
    *,
    device: str = "auto",
    metric: str = "auto",
    token_budget: int = TOKEN_BUDGET,
) -> Scores:
    """Return the scores of a model on a labelled dataset.

    Parameters
    ----------
    model : TrainedModel
        The model; its head is moved to the device.
    dataset : FeatureDataset
        With gold labels of the model's kind. Gold labels the model does not know count as errors and are
        warned of.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    metric : str
        The score that counts: ``"auto"``, ``"accuracy"``, ``"macro_f1"`` or ``"span_f1"``.
    token_budget : int
        Tokens in one batch, padding included.

    Raises
    ------
    RecipeMismatchError
        If the dataset's vectors are not of the recipe, or of the recipes, the model was trained on.
    ModelError
        If the dataset has no labels, labels of another kind, or none that the model knows.
    UsageError
        For a device or metric that is not there.
    """
    where = {
        name: "the dataset's store" if len(dataset.stores) == 1 else f"the dataset's store {name!r}"
        for name in dataset.stores
    }
    dataset = dataset.arranged(model.matched_stores(dataset.recipes, where=where))
    _require_label_kind(model.head, dataset)
    label = f" (label {model.label!r})" if model.label else ""
    require_common_labels(
        model.label_names, dataset, corpus="the corpus", trained_on=f"the model's training corpus{label}"
    )
    warn_of_unseen(model.label_names, dataset)
    target = choose_device(device)
    model.head.to(target)
    scores = score_head(
        model.head, model.label_names, dataset, device=target, metric=metric, token_budget=token_budget
    )
    for note in scores.notes:
        log.warning("%s", note)
    return scores


def predict(
    model: TrainedModel,
    store: StoresLike,
    examples: CorpusLike | Sequence[CorpusLike],
    *,
    device: str = "auto",
    on_missing: Literal["error", "skip", "zeros"] = "error",
    token_budget: int = TOKEN_BUDGET,
) -> Iterator[Example]:
    """Yield the examples with the model's labels in place of their own, in their order.

    Memory is bounded by some thousand sentences, however many examples there are.

    Parameters
    ----------
    model : TrainedModel
        The model; its head is moved to the device.
    store : Store or path, or several of these, a list, or a mapping from names
        Holds the vectors of the examples' sentences. For a model of several stores, these in any order.
    examples : path, Corpus, iterable of Example or token lists, or a sequence of paths and corpora
        Read once, lazily; labels they have are ignored.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    on_missing : str
        What to do with a sentence the store does not hold: ``"error"``, ``"skip"`` (it is not yielded) or
        ``"zeros"``.
    token_budget : int
        Tokens in one batch, padding included.

    Raises
    ------
    RecipeMismatchError
        If the store's vectors are not of the recipe, or of the recipes, the model was trained on.
    MissingSentencesError
        If sentences are missing and ``on_missing`` is ``"error"``.
    """
    given = opened(store)
    where = {name: "the store" if len(given) == 1 else f"the store {name!r}" for name in given}
    order = model.matched_stores({name: one.recipe for name, one in given.items()}, where=where)
    stores = {name: given[theirs] for name, theirs in order.items()}
    target = choose_device(device)
    model.head.to(target)
    # A generator of its own, so that the checks above happen at the call and not at the first next().
    return _predict(model, stores, read_examples(examples), target, on_missing, token_budget)


def _predict(
    model: TrainedModel,
    stores: dict[str, Store],
    examples: Iterator[Example],
    device: torch.device,
    on_missing: Literal["error", "skip", "zeros"],
    token_budget: int,
) -> Iterator[Example]:
    as_dict = needs_dict(stores)
    while chunk := [replace(example, labels=None) for example in islice(examples, _CHUNK_SENTENCES)]:
        dataset = FeatureDataset(stores, chunk, on_missing=on_missing, as_dict=as_dict)
        labels = dict(
            label_batches(model.head, model.label_names, dataset, device=device, token_budget=token_budget)
        )
        position = 0
        for example in chunk:
            # The dataset keeps the order but may leave sentences out: is its next one this example?
            if position < len(dataset) and dataset.tokens(position) == example.tokens:
                found = labels[position]
                yield replace(example, labels=found if model.label_kind == "token" else found[0])
                position += 1
