"""The training loop: AdamW, averaged weights, early stopping by development score, the best epoch kept."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from featurestore.dataset.batch import FeatureBatch
from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.loader import feature_loader
from featurestore.devices import choose_device, training_precision
from featurestore.errors import ModelError, UsageError
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.fitting.averaging import WeightAverage
from featurestore.models.fitting.generators import Drawn, as_tensors, drawn, from_tensors, put_back, seeded
from featurestore.models.fitting.logs import Logs as Logs
from featurestore.models.fitting.preparing import arranged, check, fit_standardization, sizes
from featurestore.models.fitting.stopping import Best, Stopping, doubts
from featurestore.models.fitting.stopping import Epoch as Epoch
from featurestore.models.fitting.unfinished import (
    CHECKPOINT_SECONDS,
    InProgress,
    Keeper,
    identity_of,
    parts,
    prefixed,
    require_same,
    restore_weights,
    weights_of,
)
from featurestore.models.heads import IGNORED, Head, build_head
from featurestore.models.inference import score_head
from featurestore.models.inputs.recipes import joined
from featurestore.models.scoring import Scores
from featurestore.models.settings import SizedConfig
from featurestore.models.settings import TrainConfig as TrainConfig
from featurestore.resuming.checkpoint import SavedTraining, refuse_unfinished
from featurestore.resuming.interrupts import Waiting, waiting

log = logging.getLogger(__name__)

_ANNEAL_FACTOR = 0.5


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
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    keep_checkpoint: bool = False,
    logs: Logs | None = None,
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
        Called with each finished epoch; of a training that goes on, first with those finished before.
    checkpoint : path, optional
        A file to keep the unfinished training in: written after each epoch (unless the last was written less
        than a second, or twenty times what it took, before), every ``checkpoint_seconds``, and when it is
        interrupted; removed when the training has ended. Where it cannot be written, that is logged as a
        warning.
    resume : bool
        Go on from the checkpoint, if there is one. On one CPU thread that makes the model of a training that
        was never stopped, bit for bit.
    checkpoint_seconds : float
        Between checkpoints within an epoch; 0 for one after each step.
    keep_checkpoint : bool
        Leave the checkpoint of a training that has ended: for callers who save its model first.
    logs : Logs, optional
        Where to write down every step and epoch; the caller closes it.

    Raises
    ------
    ModelError
        If there is nothing to train on, the labels do not fit the head, the loss is not finite, or the
        checkpoint is damaged.
    StateError
        If the checkpoint is of other settings, data, snapshot of the store, labels or version.
    RecipeMismatchError
        If the two datasets hold vectors of different recipes.
    UsageError
        For a device or metric that is not there; if there is a checkpoint and ``resume`` is not given.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if not checkpoint_seconds >= 0:
        raise UsageError(f"checkpoint_seconds must be at least 0, found {checkpoint_seconds!r}")
    if path is None and resume:
        raise UsageError("resume=True needs the file to go on from: give checkpoint=")
    if path is not None and not resume:
        refuse_unfinished(path)
    device = choose_device(config.device)
    precision = training_precision(config.precision, device)
    dev_dataset = arranged(dataset, dev_dataset)
    check(dataset, dev_dataset, config)
    labels, sized = dataset.labels, config.sized(int(dataset.lengths.sum()))
    with seeded(config.seed, device):
        head = build_head(config.model, sizes(dataset, config))
        head.learning_dtype = getattr(torch, precision)
        head.class_weights = config.weights_of_classes(dataset.label_counts)
        keeper, saved = None, None
        if path is not None:
            identity = identity_of(dataset, dev_dataset, sized, head, device)
            keeper = Keeper(path, identity, checkpoint_seconds)
            saved = keeper.checkpoint.read()
            if resume and saved is None:
                log.warning("there is no checkpoint %s: the training begins anew", path)
        if config.standardize and saved is None:
            fit_standardization(head, dataset, sized)
        run = _Run(head.to(device), dataset, dev_dataset, sized, device, keeper, logs or Logs())
        if keeper is not None and saved is not None:
            with keeper.checkpoint.restoring():
                run.restore(saved)
            log.info("going on from %s: epoch %d", path, run.at.number)
        run.logs.begin(run.average.n_updates, len(run.history))
        interrupted: KeyboardInterrupt | None = None
        with nullcontext(run.signals) if keeper is None else waiting() as run.signals:
            try:
                run.epochs(progress, on_epoch)
            except KeyboardInterrupt as error:
                run.keep()
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
    if keeper is not None and interrupted is None and not keep_checkpoint:
        keeper.remove()
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
        keeper: Keeper | None,
        logs: Logs,
    ) -> None:
        self.head, self.dev_dataset, self.config, self.device = head, dev_dataset, config, device
        self.keeper, self.signals, self.logs = keeper, Waiting(), logs
        self.label_names, self.n_tokens = dataset.label_names, int(dataset.lengths.sum())
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

        self.at, self._started = InProgress(), time.perf_counter()
        self._generators: Drawn | None = None

    def epochs(self, progress: bool, on_epoch: Callable[[Epoch], None] | None) -> None:
        """Train until the epochs or the patience are used up."""
        for epoch in self.history:
            if on_epoch is not None:
                on_epoch(epoch)
        done = bool(self.history) and self.stopping.should_stop(self.history[-1].epoch)
        while not done and self.at.number <= self.config.epochs:
            number, self._started = self.at.number, time.perf_counter()
            if not self.at.learned:
                self._learn(number, progress)
            self._go_on_drawing()
            self.at.learned, loss = True, self.at.total / max(self.at.n_labels, 1)
            before = drawn(self.device)
            with self.average.applied():
                try:
                    with self.signals.at_once():
                        scores = self._scored()
                except KeyboardInterrupt:
                    put_back(before, self.device)
                    raise
                best = None
                if self.stopping.keeps(loss, scores):
                    best = Best(number, loss, scores, copy.deepcopy(self.head.state_dict()))
                # The best epoch is recorded before the history, so that an interrupt never leaves it behind.
                self.stopping.take(best, number, loss)
            self.history.append(Epoch(number, self.lr, loss, scores.value, self._seconds()))
            self.logs.epoch(self.history[-1], self.average.n_updates, scores.metric, self.n_tokens)
            log.info("epoch %d: loss %.4f, %s %.4f", number, loss, scores.metric, scores.value)
            done = self.stopping.should_stop(number)
            if not done and self.stopping.should_anneal(number):
                self.lr *= _ANNEAL_FACTOR
            self.at = InProgress(number + 1)
            if self.keeper is not None and self.keeper.due(epoch_ended=True):
                self._save(self.keeper)
            if on_epoch is not None:
                on_epoch(self.history[-1])
            self.signals.check()

    def keep(self) -> None:
        """Write the checkpoint of a training that was interrupted, if one is kept."""
        if self.keeper is not None and (self.history or self.keeper.worth()):
            self._save(self.keeper)

    def restore(self, saved: SavedTraining) -> None:
        """Go on from a checkpoint."""
        tensors, progress = parts(saved.tensors), saved.progress
        self.loader.load_state_dict(progress["loader"])
        require_same(progress["development data"], self.dev_dataset.identity())
        best = None
        if progress["best"] is not None:
            # Its scores are counted again: they are a function of its weights.
            self.head.load_state_dict(tensors["best"])
            weights = copy.deepcopy(self.head.state_dict())
            best = Best(**progress["best"], scores=self._scored(), state=weights)
        self.stopping.restore(progress["stopping"], best)
        restore_weights(self.head, self.optimizer, self.average, tensors, progress["n_updates"])
        self.lr = float(progress["lr"])
        self.history = [Epoch(**epoch) for epoch in progress["history"]]
        self.at = InProgress(**progress["at"])
        self._generators = from_tensors(tensors["generators"], progress["generators"])
        if not self.at.begun:
            self._go_on_drawing()
        elif not self.at.learned:
            # The rest of this pass, even if nothing is left of it, and not the next one.
            self.loader.set_epoch(self.at.number - 1)

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer.param_groups[0]["lr"] = value

    def _seconds(self) -> float:
        """Return the time that the epoch in progress has taken."""
        return self.at.seconds + time.perf_counter() - self._started

    def _scored(self) -> Scores:
        return score_head(
            self.head, self.label_names, self.dev_dataset, device=self.device, metric=self.config.metric
        )

    def _learn(self, number: int, progress: bool) -> None:
        """Make the loader's next pass over the training data, or the rest of one."""
        self.head.train()
        ended = time.perf_counter()
        for on_host in tqdm(
            self.loader, desc=f"epoch {number}", unit="batch", leave=False, disable=not progress
        ):
            self._go_on_drawing()
            loss, before = self._step(on_host.to(self.device), number), ended
            ended = time.perf_counter()
            if loss is not None:
                speed = int(on_host.lengths.sum()) / (ended - before)
                self.logs.step(self.average.n_updates, number, loss, self.lr, speed)
            self.at.begun = True
            self.signals.check()
            if self.keeper is not None and self.keeper.due():
                self._save(self.keeper)

    def _step(self, batch: FeatureBatch, number: int) -> float | None:
        """Learn from a batch; return its loss, or None if nothing in it has a label."""
        labels: Any = batch.labels
        n = int((labels != IGNORED).sum())
        if not n:
            return None
        loss = self.head.loss(batch.features, batch.lengths, batch.mask, labels)
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
        self.at.total += value * n
        self.at.n_labels += n
        return value

    def _go_on_drawing(self) -> None:
        """Let the generators go on from the checkpoint: the loader has drawn for its pass a second time."""
        if self._generators is not None:
            put_back(self._generators, self.device)
            self._generators = None

    def _save(self, keeper: Keeper) -> None:
        self.logs.flush()
        best = self.stopping.best
        generators, values = as_tensors(self._generators or drawn(self.device))
        keeper.write(
            {
                **weights_of(self.head, self.optimizer, self.average),
                **prefixed("best", {} if best is None else best.state),
                **prefixed("generators", generators),
            },
            {
                "at": {**vars(self.at), "seconds": self._seconds() if self.at.begun else 0.0},
                "n_updates": self.average.n_updates,
                "lr": self.lr,
                "stopping": self.stopping.state(),
                "best": None if best is None else {"epoch": best.epoch, "loss": best.loss},
                "history": [vars(epoch) for epoch in self.history],
                "generators": values,
                "loader": self.loader.state_dict(),
                "development data": self.dev_dataset.identity(),
            },
        )
