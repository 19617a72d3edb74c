"""The training loop: AdamW, averaged weights, early stopping by development score, the best epoch kept."""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.loader import feature_loader
from featurestore.devices import choose_device, training_precision
from featurestore.errors import ModelError
from featurestore.models.averaging import WeightAverage
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HEADS, IGNORED, Head, build_head
from featurestore.models.inference import require_common_labels, score_head, warn_of_unseen
from featurestore.models.inputs.mix import Moments, Standardize
from featurestore.models.inputs.recipes import joined, matched
from featurestore.models.inputs.stores import StoreInput
from featurestore.models.scoring import Scores
from featurestore.models.settings import SizedConfig
from featurestore.models.settings import TrainConfig as TrainConfig
from featurestore.models.sizes import HeadConfig
from featurestore.models.stopping import Best, Stopping, doubts
from featurestore.models.stopping import Epoch as Epoch

log = logging.getLogger(__name__)

_ANNEAL_FACTOR = 0.5

_STANDARDIZE_TOKENS = 100_000
"""Training tokens from which mean and variance are taken: enough for three digits of both."""


@dataclass(frozen=True)
class TrainResult:
    """The model of a training, its scores and its history.

    Attributes
    ----------
    model : TrainedModel
        The model of the best epoch.
    scores : Scores
        Its scores on the development data.
    history : tuple of Epoch
        Every epoch that was finished.
    best_epoch : int
        The epoch the model is of: of those with the best score, the one with the lowest loss.
    doubts : tuple of str
        Reasons to doubt the result, which were logged as warnings: that it is no better than one label for
        everything, that the last epoch allowed was the best.
    interrupted : KeyboardInterrupt, optional
        What ended the training early: Ctrl-C, or a signal of which a handler makes a subclass.
    """

    model: TrainedModel
    scores: Scores
    history: tuple[Epoch, ...]
    best_epoch: int
    interrupted: KeyboardInterrupt | None = None
    doubts: tuple[str, ...] = ()


def train(
    dataset: FeatureDataset,
    dev_dataset: FeatureDataset,
    config: TrainConfig,
    *,
    label: str | None = None,
    progress: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainResult:
    """Train a head.

    The first Ctrl-C after the first epoch ends the training and returns the best epoch so far, as does any
    subclass of ``KeyboardInterrupt``; before that there is nothing to keep, and it is raised. Random number
    generators are left as found.

    Parameters
    ----------
    dataset, dev_dataset : FeatureDataset
        Of one store recipe, or of the same several. The development labels that training lacks count as
        errors; build ``dev_dataset`` with ``labels=dataset.labels, unseen_labels="keep"``.
    config : TrainConfig
        How to train.
    label : str, optional
        Name of the label in the corpus, remembered in the model.
    progress : bool
        Show a progress bar on standard error.
    on_epoch : callable, optional
        Called with each finished epoch.

    Raises
    ------
    ModelError
        If there is nothing to train on, the labels do not fit the head, or the loss is not finite.
    RecipeMismatchError
        If the two datasets hold vectors of different recipes.
    UsageError
        For a device or metric that is not there.
    """
    device = choose_device(config.device)
    precision = training_precision(config.precision, device)
    dev_dataset = _arranged(dataset, dev_dataset)
    _check(dataset, dev_dataset, config)
    labels, sized = dataset.labels, config.sized(int(dataset.lengths.sum()))
    with _seeded(config.seed, device):
        head = build_head(config.model, _sizes(dataset, config))
        head.learning_dtype = getattr(torch, precision)
        if config.standardize:
            _fit_standardization(head, dataset, sized)
        head.class_weights = config.weights_of_classes(dataset.label_counts)
        run = _Run(head.to(device), dataset, dev_dataset, sized, device)
        interrupted: KeyboardInterrupt | None = None
        try:
            run.epochs(progress, on_epoch)
        except KeyboardInterrupt as error:
            if run.stopping.best is None:
                raise
            # Its traceback would keep everything the training held.
            interrupted = error.with_traceback(None)
            log.warning("interrupted: keeping epoch %d, the best so far", run.stopping.best.epoch)
    best = run.stopping.best
    if best is None:
        raise ModelError("training ended before its first epoch")
    head.load_state_dict(best.state)
    head.eval()
    model = TrainedModel(
        head=head,
        label_names=tuple(labels.names),
        recipe=joined(dataset.recipes),
        label=label,
        seed=config.seed,
        training={
            **sized.to_dict(),
            "precision": precision,
            "n_sentences": len(dataset),
            "best_epoch": best.epoch,
        },
        scores=best.scores.summary(),
    )
    reasons = tuple(doubts(best.scores, best.epoch, sized.epochs))
    for reason in (*best.scores.notes, *reasons):
        log.warning("%s", reason)
    return TrainResult(model, best.scores, tuple(run.history), best.epoch, interrupted, reasons)


class _Run:
    """The state of one training: the optimiser, the history, what decides when to stop."""

    def __init__(
        self,
        head: Head,
        dataset: FeatureDataset,
        dev_dataset: FeatureDataset,
        config: SizedConfig,
        device: torch.device,
    ) -> None:
        self.head, self.dev_dataset, self.config, self.device = head, dev_dataset, config, device
        self.label_names = dataset.label_names
        self.loader = feature_loader(
            dataset,
            token_budget=config.token_budget,
            max_sentences=config.max_sentences,
            shuffle=True,
            seed=config.seed,
            num_replicas=1,
        )
        self.optimizer = torch.optim.AdamW(
            head.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.average = WeightAverage(head, config.average_steps)
        self.history: list[Epoch] = []
        self.stopping: Stopping[dict[str, Tensor]] = Stopping(config.patience, config.anneal_patience)

    def epochs(self, progress: bool, on_epoch: Callable[[Epoch], None] | None) -> None:
        """Train until the epochs or the patience are used up."""
        for number in range(1, self.config.epochs + 1):
            started = time.perf_counter()
            loss = self._learn(number, progress)
            with self.average.applied():
                scores = score_head(
                    self.head,
                    self.label_names,
                    self.dev_dataset,
                    device=self.device,
                    metric=self.config.metric,
                )
                best = None
                if self.stopping.keeps(loss, scores):
                    best = Best(number, loss, scores, copy.deepcopy(self.head.state_dict()))
                # The best epoch is recorded before the history, so that an interrupt never leaves it behind.
                self.stopping.take(best, number, loss)
            seconds = time.perf_counter() - started
            self.history.append(Epoch(number, self.lr, loss, scores.value, seconds))
            log.info("epoch %d: loss %.4f, %s %.4f", number, loss, scores.metric, scores.value)
            if on_epoch is not None:
                on_epoch(self.history[-1])
            if self.stopping.should_stop(number):
                return
            if self.stopping.should_anneal(number):
                self.lr *= _ANNEAL_FACTOR

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer.param_groups[0]["lr"] = value

    def _learn(self, number: int, progress: bool) -> float:
        """Make the loader's next pass over the training data; return the mean loss per label."""
        self.head.train()
        total, n_labels = 0.0, 0
        bar = tqdm(self.loader, desc=f"epoch {number}", unit="batch", leave=False, disable=not progress)
        for on_host in bar:
            batch = on_host.to(self.device)
            n = int((batch.labels != IGNORED).sum())
            if not n:
                continue
            loss = self.head.loss(batch.features, batch.lengths, batch.mask, batch.labels)
            value = loss.item()
            if not math.isfinite(value):
                raise ModelError(
                    f"the loss became {value} in epoch {number}: try a smaller --lr (now "
                    f"{self.config.lr:g}), and check the store with featurestore verify"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            nn.utils.clip_grad_norm_(self.head.parameters(), self.config.clip)
            self.optimizer.step()
            self.average.update()
            total += value * n
            n_labels += n
        return total / max(n_labels, 1)


def _check(dataset: FeatureDataset, dev_dataset: FeatureDataset, config: TrainConfig) -> None:
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


def _arranged(dataset: FeatureDataset, dev_dataset: FeatureDataset) -> FeatureDataset:
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


def _sizes(dataset: FeatureDataset, config: TrainConfig) -> HeadConfig:
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


def _fit_standardization(head: Head, dataset: FeatureDataset, config: SizedConfig) -> None:
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


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every generator a training may draw from, and put each back afterwards."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
