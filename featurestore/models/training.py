"""The training loop: AdamW, averaged weights, early stopping by development score, the best epoch kept."""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.loader import feature_loader
from featurestore.devices import choose_device, training_precision
from featurestore.errors import ModelError, UsageError
from featurestore.models.averaging import WeightAverage
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HEADS, IGNORED, Head, HeadConfig, build_head
from featurestore.models.inference import score_head, warn_of_unseen
from featurestore.models.mix import Moments
from featurestore.models.scoring import Scores

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")

_ANNEAL_FACTOR = 0.5

_STANDARDIZE_TOKENS = 100_000
"""Training tokens from which mean and variance are taken: enough for three digits of both."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    model : str
        A name of :data:`featurestore.models.heads.HEADS`.
    epochs, patience : int
        At most so many epochs; stop after so many without a better development score.
    lr, weight_decay : float
        Of AdamW (Loshchilov and Hutter 2019).
    anneal_patience : int, optional
        Halve the learning rate after so many epochs without a better development score, counted anew after
        each halving; by default never. It must be below ``patience`` to come to that. On small or short
        trainings it costs accuracy: a score that stands still by chance slows all that follows.
    average_steps : int
        The weights that are scored and kept are an exponential average over about so many steps, at first
        over a tenth of those made; 1 for the weights themselves.
    hidden : int
        Units of the LSTM in each direction.
    dropout : float, optional
        On the head's input and the LSTM's output; by default the head's usual one.
    token_budget, max_sentences : int
        Bounds of one batch: tokens with padding, and sentences.
    clip : float
        Largest norm of the gradient.
    standardize : bool
        Fit the head's input standardisation to the training vectors first.
    metric : str
        The development score that decides: ``"auto"``, ``"accuracy"``, ``"macro_f1"`` or ``"span_f1"``.
    seed : int
        Decides the initial weights, the order of batches and the dropout. On one CPU, with one number of
        threads, the same seed gives the same model bit for bit; CUDA kernels do not promise that.
    precision : str
        Of an LSTM's matrix products while it learns: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which is
        bfloat16 where the device multiplies it in hardware. Everything else is float32: the weights, the
        loss, the scores, and the model when it is used.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    UsageError
        For a value that makes no sense.
    """

    model: str
    epochs: int = 30
    patience: int = 4
    lr: float = 1e-3
    anneal_patience: int | None = None
    weight_decay: float = 0.01
    average_steps: int = 500
    hidden: int = 256
    dropout: float | None = None
    token_budget: int = 2048
    max_sentences: int = 64
    clip: float = 5.0
    standardize: bool = True
    metric: str = "auto"
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.model not in HEADS:
            raise UsageError(f"there is no model {self.model!r}: choose one of {', '.join(HEADS)}")
        whole = ("epochs", "patience", "anneal_patience", "average_steps", "token_budget", "max_sentences")
        for name in whole:
            # None is a value of anneal_patience alone.
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, found {getattr(self, name)!r}")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) <= 1000:
                raise UsageError(f"{name} must be above 0 and at most 1000, found {getattr(self, name)!r}")
        if not 0 <= self.weight_decay <= 1:
            raise UsageError(f"weight_decay must be in 0..1, found {self.weight_decay!r}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be in 0..{2**32 - 1}, found {self.seed!r}")
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"there is no precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}"
            )

    @property
    def dropout_used(self) -> float:
        """The dropout given, or the head's usual one."""
        return HEADS[self.model].usual_dropout if self.dropout is None else self.dropout

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the model, as plain JSON values; the device does not."""
        settings = {name: value for name, value in asdict(self).items() if name != "device"}
        return {**settings, "dropout": self.dropout_used}


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Its number from 1, learning rate, mean loss per label, development score, and seconds.
    """

    epoch: int
    lr: float
    loss: float
    score: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes
    ----------
    model : TrainedModel
        The model of the best epoch.
    scores : Scores
        Its scores on the development data.
    history : tuple of Epoch
        Every epoch that was finished.
    best_epoch : int
        The epoch the model is of.
    interrupted : KeyboardInterrupt, optional
        What ended the training early: Ctrl-C, or a signal of which a handler makes a subclass.
    """

    model: TrainedModel
    scores: Scores
    history: tuple[Epoch, ...]
    best_epoch: int
    interrupted: KeyboardInterrupt | None = None


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
        Of one store recipe. The development labels that training lacks count as errors; build
        ``dev_dataset`` with ``labels=dataset.labels, unseen_labels="keep"``.
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
    _check(dataset, dev_dataset, config)
    labels = dataset.labels
    if not labels:
        raise ModelError("the training corpus has no labels: name one with --label")
    with _seeded(config.seed, device):
        head = build_head(
            config.model,
            HeadConfig(dataset.dim, len(labels), dataset.n_layers, config.hidden, config.dropout_used),
        )
        head.learning_dtype = getattr(torch, precision)
        if config.standardize:
            _fit_standardization(head, dataset, config)
        run = _Run(head.to(device), dataset, dev_dataset, config, device)
        interrupted: KeyboardInterrupt | None = None
        try:
            run.epochs(progress, on_epoch)
        except KeyboardInterrupt as error:
            if run.best is None:
                raise
            # Its traceback would keep everything the training held.
            interrupted = error.with_traceback(None)
            log.warning("interrupted: keeping epoch %d, the best so far", run.best.epoch)
    if run.best is None:
        raise ModelError("training ended before its first epoch")
    head.load_state_dict(run.best.state)
    head.eval()
    model = TrainedModel(
        head=head,
        label_names=tuple(labels.names),
        recipe=dataset.recipe,
        label=label,
        seed=config.seed,
        training={
            **config.to_dict(),
            "precision": precision,
            "n_sentences": len(dataset),
            "best_epoch": run.best.epoch,
        },
        scores=run.best.scores.summary(),
    )
    return TrainResult(model, run.best.scores, tuple(run.history), run.best.epoch, interrupted)


@dataclass(frozen=True)
class _Best:
    epoch: int
    scores: Scores
    state: dict[str, Tensor]


class _Run:
    """The state of one training: the optimiser, the history, the best epoch."""

    def __init__(
        self,
        head: Head,
        dataset: FeatureDataset,
        dev_dataset: FeatureDataset,
        config: TrainConfig,
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
        )
        self.optimizer = torch.optim.AdamW(
            head.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.average = WeightAverage(head, config.average_steps)
        self.history: list[Epoch] = []
        self.best: _Best | None = None

    def epochs(self, progress: bool, on_epoch: Callable[[Epoch], None] | None) -> None:
        """Train until the epochs or the patience are used up."""
        last_change = 0
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
                # The best epoch is recorded before the history, so that an interrupt never leaves it behind.
                if self.best is None or scores.value > self.best.scores.value:
                    self.best = _Best(number, scores, copy.deepcopy(self.head.state_dict()))
                    last_change = number
            seconds = time.perf_counter() - started
            self.history.append(Epoch(number, self.lr, loss, scores.value, seconds))
            log.info("epoch %d: loss %.4f, %s %.4f", number, loss, scores.metric, scores.value)
            if on_epoch is not None:
                on_epoch(self.history[-1])
            if number - self.best.epoch >= self.config.patience:
                return
            anneal_patience = self.config.anneal_patience
            if anneal_patience is not None and number - last_change >= anneal_patience:
                self.lr *= _ANNEAL_FACTOR
                last_change = number

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
            n = int((batch.labels != IGNORED).sum())
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
    dev_dataset.recipe.require_equal(
        dataset.recipe,
        where="the development dataset",
        remedy="Take the vectors of both corpora from one store.",
    )
    warn_of_unseen(dataset.label_names, dev_dataset)


def _fit_standardization(head: Head, dataset: FeatureDataset, config: TrainConfig) -> None:
    moments = Moments(*head.standardize.mean.shape)
    n_tokens = 0
    for batch in feature_loader(dataset, token_budget=config.token_budget, shuffle=True, seed=config.seed):
        moments.add(batch.features[batch.mask])
        n_tokens += int(batch.lengths.sum())
        if n_tokens >= _STANDARDIZE_TOKENS:
            break
    moments.fit(head.standardize)


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
