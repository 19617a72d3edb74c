"""What the commands for models print: epochs, scores, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from featurestore.models.fitting.stopping import Epoch
    from featurestore.models.heads import Head
    from featurestore.models.scoring import LabelScore, Scores
    from featurestore.models.settings import TrainConfig

UNTRAINED = (
    "NOTE: these vectors come from an UNTRAINED encoder (random weights): "
    "the scores say nothing about the quality of any embeddings"
)


class EpochTable:
    """Prints a line for each epoch it is called with, a header before the first; marks the best so far."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._best: tuple[float, float] | None = None

    def __call__(self, epoch: Epoch) -> None:
        """Print an epoch."""
        from featurestore.models.fitting.stopping import is_better

        if self._best is None:
            click.echo(f"{self._config.model}, seed {self._config.seed}\n")
            click.echo("epoch        lr      loss  dev score  seconds")
        better = ""
        if is_better(epoch.score, epoch.loss, self._best):
            self._best, better = (epoch.score, epoch.loss), " *"
        click.echo(
            f"{epoch.epoch:5}  {epoch.lr:8.2g}  {epoch.loss:8.4f}  {epoch.score:9.4f}  "
            f"{epoch.seconds:7.1f}{better}"
        )


def summary(scores: Scores) -> str:
    """Return the scores in one line."""
    parts = [f"accuracy {scores.accuracy:.4f}", f"macro-F1 {scores.macro_f1:.4f}"]
    if scores.spans is not None:
        spans = scores.spans
        parts.append(f"span F1 {spans.f1:.4f} (precision {spans.precision:.4f}, recall {spans.recall:.4f})")
    return ", ".join(parts)


def baseline_line(scores: Scores) -> str:
    """Return which score counts, and what one label for everything scores, in one line."""
    baseline = scores.baseline
    parts = [f"accuracy {baseline.accuracy:.4f}", f"macro-F1 {baseline.macro_f1:.4f}"]
    if baseline.span_f1 is not None:
        parts.append(f"span F1 {baseline.span_f1:.4f}")
    return f"{scores.metric_text} counts; {baseline.label!r} for everything: {', '.join(parts)}"


def label_table(title: str, rows: tuple[LabelScore, ...]) -> str:
    """Return precision, recall, F1 and counts, a line per label."""
    width = max([len(title), *(len(row.name) for row in rows)])
    lines = [f"{title:{width}}  precision  recall      F1     gold  predicted"]
    for row in rows:
        lines.append(
            f"{row.name:{width}}  {row.precision:9.4f}  {row.recall:6.4f}  {row.f1:6.4f}  {row.n_gold:7,}  "
            f"{row.n_predicted:9,}"
        )
    return "\n".join(lines)


def weight_lines(head: Head) -> Iterator[str]:
    """Yield a line of what the layers weigh, and of several stores one of what these do."""
    weights = head.layer_weights
    if isinstance(weights, dict):
        for name, shares in weights.items():
            yield f"layers of {name} weigh {_listed(shares)}"
    elif weights is not None:
        yield f"layers weigh {_listed(weights)}"
    if head.store_weights is not None:
        yield "stores weigh " + ", ".join(f"{name} {w:.2f}" for name, w in head.store_weights.items())


def _listed(shares: Iterable[float]) -> str:
    return ", ".join(f"{share:.2f}" for share in shares)
