"""What comes before the first step: data checked against each other and the head, the input standardised."""

from __future__ import annotations

from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.loader import feature_loader
from featurestore.errors import ModelError
from featurestore.models.heads import HEADS, Head
from featurestore.models.inference import require_common_labels, warn_of_unseen
from featurestore.models.inputs.mix import Moments, Standardize
from featurestore.models.inputs.recipes import matched
from featurestore.models.inputs.stores import StoreInput
from featurestore.models.settings import SizedConfig, TrainConfig
from featurestore.models.sizes import HeadConfig

_STANDARDIZE_TOKENS = 100_000
"""Training tokens from which mean and variance are taken: enough for three digits of both."""


def check(dataset: FeatureDataset, dev_dataset: FeatureDataset, config: TrainConfig) -> None:
    """Refuse data that the head cannot learn from.

    Raises
    ------
    ModelError
        If there is nothing to train on, or the labels do not fit the head.
    """
    kind = HEADS[config.model].label_kind
    for name, part in (("training", dataset), ("development", dev_dataset)):
        if not len(part):
            raise ModelError(f"the {name} corpus has no sentences: nothing to train on")
        if part.label_kind != kind:
            found = "no labels" if part.label_kind is None else f"one label per {part.label_kind}"
            raise ModelError(
                f"{config.model} needs one label per {kind}, the {name} corpus has {found}: choose another "
                "label of the corpus (--label), or train the other kind of model"
            )
    if not dataset.labels:
        raise ModelError("the training corpus has no labels: name one with --label")
    met = [name for name, n in dataset.label_counts.items() if n]
    if len(met) < 2:
        raise ModelError(
            f"every {kind} of the training corpus has the label {met[0]!r}: there is nothing to learn; check "
            "that --label names the right one, and that the corpus holds all classes"
            if met
            else f"no {kind} of the training corpus has a label: check that --label names the right one"
        )
    require_common_labels(
        dataset.label_names, dev_dataset, corpus="the development corpus", trained_on="the training corpus"
    )
    warn_of_unseen(dataset.label_names, dev_dataset)


def arranged(dataset: FeatureDataset, dev_dataset: FeatureDataset) -> FeatureDataset:
    """Return the development data with its stores in the order of the training data's.

    Raises
    ------
    RecipeMismatchError
        If they are not those.
    """
    if len(dataset.stores) == len(dev_dataset.stores) == 1:
        next(iter(dev_dataset.recipes.values())).require_equal(
            next(iter(dataset.recipes.values())),
            where="the development dataset",
            remedy="Take the vectors of both corpora from one store.",
        )
    where = {name: f"the store {name!r} of the development dataset" for name in dev_dataset.stores}
    return dev_dataset.arranged(matched(dataset.recipes, dev_dataset.recipes, where=where))


def sizes(dataset: FeatureDataset, config: TrainConfig) -> HeadConfig:
    """Return the sizes of a head for a dataset."""
    inputs = tuple(StoreInput(name, store.dim, store.n_layers) for name, store in dataset.stores.items())
    several = len(inputs) > 1
    return HeadConfig(
        dataset.dim,
        len(dataset.labels),
        1 if several else inputs[0].n_layers,
        config.hidden,
        config.dropout_used,
        inputs if several else (),
    )


def fit_standardization(head: Head, dataset: FeatureDataset, config: SizedConfig) -> None:
    """Fit the standardisation of a head's input to some of the training vectors."""
    moments: dict[Standardize, Moments] = {}
    n_tokens = 0
    loader = feature_loader(
        dataset, token_budget=config.token_budget, shuffle=True, seed=config.seed, num_replicas=1
    )
    for batch in loader:
        for standardize, features in head.inputs(batch.features):
            moments.setdefault(standardize, Moments(*standardize.mean.shape)).add(features[batch.mask])
        n_tokens += int(batch.lengths.sum())
        if n_tokens >= _STANDARDIZE_TOKENS:
            break
    for standardize, seen in moments.items():
        seen.fit(standardize)
