"""Progress of a training: what the runner reports, and a bar that shows it."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm


@dataclass(frozen=True)
class EpochReport:
    """One finished pass over the text.

    Attributes
    ----------
    epoch : int
        From 1.
    loss : float
        Mean negative log-likelihood per word while training, dropout included, in nats.
    forward, backward : float
        Perplexity of each direction on the held-out sentences.
    seconds : float
        Training time of the pass, as far as this process did it.
    best : bool
        Whether these are the best held-out perplexities so far, and so the weights that are kept.
    """

    epoch: int
    loss: float
    forward: float
    backward: float
    seconds: float
    best: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


class PretrainProgress:
    """Receives what happens during a training; this one shows nothing."""

    def started(self, n_tokens: int, n_tokens_done: int) -> None:
        """Training begins: tokens of all passes, and how many of them an earlier process did."""

    def advanced(self, n_tokens: int, loss: float) -> None:
        """An update is done: the tokens it read and its mean loss in nats."""

    def epoch_finished(self, report: EpochReport) -> None:
        """A pass is finished and measured."""

    def notice(self, message: str) -> None:
        """Something the user should know happened."""

    def finished(self) -> None:
        """Training has ended, in whatever way."""


class PretrainBar(PretrainProgress):
    """A tqdm bar on standard error: tokens, tokens per second, time left, running perplexity."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._loss: float | None = None

    def started(self, n_tokens: int, n_tokens_done: int) -> None:
        """Show the bar."""
        self._bar = tqdm(
            total=n_tokens,
            initial=n_tokens_done,
            unit=" tokens",
            unit_scale=True,
            smoothing=0.05,
            dynamic_ncols=True,
            desc="training",
        )

    def advanced(self, n_tokens: int, loss: float) -> None:
        """Move the bar."""
        self._loss = running_mean(self._loss, loss)
        if self._bar is not None:
            self._bar.set_postfix_str(f"perplexity {math.exp(min(self._loss, 50)):,.0f}", refresh=False)
            self._bar.update(n_tokens)

    def epoch_finished(self, report: EpochReport) -> None:
        """Show the pass above the bar."""
        self.notice(epoch_line(report))

    def notice(self, message: str) -> None:
        """Show a message above the bar."""
        tqdm.write(message, file=sys.stderr)

    def finished(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def running_mean(before: float | None, value: float) -> float:
    """Return a mean over about the last hundred values."""
    return value if before is None else 0.99 * before + 0.01 * value


def epoch_line(report: EpochReport) -> str:
    """Return one line about a pass."""
    return (
        f"epoch {report.epoch}: training perplexity {math.exp(min(report.loss, 50)):,.1f}, held-out forward "
        f"{report.forward:,.1f}, backward {report.backward:,.1f}" + (" (best)" if report.best else "")
    )
