"""``train``, ``evaluate`` and ``predict``: light models on stored vectors."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featurestore.cli.display.render import echo_json
from featurestore.cli.display.train_output import (
    UNTRAINED,
    EpochTable,
    json_line,
    label_table,
    summary,
    text_header,
    text_lines,
    writing,
)
from featurestore.cli.groups import SuggestingGroup
from featurestore.cli.interrupts import Terminated, terminable
from featurestore.cli.options import Reading, json_option, options, reading_options

if TYPE_CHECKING:
    from featurestore.corpora.example import Example
    from featurestore.models.checkpoint import TrainedModel
    from featurestore.recipe import Recipe

_Command = TypeVar("_Command", bound=Callable[..., Any])
_STORE = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, allow_dash=True)


_store_option = click.option("--store", type=_STORE, required=True, help="Store with the sentences' vectors.")

_corpus_options = options(
    reading_options,
    click.option(
        "--on-missing",
        type=click.Choice(["error", "skip", "zeros"]),
        default="error",
        show_default=True,
        help="What to do with sentences the store does not hold.",
    ),
)

_device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")

_inference_options = options(
    click.option("--token-budget", type=click.IntRange(1), default=8192, show_default=True,
                 help="Tokens in one batch, padding included."),
    _device_option,
)  # fmt: skip

_metric_option = click.option(
    "--metric",
    type=click.Choice(["auto", "accuracy", "macro_f1", "span_f1"]),
    default="auto",
    show_default=True,
    help="The score that counts; auto: span F1 for BIO or IOBES labels, else accuracy.",
)


def _train_options(models: tuple[str, ...], task: str) -> Callable[[_Command], _Command]:
    # The defaults are TrainConfig's, written again because importing it imports torch; a test compares them.
    return options(
        _store_option,
        click.option("--train", "train_files", type=_FILE, multiple=True, required=True,
                     help="Labelled corpus to learn from; may be given several times."),
        click.option("--dev", "dev_file", type=_FILE, required=True,
                     help="Labelled corpus that picks the best epoch."),
        click.option("--label", required=True, metavar="NAME|N",
                     help="Which label of the corpus: a column or field, such as upos."),
        click.option("--model", type=click.Choice(models), default=models[0], show_default=True),
        click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
                     help=f"Model file, replaced if it exists.  [default: runs/{task}-LABEL.h5]"),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        click.option("--epochs", type=click.IntRange(1), default=30, show_default=True,
                     help="At most so many passes."),
        click.option("--patience", type=click.IntRange(1), default=4, show_default=True,
                     help="Stop after so many epochs without a better score."),
        click.option("--lr", type=float, default=1e-3, show_default=True, help="Learning rate of AdamW."),
        click.option("--anneal-patience", type=click.IntRange(1), show_default="never",
                     help="Halve the learning rate after so many epochs without a better score."),
        click.option("--average-steps", type=click.IntRange(1), default=500, show_default=True,
                     help="Score and keep the average of the weights over the last steps; 1: no average."),
        click.option("--hidden", type=click.IntRange(1), default=256, show_default=True,
                     help="LSTM units per direction."),
        click.option("--dropout", type=float, show_default="what suits the model",
                     help="On the input and the LSTM's output, in [0, 1)."),
        click.option("--token-budget", type=click.IntRange(1), default=2048, show_default=True,
                     help="Tokens in one batch, padding included."),
        _metric_option,
        click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto",
                     show_default=True, help="Of the LSTM while it learns; auto: bfloat16 where the hardware "
                     "multiplies it. Models are saved and used in float32."),
        _device_option,
        _corpus_options,
        click.option("--no-progress", is_flag=True,
                     help="Show no progress bar (there is one only on a terminal)."),
        json_option,
    )  # fmt: skip


@click.group(cls=SuggestingGroup)
def train() -> None:
    """Train a light model on stored vectors.

    The corpora's sentences must be in the store: run featurestore extract on them first.
    """


@train.command()
@_train_options(("bilstm", "bilstm-crf", "linear"), "tagger")
def tagger(model: str, **settings: Any) -> None:
    """Train a model that labels every token.

    bilstm reads the whole sentence; bilstm-crf also learns which labels follow each other (for BIO spans);
    linear looks at each vector alone, and so shows what the vectors themselves hold.
    """
    _train(f"{model}-tagger", "tagger", **settings)


@train.command()
@_train_options(("meanpool", "bilstm"), "classifier")
def classifier(model: str, **settings: Any) -> None:
    """Train a model that labels whole sentences.

    meanpool looks at the mean of a sentence's vectors; bilstm reads them in order.
    """
    _train(f"{model}-classifier", "classifier", **settings)


def _train(
    head: str,
    task: str,
    *,
    store: Path,
    train_files: tuple[str, ...],
    dev_file: str,
    label: str,
    out: Path | None,
    reading: Reading,
    on_missing: Any,
    no_progress: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    from featurestore.dataset.features import FeatureDataset
    from featurestore.disk.destination import require_writable
    from featurestore.models.training import TrainConfig, train
    from featurestore.store.store import Store

    config = TrainConfig(head, **settings)
    path = out or Path("runs") / f"{task}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', label)}.h5"
    require_writable(path)
    opened = Store.open(store)
    with _remedy_reads_alike(reading):
        dataset = FeatureDataset(opened, _examples(train_files, reading, label), on_missing=on_missing)
        dev = FeatureDataset(
            opened,
            _examples([dev_file], reading, label),
            labels=dataset.labels,
            unseen_labels="keep",
            on_missing=on_missing,
        )
    table = EpochTable(config) if not as_json else None
    with terminable():
        try:
            result = train(
                dataset,
                dev,
                config,
                label=label,
                progress=not no_progress and sys.stderr.isatty(),
                on_epoch=table,
            )
        except KeyboardInterrupt as stop:
            status, code = _ending(stop)
            click.echo(f"{status} before the first epoch was finished: there is no model to save", err=True)
            raise click.exceptions.Exit(code) from None
    result.model.save(path)
    untrained = _untrained(opened.recipe)
    if as_json:
        echo_json(
            {
                "model": str(path),
                "head": head,
                "n_parameters": result.model.head.n_parameters,
                "layer_weights": result.model.head.layer_weights,
                "n_sentences": len(dataset),
                "best_epoch": result.best_epoch,
                "interrupted": result.interrupted is not None,
                "untrained": untrained,
                "history": [vars(epoch) for epoch in result.history],
                "dev": result.scores.to_dict(),
            }
        )
    else:
        click.echo(f"\nbest: epoch {result.best_epoch}, {summary(result.scores)}")
        if result.model.head.layer_weights is not None:
            shares = ", ".join(f"{share:.2f}" for share in result.model.head.layer_weights)
            click.echo(f"layers weigh {shares}")
        if untrained:
            click.echo(UNTRAINED)
        click.echo(f"saved to {path} ({path.stat().st_size:,} bytes)")
    if result.interrupted is not None:
        raise click.exceptions.Exit(_ending(result.interrupted)[1])


def _ending(stop: KeyboardInterrupt) -> tuple[str, int]:
    """Return what ended a training, in a word, and the exit code for it."""
    return ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("corpus", type=_FILE)
@options(
    _store_option,
    click.option("--label", metavar="NAME|N", help="Label of the corpus; by default, the one of training."),
    _metric_option,
    _inference_options,
    _corpus_options,
    json_option,
)
def evaluate(
    model: Path,
    corpus: str,
    store: Path,
    label: str | None,
    metric: str,
    token_budget: int,
    device: str,
    reading: Reading,
    on_missing: Any,
    as_json: bool,
) -> None:
    """Score a trained model on a labelled corpus."""
    from featurestore.dataset.features import FeatureDataset
    from featurestore.dataset.labels import LabelSet
    from featurestore.errors import UsageError
    from featurestore.models.checkpoint import TrainedModel
    from featurestore.models.inference import evaluate as evaluate_model
    from featurestore.store.store import Store

    trained = TrainedModel.load(model)
    opened = Store.open(store)
    _require_recipe(trained, opened.recipe, store)
    label = label or trained.label
    if label is None:
        raise UsageError(f"{model} does not say which label it was trained on: name one with --label")
    with _remedy_reads_alike(reading):
        dataset = FeatureDataset(
            opened,
            _examples([corpus], reading, label),
            labels=LabelSet(trained.label_names),
            unseen_labels="keep",
            on_missing=on_missing,
        )
    scores = evaluate_model(trained, dataset, device=device, metric=metric, token_budget=token_budget)
    untrained = _untrained(opened.recipe)
    if as_json:
        echo_json({"model": str(model), "corpus": corpus, "untrained": untrained, **scores.to_dict()})
        return
    click.echo(summary(scores))
    click.echo(f"{scores.n_sentences:,} sentences, {scores.n_labels:,} labels\n")
    click.echo(label_table("label", scores.per_label))
    if scores.spans is not None:
        click.echo("\n" + label_table("span", scores.spans.per_type))
    if untrained:
        click.echo("\n" + UNTRAINED)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("corpus", type=_FILE)
@options(
    _store_option,
    click.option("--output", type=_FILE, default="-", show_default=True,
                 help="File to write; - is standard output."),
    _inference_options,
    _corpus_options,
    click.option("--json", "as_json", is_flag=True, help="Write JSON Lines: one object per sentence."),
)  # fmt: skip
def predict(
    model: Path,
    corpus: str,
    store: Path,
    output: str,
    token_budget: int,
    device: str,
    reading: Reading,
    on_missing: Any,
    as_json: bool,
) -> None:
    """Label a corpus with a trained model.

    Taggers write a line "token TAB label" per token and an empty line after each sentence; classifiers
    write a line "label TAB text" per sentence. An --output named .tsv begins with a row that names these two
    columns, so that evaluate reads it.
    """
    from featurestore.models.checkpoint import TrainedModel
    from featurestore.models.inference import predict as predict_labels
    from featurestore.store.store import Store

    trained = TrainedModel.load(model)
    opened = Store.open(store)
    _require_recipe(trained, opened.recipe, store)
    predicted = predict_labels(
        trained,
        opened,
        _examples([corpus], reading),
        device=device,
        on_missing=on_missing,
        token_budget=token_budget,
    )
    with _remedy_reads_alike(reading), writing(output) as stream:
        if trained.label_kind == "sentence" and not as_json and output.lower().endswith(".tsv"):
            stream.write(text_header(trained.label))
        for example in predicted:
            stream.write(json_line(example) if as_json else text_lines(example))


def _require_recipe(model: TrainedModel, recipe: Recipe, store: Path) -> None:
    # Before the corpus is read: with another recipe, nothing in it matters.
    model.require_recipe(recipe, where=f"the store {store}")


def _examples(files: Iterable[str], reading: Reading, label: str | None = None) -> Iterator[Example]:
    for file in files:
        yield from reading.open(file, label)


@contextmanager
def _remedy_reads_alike(reading: Reading) -> Iterator[None]:
    """Let the command that adds missing sentences read the corpus as this one does: else it adds others."""
    from featurestore.errors import MissingSentencesError
    from featurestore.store.missing import ADD_THEM

    try:
        yield
    except MissingSentencesError as error:
        command = " ".join([ADD_THEM, *map(shlex.quote, reading.arguments())])
        raise MissingSentencesError(str(error).replace(f"\n{ADD_THEM}", f"\n{command}", 1)) from error


def _untrained(recipe: Recipe) -> bool:
    return bool(recipe.get("untrained"))
