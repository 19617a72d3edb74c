"""``export``: vectors carried out of a store, in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featurestore.cli.completing import words
from featurestore.cli.display import render
from featurestore.cli.flags import json_option, progress_option
from featurestore.cli.options import Reading, reading_options
from featurestore.cli.project.command import command
from featurestore.cli.selecting import (
    Asked,
    bar,
    opened_to_copy,
    selection_options,
    store_argument,
)
from featurestore.errors import UsageError

_FORMATS = (
    "npy", "safetensors", "allennlp-hdf5", "parquet", "arrow", "datasets", "word2vec", "word2vec-binary",
    "tensorboard",
)  # fmt: skip
"""Those of the package exchange, written again because importing it must not be needed for help."""


@command()
@store_argument
@click.option(
    "--to",
    "format_to",
    required=True,
    metavar="FORMAT",
    shell_complete=words(*_FORMATS),
    help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The file, or for npy, datasets and tensorboard the folder; it must not exist yet.",
)
@selection_options
@click.option(
    "--label",
    metavar="NAME|N",
    help="With one --corpus, or several to datasets: the labels go beside the vectors.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Of the values.  [default: float16 where they are stored so, else float32]",
)
@click.option(
    "--rows",
    type=click.Choice(["sentence", "token"]),
    help="What a row of parquet, arrow or datasets is.  [default: sentence]",
)
@reading_options
@progress_option
@json_option
def export(
    store: Path,
    format_to: str,
    output: Path,
    label: str | None,
    dtype: str | None,
    rows: str | None,
    reading: Reading,
    no_progress: bool,
    as_json: bool,
    **selection: Any,
) -> None:  # fmt: skip
    """Write vectors with their tokens into a format of others.

    All sentences in stored order, or those selected; those of one --corpus in its own order, with its labels
    by --label. Several to datasets become the splits of a DatasetDict, called by what their names do not
    have in common. The file appears when it is complete.
    """
    from featurestore.exchange.data_sets import split_names
    from featurestore.exchange.exporting import export as write

    if str(output) == "-":
        raise UsageError("an export goes to a file or folder, which appears when it is complete, not to -")
    opened, asked = opened_to_copy(store), Asked(**selection)
    corpora_alone = not asked.key_files and asked.text is None and asked.sample is None
    in_order = len(asked.corpora) == 1 and corpora_alone
    in_splits = len(asked.corpora) > 1 and corpora_alone and format_to == "datasets"
    if label is not None and not in_order and not in_splits:
        raise UsageError(
            "--label goes with one --corpus, whose labels are read, and no other selection; with several "
            "only --to datasets"
        )
    options: dict[str, Any] = {"dtype": dtype, "rows": rows}
    if in_splits:
        names = split_names(asked.corpora)
        opened_corpora = (reading.open(path, label) for path in asked.corpora)
        options["splits"] = dict(zip(names, opened_corpora, strict=True))
    elif in_order:
        options["corpus"] = reading.open(asked.corpora[0], label)
    elif asked.any:
        options["selection"] = asked.of(opened, reading)
    with bar("exporting", None, no_progress or as_json, unit="token") as progress:
        done = write(opened, output, format_to, progress=progress, **options)
    if as_json:
        render.echo_json({**vars(done), "path": str(done.path), "store": str(store)})
        return
    click.echo(
        f"wrote {render.count(done.n_sentences, 'sentence')}, {done.n_tokens:,} tokens to {done.path}: "
        f"{render.size(done.n_bytes)} ({done.format})"
    )
