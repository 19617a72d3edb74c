"""How to train a biLM: every setting that decides the weights, and the few that do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from featurestore.errors import UsageError

OPTIMIZERS = ("adamw", "adagrad")
PRECISIONS = ("auto", "float32", "bfloat16")

CHECKPOINT_FORMAT = "featurestore pretraining checkpoint"
"""What the checkpoint of a training says that it is."""


@dataclass(frozen=True)
class PretrainConfig:
    """The settings of a training.

    Attributes
    ----------
    epochs : int
        Passes over the text.
    n_streams, n_steps : int
        Sentences read side by side, and steps of truncated back-propagation: a batch is their product.
    optimizer : str
        ``adamw`` (Loshchilov and Hutter 2019) or ``adagrad``, which trained the published models.
    lr : float
        Highest learning rate. It rises over ``warmup`` of the steps and falls along a cosine to nothing.
    warmup : float
        Share of all steps.
    weight_decay : float
        Of AdamW.
    clip : float
        Largest norm of the gradient.
    dropout : float
        See :class:`featurestore.pretraining.network.TrainableBiLM`.
    character_dropout : float
        The same.
    min_count, max_words : int
        Words that occur less often than ``min_count``, or beyond the ``max_words`` most frequent, are
        predicted as the unknown word.
    held_out : float
        Share of the sentences kept for measuring perplexity.
    precision : str
        Type of matrix products: ``float32`` or ``bfloat16``; ``auto`` takes bfloat16 where the processor
        multiplies it in hardware.
    seed : int
        Decides the initial weights, the held-out sentences, the order and the dropout.

    Raises
    ------
    UsageError
        For a value that makes no sense.
    """

    epochs: int = 10
    n_streams: int = 128
    n_steps: int = 20
    optimizer: str = "adamw"
    lr: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.1
    character_dropout: float = 0.0
    min_count: int = 2
    max_words: int = 100_000
    held_out: float = 0.01
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "n_streams", "n_steps", "min_count", "max_words"):
            lowest = 2 if name == "max_words" else 1  # one word is nothing to predict
            if getattr(self, name) < lowest:
                raise UsageError(f"{name} must be at least {lowest}, found {getattr(self, name)!r}")
        for name, highest in (("lr", 100), ("clip", 1e6)):
            if not 0 < getattr(self, name) <= highest:
                raise UsageError(
                    f"{name} must be above 0 and at most {highest:g}, found {getattr(self, name)!r}"
                )
        for name, highest in (
            ("warmup", 1),
            ("weight_decay", 1),
            ("dropout", 0.95),
            ("character_dropout", 0.95),
        ):
            if not 0 <= getattr(self, name) <= highest:
                raise UsageError(f"{name} must be in 0..{highest:g}, found {getattr(self, name)!r}")
        if not 0 < self.held_out <= 0.5:
            raise UsageError(f"held_out must be above 0 and at most 0.5, found {self.held_out!r}")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"unknown optimizer {self.optimizer!r}: expected {' or '.join(OPTIMIZERS)}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be in 0..{2**32 - 1}, found {self.seed!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return asdict(self)
