"""What the examples share: their options, the files of a corpus, errors without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from featurestore import Example, open_corpus
from featurestore.disk.destination import require_writable
from featurestore.encoders.base import DEFAULT_ENCODER
from featurestore.errors import FeaturestoreError, LabelError, UsageError

SPLITS = ("train", "dev", "test")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class ExampleCommand(click.Command):
    """A command that says in one message what is wrong, and exits with featurestore's code for it.

    That no model can be written to its ``--out`` shows before anything is done.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        try:
            if "out" in ctx.params:
                require_writable(ctx.params["out"] / "model.pt")
            return super().invoke(ctx)
        except FeaturestoreError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            if error.name != "flair":
                raise
            click.echo("error: this needs Flair: pip install 'featurestore[flair]'", err=True)
            ctx.exit(2)


def example_options(
    name: str, *, label: str, epochs: int
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the argument and options of an example.

    Parameters
    ----------
    name : str
        Where it saves its model by default: ``runs/NAME``.
    label : str
        The default of ``--label``.
    epochs : int
        The default of ``--epochs``.
    """
    options = [
        click.argument("corpus", type=_FOLDER),
        click.option("--cached/--live", default=True, show_default=True,
                     help="Run ELMo once and read its vectors from a store, or run it for every batch."),
        click.option("--encoder", default=DEFAULT_ENCODER, show_default=True,
                     help="Which ELMo, such as elmo:original or elmo:./FOLDER."),
        click.option("--store", default="features/examples", show_default=True,
                     help="Where --cached keeps the vectors; made if it is not there."),
        click.option("--label", default=label, show_default=True,
                     help="Which label of the corpus: a column or field."),
        click.option("--epochs", type=click.IntRange(1), default=epochs, show_default=True),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=f"runs/{name}",
                     show_default=True, help="Folder for the model."),
    ]  # fmt: skip

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def split_files(corpus: Path) -> dict[str, Path]:
    """Return the files of a corpus by split: ``train`` and ``dev``, and ``test`` if it is there.

    Parameters
    ----------
    corpus : Path
        A folder with files such as ``train.tsv`` or ``train.conllu.gz``.

    Raises
    ------
    UsageError
        If one is missing, or there are two of a kind.
    """
    files = {}
    for split in SPLITS:
        found = sorted(path for path in corpus.iterdir() if path.name.split(".")[0] == split)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UsageError(f"{corpus} has {len(found)} files for {split}, expected one: {names}")
        if found:
            files[split] = found[0]
        elif split != "test":
            raise UsageError(f"{corpus} has no file for {split}: expected one such as {split}.tsv")
    return files


def labelled(path: Path, label: str, per: str) -> list[Example]:
    """Read a file whose labels are one for each sentence, or one for each token.

    Parameters
    ----------
    path : Path
    label : str
        Which column or field, as :func:`featurestore.open_corpus` takes it.
    per : {"sentence", "token"}

    Raises
    ------
    CorpusError
        If it cannot be read.
    LabelError
        If its labels are of the other kind.
    """
    examples = list(open_corpus(path, label=label))
    for example in examples:
        if isinstance(example.labels, str) != (per == "sentence"):
            found = "token" if per == "sentence" else "sentence"
            raise LabelError(
                f"the label {label!r} is one for each {found}: expected one for each {per}",
                path=example.path,
                line=example.line,
            )
    return examples
