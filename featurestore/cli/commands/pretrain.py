"""``pretrain``: a biLM of your own from plain text."""

from __future__ import annotations

import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.completing import words
from featurestore.cli.display import render
from featurestore.cli.flags import corpora_argument, device_option, json_option, options, progress_option
from featurestore.cli.interrupts import Terminated, terminable
from featurestore.cli.options import Reading, reading_options
from featurestore.cli.project.command import command

if TYPE_CHECKING:
    from featurestore.pretraining.progress import PretrainProgress
    from featurestore.pretraining.runner import PretrainReport

# The defaults are PretrainConfig's, written again because importing it must not be needed for help; a test
# compares them.
_pretrain_options = options(
    corpora_argument,
    click.option("-o", "--output", "--out", "out", type=click.Path(file_okay=False, path_type=Path),
                 required=True, help="Folder of the model; an unfinished training in it goes on."),
    click.option("--shape", metavar="NAME", show_default="demo",
                 shell_complete=words("demo", "small", "medium", "original"),
                 help="Size of the model: demo, small, medium or original."),
    click.option("--options", "options_file", type=click.Path(dir_okay=False, path_type=Path),
                 help="An options.json instead of --shape."),
    click.option("--epochs", type=click.IntRange(1), default=10, show_default=True,
                 help="Passes over the text."),
    click.option("--streams", type=click.IntRange(1), default=128, show_default=True,
                 help="Texts read side by side."),
    click.option("--steps", type=click.IntRange(1), default=20, show_default=True,
                 help="Steps of truncated back-propagation."),
    click.option("--optimizer", type=click.Choice(["adamw", "adagrad"]), default="adamw", show_default=True,
                 help="adagrad trained the published models."),
    click.option("--lr", type=float, default=2e-3, show_default=True,
                 help="Highest learning rate; it rises at first and falls along a cosine."),
    click.option("--warmup", type=float, default=0.05, show_default=True,
                 help="Share of the steps it rises over."),
    click.option("--weight-decay", type=float, default=0.01, show_default=True, help="Of AdamW."),
    click.option("--clip", type=float, default=1.0, show_default=True, help="Largest norm of the gradient."),
    click.option("--dropout", type=float, default=0.1, show_default=True,
                 help="Share of features zeroed between layers."),
    click.option("--character-dropout", type=float, default=0.0, show_default=True,
                 help="Share of a word's characters zeroed: helps with words the text does not hold."),
    click.option("--min-count", type=click.IntRange(1), default=2, show_default=True,
                 help="Rarer words are predicted as the unknown word."),
    click.option("--max-words", type=click.IntRange(2), default=100_000, show_default=True,
                 help="Most frequent words to predict."),
    click.option("--held-out", type=float, default=0.01, show_default=True,
                 help="Share of the sentences kept for measuring perplexity."),
    click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto",
                 show_default=True, help="Of matrix products; auto: bfloat16 where the hardware has it."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
                 help="Of initial weights, held-out sentences, order and dropout."),
    click.option("--weights-dtype", type=click.Choice(["float32", "float16"]), default="float32",
                 show_default=True, help="Of weights.hdf5: AllenNLP wants float32; float16 is half that."),
    click.option("--licence", "licences", multiple=True, metavar="TEXT",
                 help="A line on a text's source and licence for the model card; may be repeated."),
    device_option,
    click.option("--checkpoint-every", type=click.FloatRange(0), default=300.0, show_default=True,
                 metavar="SECONDS", help="What a kill can cost at most."),
    reading_options,
    progress_option,
    json_option,
)  # fmt: skip


@command()
@_pretrain_options
def pretrain(
    corpora: tuple[str, ...],
    out: Path,
    shape: str | None,
    options_file: Path | None,
    streams: int,
    steps: int,
    weights_dtype: str,
    licences: tuple[str, ...],
    device: str,
    checkpoint_every: float,
    reading: Reading,
    no_progress: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train an ELMo of your own on text: one sentence per line, or any corpus format.

    Learns to predict the next word in both directions, as the published models did. The folder gets
    options.json and weights.hdf5, which featurestore and AllenNLP read, vocabulary.txt, and a model card. A
    checkpoint is written every few minutes; after a kill the same command goes on from it.
    """
    from featurestore.pretraining.runner import Pretraining
    from featurestore.pretraining.settings import PretrainConfig

    config = PretrainConfig(n_streams=streams, n_steps=steps, **settings)
    status, code = "complete", 0
    training = Pretraining(
        [reading.open(path) for path in corpora],
        out,
        _model_options(shape, options_file),
        config,
        device=device,
        weights_dtype=weights_dtype,
        licences=licences,
        command=shlex.join(["featurestore", *sys.argv[1:]]),
        checkpoint_seconds=checkpoint_every,
        progress=_progress(no_progress or as_json),
    )
    with terminable():
        try:
            training.run()
        except Terminated:
            status, code = "terminated", 143
        except KeyboardInterrupt:
            status, code = "interrupted", 130
    report = training.report(status)
    if as_json:
        render.echo_json(report.to_dict())
    else:
        click.echo(_report_text(report))
    if code:
        raise click.exceptions.Exit(code)


def _model_options(shape: str | None, options_file: Path | None) -> Any:
    from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
    from featurestore.errors import UsageError

    if options_file is not None:
        if shape is not None:
            raise UsageError(f"--options {options_file} and --shape {shape} both say the shape: give one")
        return ElmoOptions.read(options_file)
    shape = shape or "demo"
    if shape not in PRESETS:
        raise UsageError(f"unknown shape {shape!r}: expected one of {', '.join(PRESETS)}, or --options FILE")
    return PRESETS[shape]


def _report_text(report: PretrainReport) -> str:
    rows = [
        ("folder", str(report.folder)),
        ("parameters", f"{report.n_parameters:,}"),
        ("words", f"{report.n_types:,} distinct, {report.n_classes:,} predictable"),
        ("tokens", f"{report.n_tokens:,} a pass"),
        ("trained", render.duration(report.seconds)),
    ]
    if report.best is not None:
        rows += [
            (
                "perplexity",
                f"forward {report.best.forward:.1f}, backward {report.best.backward:.1f} "
                f"(held out; after pass {report.best.epoch} of {len(report.history)})",
            ),
            ("weights", f"{report.folder / 'weights.hdf5'}, SHA-256 {report.weights_sha256}"),
            ("use it", f"--encoder elmo:{report.folder.resolve()}"),
        ]
    if report.status != "complete":
        rows.append((report.status, "a checkpoint is written: the same command goes on from it"))
    return render.facts(rows)


def _progress(silent: bool) -> PretrainProgress:
    from featurestore.pretraining.progress import PretrainBar, PretrainProgress, epoch_line, running_mean

    if silent:
        return PretrainProgress()
    if sys.stderr.isatty():
        return PretrainBar()

    class Lines(PretrainProgress):
        """A line every thirty seconds, and one per pass, for logs and pipes."""

        def started(self, n_tokens: int, n_tokens_done: int) -> None:
            self._total, self._done, self._first = n_tokens, n_tokens_done, n_tokens_done
            self._started = self._shown = time.monotonic()
            self._loss: float | None = None

        def advanced(self, n_tokens: int, loss: float) -> None:
            self._done += n_tokens
            self._loss = running_mean(self._loss, loss)
            now = time.monotonic()
            if now - self._shown < 30:
                return
            self._shown = now
            speed = (self._done - self._first) / max(now - self._started, 1e-9)
            click.echo(
                f"{self._done:,} of {self._total:,} tokens ({self._done / self._total:.0%}), "
                f"{speed:,.0f} tokens/s, perplexity {math.exp(min(self._loss, 50)):,.0f}, "
                f"{render.duration((self._total - self._done) / max(speed, 1e-9))} left",
                err=True,
            )

        def epoch_finished(self, report: Any) -> None:
            click.echo(epoch_line(report), err=True)

        def notice(self, message: str) -> None:
            click.echo(message, err=True)

    return Lines()
