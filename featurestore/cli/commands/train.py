"""``train``: light models on stored vectors."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from featurestore.cli.completing import files, words
from featurestore.cli.display.render import echo_json
from featurestore.cli.display.train_output import UNTRAINED, EpochTable, baseline_line, summary, weight_lines
from featurestore.cli.flags import device_option, json_option, options, progress_option
from featurestore.cli.groups import SuggestingGroup
from featurestore.cli.interrupts import Terminated, terminable
from featurestore.cli.models import (
    CORPUS,
    is_untrained,
    metric_option,
    missing_text,
    observed,
    remedy_reads_alike,
    require_enough,
    say_what_was_read,
    scored_corpus_options,
    stores_option,
)
from featurestore.cli.options import Reading
from featurestore.cli.project.command import ProjectCommand

_Command = TypeVar("_Command", bound=Callable[..., Any])

_BY_SIZE = "by the size of the training data"


_FOLDER = click.Path(file_okay=False, path_type=Path)


def _logs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    kinds = words("tensorboard", "csv", "jsonl")(context, parameter, incomplete)
    return kinds or files(context, parameter, incomplete)


def _train_options(models: tuple[str, ...], task: str) -> Callable[[_Command], _Command]:
    # The defaults are TrainConfig's, written again because importing it imports torch; a test compares them.
    return options(
        stores_option,
        click.option("--train", "train_files", type=CORPUS, multiple=True, required=True,
                     help="Labelled corpus to learn from; may be given several times."),
        click.option("--dev", "dev_file", type=CORPUS, required=True,
                     help="Labelled corpus that picks the best epoch."),
        click.option("--label", required=True, metavar="NAME|N",
                     help="Which label of the corpus: a column or field, such as upos."),
        click.option("--model", type=click.Choice(models), default=models[0], show_default=True,
                     help="The kind of model, as said above."),
        click.option("-o", "--output", "--out", "out", type=click.Path(dir_okay=False, path_type=Path),
                     help=f"Model file, replaced if it exists.  [default: runs/{task}-LABEL.h5]"),
        click.option("--resume", is_flag=True,
                     help="Go on with an interrupted training from the checkpoint beside --output; without "
                     "one begin anew."),
        click.option("--checkpoint-every", "checkpoint_seconds", type=click.FloatRange(0), default=300.0,
                     show_default=True, metavar="SECONDS",
                     help="Time between checkpoints within an epoch; there is one after each epoch, too."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
                     help="Of initial weights, order and dropout."),
        click.option("--epochs", type=click.IntRange(1), show_default=_BY_SIZE,
                     help="Passes over the training data at most."),
        click.option("--patience", type=click.IntRange(1), show_default=_BY_SIZE,
                     help="Epochs without a better score after which training stops."),
        click.option("--lr", type=float, show_default=_BY_SIZE, help="Learning rate of AdamW."),
        click.option("--anneal-patience", type=click.IntRange(1), show_default="never",
                     help="Epochs without a better score after which the learning rate is halved."),
        click.option("--average-steps", type=click.IntRange(1), default=500, show_default=True,
                     help="Score and keep the average of the weights over the last steps; 1: no average."),
        click.option("--hidden", type=click.IntRange(1), default=256, show_default=True,
                     help="LSTM units per direction."),
        click.option("--dropout", type=float, show_default="what suits the model",
                     help="On the input and the LSTM's output, in [0, 1)."),
        click.option("--token-budget", type=click.IntRange(1), show_default=_BY_SIZE,
                     help="Tokens in one batch, padding included."),
        metric_option,
        click.option("--class-weights", type=click.Choice(["balanced"]),
                     help="Let rare labels weigh as much in the loss as common ones (not for a CRF)."),
        click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto",
                     show_default=True, help="Of the LSTM while it learns; auto: bfloat16 where the hardware "
                     "multiplies it. Models are saved and used in float32."),
        device_option,
        scored_corpus_options,
        click.option("--log-to", nargs=2, type=(click.Choice(("tensorboard", "csv", "jsonl")), _FOLDER),
                     multiple=True, metavar="KIND DIR", shell_complete=_logs,
                     help="Write loss, learning rate and speed of each step and the score of each epoch into "
                     "a folder, as tensorboard, csv or jsonl; may be given several times."),
        progress_option,
        json_option,
    )  # fmt: skip


@click.group(cls=SuggestingGroup)
def train() -> None:
    """Train a light model on stored vectors.

    The corpora's sentences must be in the store: run featurestore extract on them first.
    """


@train.command(cls=ProjectCommand)
@_train_options(("bilstm", "bilstm-crf", "linear"), "tagger")
def tagger(model: str, **settings: Any) -> None:
    """Train a model that labels every token.

    bilstm reads the whole sentence; bilstm-crf also learns which labels follow each other (for BIO spans);
    linear sees each vector alone, and so shows what the vectors themselves hold.
    """
    _train(f"{model}-tagger", "tagger", **settings)


@train.command(cls=ProjectCommand)
@_train_options(("meanpool", "bilstm"), "classifier")
def classifier(model: str, **settings: Any) -> None:
    """Train a model that labels whole sentences.

    meanpool sees the mean of a sentence's vectors; bilstm reads them in order.
    """
    _train(f"{model}-classifier", "classifier", **settings)


def _train(
    head: str,
    task: str,
    *,
    stores: tuple[Path, ...],
    train_files: tuple[str, ...],
    dev_file: str,
    label: str,
    out: Path | None,
    resume: bool,
    checkpoint_seconds: float,
    reading: Reading,
    on_missing: Any,
    max_missing: float,
    log_to: tuple[tuple[str, Path], ...],
    no_progress: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    from featurestore.dataset.features import FeatureDataset
    from featurestore.dataset.stores import needs_dict, opened
    from featurestore.disk.destination import require_writable
    from featurestore.models.settings import TrainConfig
    from featurestore.models.training import Logs, train
    from featurestore.resuming.checkpoint import refuse_unfinished

    config = TrainConfig(head, **settings)
    path = out or Path("runs") / f"{task}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', label)}.h5"
    require_writable(path)
    checkpoint = path.with_name(path.name.removesuffix(".h5") + ".checkpoint.h5")
    if not resume:
        refuse_unfinished(checkpoint)
    elif checkpoint.exists():
        click.echo(f"going on from {checkpoint}", err=True)
    by_name = opened(stores)
    as_dict = needs_dict(by_name)
    corpora, dev_corpora = observed(train_files, reading, label), observed([dev_file], reading, label)
    with remedy_reads_alike(reading, by_name.values()):
        dataset = FeatureDataset(by_name, corpora, on_missing=on_missing, as_dict=as_dict)
        dev = FeatureDataset(
            by_name,
            dev_corpora,
            labels=dataset.labels,
            unseen_labels="keep",
            on_missing=on_missing,
            as_dict=as_dict,
        )
    corpora += dev_corpora
    say_what_was_read(corpora, as_json)
    require_enough(dataset, on_missing, max_missing, "the training corpus")
    require_enough(dev, on_missing, max_missing, "the development corpus")
    table = EpochTable(config) if not as_json else None
    with Logs(log_to) as logs, terminable():
        try:
            result = train(
                dataset,
                dev,
                config,
                label=label,
                progress=not no_progress and sys.stderr.isatty(),
                on_epoch=table,
                checkpoint=checkpoint,
                resume=resume,
                checkpoint_seconds=checkpoint_seconds,
                keep_checkpoint=True,
                logs=logs,
            )
        except KeyboardInterrupt as stop:
            status, code = _ending(stop)
            _say_how_to_go_on(checkpoint)
            click.echo(f"{status} before the first epoch was finished: there is no model to save", err=True)
            raise click.exceptions.Exit(code) from None
    result.model.save(path)
    if result.interrupted is None:
        checkpoint.unlink(missing_ok=True)
    else:
        _say_how_to_go_on(checkpoint)
    untrained = is_untrained(by_name)
    if as_json:
        echo_json(
            {
                "model": str(path),
                "head": head,
                "n_parameters": result.model.head.n_parameters,
                "layer_weights": result.model.head.layer_weights,
                "store_weights": result.model.head.store_weights,
                "n_sentences": len(dataset),
                "n_missing": dataset.n_missing,
                "n_missing_dev": dev.n_missing,
                "settings": result.model.training,
                "best_epoch": result.best_epoch,
                "interrupted": result.interrupted is not None,
                "untrained": untrained,
                "doubts": result.doubts,
                "reading": [asdict(corpus.reading) for corpus in corpora],
                "history": [vars(epoch) for epoch in result.history],
                "dev": result.scores.to_dict(),
            }
        )
    else:
        click.echo(f"\nbest: epoch {result.best_epoch}, {summary(result.scores)}")
        click.echo(baseline_line(result.scores))
        if text := missing_text(dev, on_missing):
            click.echo(text)
        for line in weight_lines(result.model.head):
            click.echo(line)
        if untrained:
            click.echo(UNTRAINED)
        click.echo(f"saved to {path} ({path.stat().st_size:,} bytes)")
    if result.interrupted is not None:
        raise click.exceptions.Exit(_ending(result.interrupted)[1])


def _say_how_to_go_on(checkpoint: Path) -> None:
    if checkpoint.exists():
        click.echo(f"the same command with --resume goes on from {checkpoint}", err=True)


def _ending(stop: KeyboardInterrupt) -> tuple[str, int]:
    """Return what ended a training, in a word, and the exit code for it."""
    return ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
