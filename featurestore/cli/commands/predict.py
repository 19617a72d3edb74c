"""``predict``: labels for a corpus, by a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featurestore.cli.display.streams import writing
from featurestore.cli.flags import options
from featurestore.cli.models import (
    CORPUS,
    FILE,
    MODEL_FILE,
    corpus_options,
    inference_options,
    remedy_reads_alike,
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
    click.option("-o", "--output", type=FILE, default="-", show_default=True,
                 help="File to write, in the format that its name tells; - is standard output."),
    inference_options,
    corpus_options,
    click.option("--json", "as_json", is_flag=True,
                 help="Write JSON Lines, whatever the output is called: one object per sentence."),
)  # fmt: skip
def predict(
    model: Path,
    corpus: str,
    stores: tuple[Path, ...],
    output: str,
    token_budget: int,
    device: str,
    reading: Reading,
    on_missing: Any,
    as_json: bool,
) -> None:
    """Label a corpus with a trained model.

    An --output named .conllu, .jsonl, .csv or .tsv is written in that format and can be read back: CoNLL-U
    keeps the comments, multiword ranges, empty nodes and other columns of CoNLL-U, JSON Lines keeps the other
    fields of JSON Lines, tables are for classifiers. Otherwise taggers write a line "token TAB label" per
    token and an empty line after each sentence; classifiers write a line "label TAB text" per sentence.
    """
    from featurestore.cli.display.predictions import Form, JsonLines, Lines, form_of, write
    from featurestore.errors import NotReadBackError
    from featurestore.models.checkpoint import TrainedModel
    from featurestore.models.inference import predict as predict_labels

    trained = TrainedModel.load(model)
    by_name = stores_of(trained, stores)
    examples = reading.open(corpus)

    def write_labelled(form: Form) -> None:
        labelled = predict_labels(
            trained, by_name, examples, device=device, on_missing=on_missing, token_budget=token_budget
        )
        with writing(output) as stream:
            write(labelled, form, stream)

    what = (output, trained.label, trained.label_kind, examples)
    form = JsonLines(output, trained.label_kind, examples) if as_json else form_of(*what)
    with remedy_reads_alike(reading, by_name.values()):
        try:
            write_labelled(form)
        except NotReadBackError:
            if not isinstance(form, Lines):
                raise
            # A column file with named columns can hold a token such as -DOCSTART-, else a mark between
            # documents.
            write_labelled(form_of(*what, names=True))
