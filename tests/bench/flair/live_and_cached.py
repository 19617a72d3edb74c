"""Training in Flair with live and with stored vectors, side by side: time, memory, size of the model, score.

    python -m tests.bench.flair.live_and_cached --seeds 3
    python -m tests.bench.flair.live_and_cached --row elmo --task upos --dry-run

Flair's SequenceTagger tags UD EWT, its TextClassifier judges sentence-polarity (official splits), each on
vectors that are live (computed for every batch), kept (the same, with Flair's default of keeping them in
memory), and cached (in a store that `extract` filled). Rows are ELMo, a character model and a transformer of
published sizes, and a stack. Of the character model and the transformer no trained weights are at hand:
theirs are random, so their rows, the stack's too, tell speed and that live and cached agree, never quality,
and the table says so. Such rows are measured on --speed-sentences of train.

Every measurement is a process of its own, one at a time (measure.py); the sides of a seed run one after
the other. Results are appended to WORK/results.jsonl at once, so that an interrupted run goes on where it
stopped; one counts only for the same vectors, corpora, model, epochs and threads. Prints Markdown tables.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from tests.bench.flair.plan import Block, Extent, Results, make_plan
from tests.bench.flair.tables import tables
from tests.bench.flair.tasks import ROWS, SIDES, TASKS, Setup
from tests.bench.machine import machine
from tests.bench.quality.quality import commit, run_command
from tests.kit.programs import program


def random_models(setup: Setup, rows: Iterable[str]) -> dict[Path, tuple[str, ...]]:
    """Return the models with random weights that rows need and that are not there, and what writes them."""
    missing = {}
    for part in dict.fromkeys(part for row in rows for part in ROWS[row] if part != "elmo"):
        path = setup.path(part)
        corpora = [str(setup.files(task)[0]) for task in TASKS] if part == "transformer" else []
        command = program("tests.bench.flair.random_models", part, *corpora)
        if not path.exists():
            missing[path] = (*command, "--shape", setup.shapes[part], "--out", str(path))
    return missing


def run(setup: Setup, blocks: Sequence[Block], results: Results) -> None:
    """Make what is missing, one process at a time."""
    # As an exception, which ends the measurement that is running too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Flair's bars and the warnings it causes in torch are no progress of ours.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    threads = os.cpu_count() or 1
    for path, command in random_models(setup, [block.row for block in blocks]).items():
        run_command(command, threads)
        click.echo(f"wrote {path}", err=True)
    for measurement in (each for block in blocks for each in block.measurements):
        if results.get(measurement) is not None:
            continue
        started = time.perf_counter()
        result = run_command(measurement.command, measurement.threads)
        seconds = round(time.perf_counter() - started, 1)
        results.add(measurement, result, seconds=seconds, commit=commit(), machine=machine())
        click.echo(f"{measurement.shown}, {seconds:.0f} s", err=True)


def planned(setup: Setup, blocks: Sequence[Block], results: Results) -> str:
    """Return the commands that are left; of seeds, those of the first."""
    lines = [
        f"write {path}\n    {shlex.join(command)}"
        for path, command in random_models(setup, [block.row for block in blocks]).items()
    ]
    for block in blocks:
        missing = [each for each in block.measurements if results.get(each) is None]
        done = len(block.measurements) - len(missing)
        lines.append(f"{block.task} {block.row}: {done} of {len(block.measurements)} measurements done")
        first = min((each.seed for each in missing), default=0)
        lines += [f"    {shlex.join(each.command)}" for each in missing if each.seed == first]
    return "\n".join(lines)


@click.command()
@click.option("--corpora", type=click.Path(path_type=Path, exists=True), default=Path("../shared/corpora"))
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("features/flair"),
    show_default=True,
    help="Stores, models and results; what is there is not done again.",
)
@click.option(
    "--task", "tasks", type=click.Choice(list(TASKS)), multiple=True, default=list(TASKS), show_default=True
)
@click.option(
    "--row", "rows", type=click.Choice(list(ROWS)), multiple=True, default=list(ROWS), show_default=True
)
@click.option(
    "--side", "sides", type=click.Choice(list(SIDES)), multiple=True, default=list(SIDES), show_default=True
)
@click.option(
    "--sentences", type=click.IntRange(0), default=0, help="Of train, where weights are trained; 0: all."
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many, from 0 on.")
@click.option(
    "--speed-sentences",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Of train, where weights are random.",
)
@click.option("--speed-epochs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--speed-seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option("--elmo", default="elmo:demo", show_default=True)
@click.option(
    "--characters", default="1x1024", show_default=True, help="Layers and cells of the character model."
)
@click.option("--transformer", default="6x384x12", show_default=True, help="Layers, width and heads.")
@click.option("--dry-run", is_flag=True, help="Print what would be run, and the tables so far.")
def main(
    corpora: Path,
    work: Path,
    tasks: tuple[str, ...],
    rows: tuple[str, ...],
    sides: tuple[str, ...],
    sentences: int,
    epochs: int,
    seeds: int,
    speed_sentences: int,
    speed_epochs: int,
    speed_seeds: int,
    threads: int,
    elmo: str,
    characters: str,
    transformer: str,
    dry_run: bool,
) -> None:
    setup = Setup(corpora, work, elmo, {"characters": characters, "transformer": transformer})
    blocks = make_plan(
        setup, tasks, rows, sides, threads=threads,
        trained=Extent(sentences, epochs, seeds), speed=Extent(speed_sentences, speed_epochs, speed_seeds),
    )  # fmt: skip
    results = Results(work / "results.jsonl")
    if dry_run:
        click.echo(planned(setup, blocks, results))
    else:
        run(setup, blocks, results)
    click.echo(tables(setup, blocks, sides, results))
    click.echo(f"{machine()}; threads: {threads}; commit {commit()}")


if __name__ == "__main__":
    main()
