"""Which epoch of a training is kept, and when it ends: early stopping, once it scores above the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from featurestore.models.scoring import Scores

State = TypeVar("State")

_REMEDY = (
    "Train on more data or for longer (--epochs, --patience), try another --lr or --model, and check that "
    "the labels are what was meant"
)


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
class Best(Generic[State]):
    """The epoch that is kept: its number, training loss, scores on the development data, and weights."""

    epoch: int
    loss: float
    scores: Scores
    state: State


def is_better(score: float, loss: float, than: tuple[float, float] | None) -> bool:
    """Whether an epoch is better than an earlier score and loss: of equal scores, by a lower loss."""
    return than is None or (score, -loss) > (than[0], -than[1])


class Stopping(Generic[State]):
    """Keeps the best epoch, and says when to stop or to lower the learning rate.

    Training stops after ``patience`` epochs without a better score. While the score has not left that of the
    commonest label and the loss still falls, it goes on: on little data a tagger of rare labels begins with
    many epochs of nothing.

    Parameters
    ----------
    patience : int
    anneal_patience : int, optional

    Attributes
    ----------
    best : Best or None
        None before the first epoch.
    """

    def __init__(self, patience: int, anneal_patience: int | None) -> None:
        self.best: Best[State] | None = None
        self._patience, self._anneal_patience = patience, anneal_patience
        self._improved, self._annealed = 0, 0
        self._lowest_loss, self._loss_fell = float("inf"), 0

    def keeps(self, loss: float, scores: Scores) -> bool:
        """Whether an epoch would be the best so far."""
        best = self.best
        return is_better(scores.value, loss, None if best is None else (best.scores.value, best.loss))

    def take(self, epoch: Best[State] | None, number: int, loss: float) -> None:
        """Take in the next epoch: the best so far, or None, its number and its loss."""
        if epoch is not None:
            # Of equal scores the lower loss is kept, but that alone is no reason to go on.
            if self.best is None or epoch.scores.value > self.best.scores.value:
                self._improved = self._annealed = number
            self.best = epoch
        if loss < self._lowest_loss:
            self._lowest_loss, self._loss_fell = loss, number

    def state(self) -> dict[str, Any]:
        """Return the counts as plain values; :attr:`best` is not among them."""
        return {
            "improved": self._improved,
            "annealed": self._annealed,
            "lowest_loss": None if math.isinf(self._lowest_loss) else self._lowest_loss,
            "loss_fell": self._loss_fell,
        }

    def restore(self, state: Mapping[str, Any], best: Best[State] | None) -> None:
        """Go on from a state."""
        self.best = best
        self._improved, self._annealed = int(state["improved"]), int(state["annealed"])
        lowest = state["lowest_loss"]
        self._lowest_loss = math.inf if lowest is None else float(lowest)
        self._loss_fell = int(state["loss_fell"])

    def should_stop(self, number: int) -> bool:
        """Whether an epoch was the last one."""
        if self.best is None or number - self._improved < self._patience:
            return False
        return self.best.scores.above_baseline or number - self._loss_fell >= self._patience

    def should_anneal(self, number: int) -> bool:
        """Whether the learning rate is lowered after an epoch; asking starts the count again."""
        if self._anneal_patience is None or number - self._annealed < self._anneal_patience:
            return False
        self._annealed = number
        return True


def doubts(scores: Scores, best_epoch: int, epochs: int) -> Iterator[str]:
    """Yield reasons to doubt that a training has learned what it could.

    Parameters
    ----------
    scores : Scores
        Of the epoch that is kept.
    best_epoch, epochs : int
        Its number, and how many epochs there were to be at most.
    """
    baseline = scores.baseline
    if scores.value <= baseline.value:
        yield (
            f"the model has learned nothing: {scores.metric_text} {scores.value:.4f} on development data, "
            f"{baseline.value:.4f} for {baseline.label!r} given to everything. {_REMEDY}"
        )
    elif not scores.above_baseline:
        yield (
            f"the model guesses: fewer labels of development data are right ({scores.accuracy:.4f}) than "
            f"with {baseline.label!r} given to everything ({baseline.accuracy:.4f}). {_REMEDY}"
        )
    if best_epoch == epochs and scores.value < 1:
        yield f"the last of the {epochs} epochs allowed was the best: more may score higher (--epochs)"
