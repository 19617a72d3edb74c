"""``import``: vectors that other tools wrote become a store."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.completing import files, words
from featurestore.cli.display import render
from featurestore.cli.flags import CODECS, json_option, progress_option
from featurestore.cli.options import Reading, parse_size, reading_options
from featurestore.cli.project.command import command
from featurestore.cli.selecting import bar

_FORMATS = ("allennlp-hdf5", "bilm-tf", "bio-embeddings", "elmoformanylangs", "npy", "safetensors")
"""Those of the package exchange, written again because importing it must not be needed for help."""


@command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "format_from",
    required=True,
    metavar="FORMAT",
    shell_complete=words(*_FORMATS),
    help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}.",
)
@click.option(
    "--corpus",
    "--tokens",
    "corpus",
    metavar="FILE",
    shell_complete=files,
    help="The sentences, where the file does not hold them: the very text that was encoded.",
)
@click.option(
    "--recipe-note",
    "note",
    required=True,
    metavar="TEXT",
    help="What you know of the vectors: which model made them, which layers, when. It goes into the recipe.",
)
@click.option(
    "-o",
    "--output",
    "--store",
    "store",
    type=click.Path(path_type=Path),
    required=True,
    metavar="NEW",
    help="The store to make; or the empty one that a killed import left.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["error", "first", "last", "mean"]),
    default="error",
    show_default=True,
    help="Which vectors are taken for a sentence that comes more than once with different ones.",
)
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    help="How they are stored.  [default: float16 for vectors of float16, else float32]",
)
@click.option("--shard-size", default="128MiB", show_default=True, metavar="SIZE", help="Size of a shard.")
@reading_options
@progress_option
@json_option
def import_(
    file: Path,
    format_from: str,
    corpus: str | None,
    note: str,
    store: Path,
    duplicates: str,
    codec: str | None,
    shard_size: str,
    reading: Reading,
    no_progress: bool,
    as_json: bool,
) -> None:
    """Make a store of vectors that another tool wrote.

    Its recipe says where they come from and what is not known of them; no encoder can add to it. Everything
    is committed at once: what is killed leaves an empty store, and the same command fills it.
    """
    from featurestore.exchange.importing import import_vectors

    opened = None if corpus is None else reading.open(corpus)
    with bar("importing", None, no_progress or as_json, unit="token") as progress:
        done = import_vectors(
            file, format_from, store, note=note, corpus=opened, duplicates=duplicates, codec=codec,
            shard_bytes=parse_size(shard_size), progress=progress,
        )  # fmt: skip
    if as_json:
        render.echo_json({**vars(done), "path": str(done.path), "source": str(file)})
        return
    layers = f"{done.n_layers} x " if done.n_layers > 1 else ""
    click.echo(
        f"imported {render.count(done.n_sentences, 'sentence')}, {done.n_tokens:,} tokens of "
        f"{layers}{done.dim} "
        f"values into {done.path}: {render.size(done.n_bytes)} ({done.codec})"
    )
    if done.relative_l2:
        click.echo(f"the codec lost {done.relative_l2:.2g} of their length (relative L2)")
    if done.n_repeats:
        click.echo(
            f"{render.count(done.n_repeats, 'repeat')} of sentences, {done.n_differing:,} with other vectors"
        )
    if done.n_differing:
        click.echo(
            f"they differ by a relative L2 of {done.mean_relative_l2:.3g} on average, "
            f"{done.max_relative_l2:.3g} at "
            f"most; taken: {done.duplicates}"
        )
    if done.n_unused:
        click.echo(
            f"{render.count(done.n_unused, 'sentence')} of {file} not imported: no sentence asked for them",
            err=True,
        )
