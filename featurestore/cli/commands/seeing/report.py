"""``report``: one page that says what is in a store, whether it is sound, and what its vectors are like."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from featurestore.cli.display import render
from featurestore.cli.flags import json_option, progress_option, sample_option, seed_option
from featurestore.cli.options import Reading, reading_options
from featurestore.cli.project.command import command
from featurestore.cli.store import store_argument
from featurestore.errors import UsageError


@command()
@store_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The page.  [default: STORE's name and -report.html, in this folder]",
)
@click.option(
    "--corpus", metavar="FILE", help="A labelled corpus that is stored, to read labels off the vectors."
)
@click.option("--label", metavar="NAME|N", help="Which label of the corpus, as for train.")
@sample_option("Sentences whose vectors are read, drawn at random; 0 reads all.")
@seed_option("the random draw and of the map")
@click.option(
    "--verify", "whole", is_flag=True, help="Compare every byte, as verify does; else the structure."
)
@reading_options
@progress_option
@json_option
def report(
    store: Path, snapshot: int | None, output: Path | None, corpus: str | None, label: str | None,
    sample: int, seed: int, whole: bool, reading: Reading, no_progress: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a page of a store: contents, health, sizes, commits, what the vectors are like.

    With --corpus and --label it says which layer a label is best read off, and colours the map of tokens.
    The page is one file that needs no network and runs no script; --json prints what it says instead. Exits
    with 3 if something damaged was found; the page is written all the same and says so.
    """
    from featurestore.report.measuring import report_on
    from featurestore.store.store import Store

    if (corpus is None) != (label is None):
        raise UsageError("give --corpus and --label together: a labelled corpus, and which of its labels")
    opened = Store.open(store, snapshot=snapshot, check="always")
    quiet = no_progress or as_json or not sys.stderr.isatty()
    made = report_on(
        opened, sample=sample, seed=seed, whole=whole, label=label or "",
        examples=None if corpus is None else reading.open(corpus, label),
        progress=None if quiet else lambda step: click.echo(f"measuring: {step}", err=True),
    )  # fmt: skip
    if as_json:
        render.echo_json(made.to_dict())
    else:
        from featurestore.disk.atomic import write_atomic
        from featurestore.report.page.rendering import render_page

        page = Path(f"{store.resolve().name}-report.html") if output is None else output
        write_atomic(page, render_page(made).encode("utf-8"))
        click.echo(f"wrote {page}: open it in a browser")
        for finding in made.health.findings:
            click.echo(f"damaged: {render.printable(finding)}", err=True)
    if not made.health.is_sound:
        raise click.exceptions.Exit(3)
