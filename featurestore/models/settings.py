"""How to train a head: the settings, their defaults and their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from featurestore.errors import UsageError
from featurestore.models.heads import HEADS

PRECISIONS = ("auto", "float32", "bfloat16")


class _Size(NamedTuple):
    """Defaults for training data of up to ``most_tokens`` tokens."""

    most_tokens: float
    epochs: int
    patience: int
    token_budget: int
    lr_of_linear: float
    lr_of_others: float

    def lr(self, model: str) -> float:
        """Return the learning rate of a model."""
        return self.lr_of_linear if model == "linear-tagger" else self.lr_of_others


_SIZES = (
    _Size(6_000, 100, 15, 256, 1e-2, 3e-3),
    _Size(100_000, 40, 6, 512, 3e-3, 3e-3),
    _Size(math.inf, 30, 4, 2048, 1e-3, 1e-3),
)


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    model : str
        A name of :data:`featurestore.models.heads.HEADS`.
    epochs : int, optional
        Passes over the training data at most. By default by the size of that: see :meth:`sized`.
    patience : int, optional
        Epochs without a better development score after which training stops; by default by size. While the
        score is no better than that of one label for everything and the loss falls, training goes on.
    lr : float, optional
        Learning rate of AdamW (Loshchilov and Hutter 2019); by default by size and model.
    weight_decay : float
        Of AdamW.
    anneal_patience : int, optional
        Epochs without a better development score after which the learning rate is halved (the count restarts
        then); by default never. Only has an effect below ``patience``. On small or short trainings it costs
        accuracy: a score that stands still by chance slows all that follows.
    average_steps : int
        Steps that the exponential average of the weights reaches over, which is scored and kept; at first it
        reaches over a tenth of the steps made. 1 for the weights themselves.
    hidden : int
        Units of the LSTM in each direction.
    dropout : float, optional
        On the head's input and the LSTM's output; by default the head's usual one.
    token_budget : int, optional
        Tokens of one batch at most, padding included; by default by size.
    max_sentences : int
        Sentences of one batch at most.
    clip : float
        Largest norm of the gradient.
    standardize : bool
        Fit the head's input standardisation to the training vectors first.
    metric : str
        The development score that decides: ``"auto"``, ``"accuracy"``, ``"macro_f1"`` or ``"span_f1"``.
    class_weights : "balanced", or mapping of str to float, optional
        What each label weighs in the loss, for labels of very different frequency. ``"balanced"`` weighs
        each by ``n / (n_classes * n_of_it)``, as scikit-learn does; of a mapping, labels that it does not
        name weigh 1. A CRF, which scores whole sequences, takes none.
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
    epochs: int | None = None
    patience: int | None = None
    lr: float | None = None
    anneal_patience: int | None = None
    weight_decay: float = 0.01
    average_steps: int = 500
    hidden: int = 256
    dropout: float | None = None
    token_budget: int | None = None
    max_sentences: int = 64
    clip: float = 5.0
    standardize: bool = True
    metric: str = "auto"
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.model not in HEADS:
            raise UsageError(f"there is no model {self.model!r}: choose one of {', '.join(HEADS)}")
        whole = ("epochs", "patience", "anneal_patience", "average_steps", "token_budget", "max_sentences")
        for name in whole:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, found {getattr(self, name)!r}")
        for name in ("lr", "clip"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) <= 1000:
                raise UsageError(f"{name} must be above 0 and at most 1000, found {getattr(self, name)!r}")
        self._check_class_weights()
        if not 0 <= self.weight_decay <= 1:
            raise UsageError(f"weight_decay must be in 0..1, found {self.weight_decay!r}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be in 0..{2**32 - 1}, found {self.seed!r}")
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"there is no precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}"
            )

    def _check_class_weights(self) -> None:
        weights = self.class_weights
        if weights is None:
            return
        if self.model == "bilstm-crf-tagger":
            raise UsageError(
                "class_weights: a CRF scores whole label sequences, in which a label has no weight: choose "
                "bilstm-tagger, or leave class_weights out"
            )
        if isinstance(weights, Mapping):
            wrong = {name: w for name, w in weights.items() if not 0 < w < math.inf}
            if wrong:
                raise UsageError(f"class_weights must be above 0 and finite, found {wrong}")
        elif weights != "balanced":
            raise UsageError(f"class_weights={weights!r}: expected 'balanced' or a weight for each label")

    def weights_of_classes(self, counts: Mapping[str, int]) -> Tensor | None:
        """Return the weight of each label in the loss, (n_labels,) float32, or None where all weigh the same.

        Parameters
        ----------
        counts : mapping of str to int
            How often each label occurs in training, in the order of the labels' numbers.

        Raises
        ------
        UsageError
            If a weight is given for a label that there is not.
        """
        weights = self.class_weights
        if weights is None:
            return None
        if isinstance(weights, Mapping):
            if unknown := sorted(set(weights) - set(counts)):
                raise UsageError(
                    f"class_weights names {', '.join(map(repr, unknown))}, which the training corpus does "
                    f"not have; its labels are {', '.join(map(repr, list(counts)[:20]))}"
                )
            return torch.tensor([float(weights.get(name, 1.0)) for name in counts])
        n_met = sum(n > 0 for n in counts.values())
        total = sum(counts.values())
        return torch.tensor([total / (n_met * n) if n else 1.0 for n in counts.values()])

    def sized(self, n_tokens: int) -> SizedConfig:
        """Return the settings with those that were left open filled in, by the size of the training data.

        =================  ======  ========  ============  ==============================
        training tokens    epochs  patience  token budget  lr (linear-tagger / all other)
        =================  ======  ========  ============  ==============================
        up to 6,000        100     15        256           0.01 / 0.003
        up to 100,000      40      6         512           0.003 / 0.003
        more               30      4         2048          0.001 / 0.001
        =================  ======  ========  ============  ==============================

        Little data needs more passes in smaller batches to learn labels that are rare;
        tests/bench/training/sweep.py compared them.

        Parameters
        ----------
        n_tokens : int
            Of the training data.
        """
        size = next(size for size in _SIZES if n_tokens <= size.most_tokens)
        return SizedConfig(
            **{
                **vars(self),
                "epochs": size.epochs if self.epochs is None else self.epochs,
                "patience": size.patience if self.patience is None else self.patience,
                "token_budget": size.token_budget if self.token_budget is None else self.token_budget,
                "lr": size.lr(self.model) if self.lr is None else self.lr,
            }
        )

    @property
    def dropout_used(self) -> float:
        """The dropout given, or the head's usual one."""
        return HEADS[self.model].usual_dropout if self.dropout is None else self.dropout

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the model, as plain JSON values; the device does not."""
        settings = {name: value for name, value in asdict(self).items() if name != "device"}
        if isinstance(self.class_weights, Mapping):
            settings["class_weights"] = {name: float(weight) for name, weight in self.class_weights.items()}
        return {**settings, "dropout": self.dropout_used}


@dataclass(frozen=True)
class SizedConfig(TrainConfig):
    """Settings of which none is left open; from :meth:`TrainConfig.sized`."""

    epochs: int = 30
    patience: int = 4
    lr: float = 1e-3
    token_budget: int = 2048
