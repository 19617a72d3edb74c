"""``warm-up``: the fixed state in which a model starts every sentence, made once from text."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from featurestore.cli.completing import encoders
from featurestore.cli.display import render
from featurestore.cli.flags import corpora_argument, device_option, json_option, progress_option
from featurestore.cli.options import Reading, reading_options
from featurestore.cli.project.command import command
from featurestore.encoders.base import DEFAULT_WARM_UP_TOKENS


@command("warm-up")
@click.argument("model", shell_complete=encoders)
@corpora_argument
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=DEFAULT_WARM_UP_TOKENS,
    show_default=True,
    help="Read no more of the corpora than this.",
)
@device_option
@click.option(
    "-o",
    "--output",
    "--out",
    "out",
    type=click.Path(path_type=Path),
    help="File to write.  [default: beside the weights]",
)
@click.option("--force", is_flag=True, help="Replace another state; stores made with it no longer match.")
@reading_options
@progress_option
@json_option
def warm_up(
    model: str,
    corpora: tuple[str, ...],
    max_tokens: int,
    device: str,
    out: Path | None,
    force: bool,
    reading: Reading,
    no_progress: bool,
    as_json: bool,
) -> None:
    """Make the fixed state in which MODEL starts every sentence, for --initial-state warm.

    ELMo was trained with its state carried from sentence to sentence. This runs the model over text that way,
    and keeps the mean state after a sentence in a small file beside the weights. Its hash becomes part of the
    recipe of stores made with it. MODEL is an encoder in files, such as elmo:original or elmo:./FOLDER; each
    CORPUS holds sentences in the order of running text.
    """
    from tqdm import tqdm

    from featurestore.encoders.loading import warm_up_encoder

    opened = [reading.open(path) for path in corpora]
    sentences = (example.tokens for corpus in opened for example in corpus)
    hidden = no_progress or as_json or not sys.stderr.isatty()
    with tqdm(unit=" tokens", unit_scale=True, desc="warming up", disable=hidden) as progress:
        made = warm_up_encoder(
            model,
            sentences,
            max_tokens=max_tokens,
            device=device,
            out=out,
            force=force,
            progress=progress.update,
        )
    if as_json:
        render.echo_json({**vars(made), "path": str(made.path)})
        return
    text = f"{render.count(made.n_sentences, 'sentence')}, {render.count(made.n_tokens, 'token')}"
    click.echo(
        render.facts(
            [
                ("model", made.spec),
                ("text", f"{text} in {render.count(made.n_streams, 'stream')}"),
                ("sha256", made.sha256),
                ("wrote" if made.written else "unchanged", str(made.path)),
            ]
        )
    )
    if made.in_place:
        click.echo(f"use it: featurestore extract CORPUS... --encoder {made.spec} --initial-state warm")
    else:
        click.echo("the model looks for it beside its weights: put it there as NAME.warm.hdf5 to use it")
