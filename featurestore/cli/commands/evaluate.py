"""``evaluate``: the scores of a trained model on a labelled corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from featurestore.cli.display.render import echo_json
from featurestore.cli.display.train_output import UNTRAINED, baseline_line, label_table, summary
from featurestore.cli.flags import json_option, options
from featurestore.cli.models import (
    CORPUS,
    MODEL_FILE,
    inference_options,
    is_untrained,
    metric_option,
    missing_text,
    observed,
    remedy_reads_alike,
    require_enough,
    say_what_was_read,
    scored_corpus_options,
    stores_of,
    stores_option,
)
from featurestore.cli.options import Reading
from featurestore.cli.project.command import command


@command()
@click.argument("model", type=MODEL_FILE)
@click.argument("corpus", type=CORPUS)
@options(
    stores_option,
    click.option("--label", metavar="NAME|N", help="Label of the corpus; by default, the one of training."),
    metric_option,
    inference_options,
    scored_corpus_options,
    json_option,
)
def evaluate(
    model: Path,
    corpus: str,
    stores: tuple[Path, ...],
    label: str | None,
    metric: str,
    token_budget: int,
    device: str,
    reading: Reading,
    on_missing: Any,
    max_missing: float,
    as_json: bool,
) -> None:
    """Score a trained model on a labelled corpus.

    The baseline beside the score gives everything the commonest label of the corpus.
    """
    from featurestore.dataset.features import FeatureDataset
    from featurestore.dataset.labels import LabelSet
    from featurestore.dataset.stores import needs_dict
    from featurestore.errors import UsageError
    from featurestore.models.checkpoint import TrainedModel
    from featurestore.models.inference import evaluate as evaluate_model
    from featurestore.models.inference import unknown_labels
    from featurestore.models.spans import list_counts

    trained = TrainedModel.load(model)
    by_name = stores_of(trained, stores)
    label = label or trained.label
    if label is None:
        raise UsageError(f"{model} does not say which label it was trained on: name one with --label")
    corpora = observed([corpus], reading, label)
    with remedy_reads_alike(reading, by_name.values()):
        dataset = FeatureDataset(
            by_name,
            corpora,
            labels=LabelSet(trained.label_names),
            unseen_labels="keep",
            on_missing=on_missing,
            as_dict=needs_dict(by_name),
        )
    say_what_was_read(corpora, as_json)
    require_enough(dataset, on_missing, max_missing, corpus)
    scores = evaluate_model(trained, dataset, device=device, metric=metric, token_budget=token_budget)
    unknown = unknown_labels(trained.label_names, dataset)
    untrained = is_untrained(by_name)
    if as_json:
        echo_json(
            {
                "model": str(model),
                "corpus": corpus,
                "untrained": untrained,
                "n_missing": dataset.n_missing,
                "unknown_labels": unknown,
                "reading": [asdict(one.reading) for one in corpora],
                **scores.to_dict(),
            }
        )
        return
    click.echo(summary(scores))
    click.echo(f"{scores.n_sentences:,} sentences, {scores.n_labels:,} labels; {baseline_line(scores)}\n")
    if text := missing_text(dataset, on_missing):
        click.echo(f"{text}\n")
    if unknown:
        share = sum(unknown.values()) / scores.n_labels
        click.echo(f"{share:.1%} of the labels are unknown to the model: {list_counts(unknown)}\n")
    click.echo(label_table("label", scores.per_label))
    if scores.spans is not None:
        click.echo("\n" + label_table("span", scores.spans.per_type))
    if untrained:
        click.echo("\n" + UNTRAINED)
