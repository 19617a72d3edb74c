"""What the commands for models print: tables, JSON, labelled sentences."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import click

from featurestore.cli.display.render import json_text
from featurestore.corpora.readers.whitespace import WHITESPACE
from featurestore.errors import StoreWriteError, UsageError

if TYPE_CHECKING:
    from featurestore.corpora.example import Example
    from featurestore.models.scoring import LabelScore, Scores
    from featurestore.models.training import Epoch, TrainConfig

UNTRAINED = (
    "NOTE: these vectors come from an UNTRAINED encoder (random weights): "
    "the scores say nothing about the quality of any embeddings"
)

_NOT_IN_FIELD = re.compile("[\t\r\n\ud800-\udfff]")
_NOT_IN_TEXT = re.compile(f"[{WHITESPACE}\ud800-\udfff]")
"""What a field must not hold, and what a token in a text of several must not: lone surrogates neither."""


class EpochTable:
    """Prints a line for each epoch it is called with, a header before the first; marks the best so far."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._best: float | None = None

    def __call__(self, epoch: Epoch) -> None:
        """Print an epoch."""
        if self._best is None:
            click.echo(f"{self._config.model}, seed {self._config.seed}\n")
            click.echo("epoch        lr      loss  dev score  seconds")
        better = ""
        if self._best is None or epoch.score > self._best:
            self._best, better = epoch.score, " *"
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


def json_line(example: Example) -> str:
    """Return a labelled sentence as a line of JSON."""
    name = "label" if isinstance(example.labels, str) else "labels"
    return json_text({"tokens": example.tokens, name: example.labels}) + "\n"


def text_lines(example: Example) -> str:
    """Return a labelled sentence as lines of tab-separated fields.

    Raises
    ------
    UsageError
        If one would not be read back: a token or label with a tab, a line end or a lone surrogate in it, or
        a token with a blank in a line of tokens.
    """
    if isinstance(example.labels, str):
        _require_fitting(example, "token", example.tokens, _NOT_IN_TEXT)
        _require_fitting(example, "label", (example.labels,), _NOT_IN_FIELD)
        return f"{example.labels}\t{' '.join(example.tokens)}\n"
    labels = tuple(map(str, example.labels or ()))
    _require_fitting(example, "token", example.tokens, _NOT_IN_FIELD)
    _require_fitting(example, "label", labels, _NOT_IN_FIELD)
    rows = zip(example.tokens, labels, strict=True)
    return "".join(f"{token}\t{label}\n" for token, label in rows) + "\n"


def _require_fitting(example: Example, what: str, texts: Sequence[str], unfit: re.Pattern[str]) -> None:
    for text in texts:
        if unfit.search(text):
            raise UsageError(
                f"{example.place}: the {what} {text!r} does not fit into lines and tabs: use --json"
            )


def text_header(label: str | None) -> str:
    """Return the row that makes a table of sentence labels, as its readers want one: their name, text."""
    return f"{label if label and label != 'text' else 'label'}\ttext\n"


@contextmanager
def writing(output: str) -> Iterator[IO[str]]:
    """Open standard output, or a file that gets its name only when it is complete.

    Of a link, its target is replaced; a pipe or a device is written to as it is.
    """
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    from featurestore.disk.atomic import replacing
    from featurestore.disk.destination import replaceable

    target = replaceable(output)
    if target is None:
        try:
            with open(output, "w", encoding="utf-8", newline="\n") as stream:
                yield stream
        except OSError as error:
            raise StoreWriteError(
                f"cannot write {output}: {error.strerror or error}", path=output, errno=error.errno
            ) from error
        return
    with replacing(target) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()  # the file is closed by whoever opened it
