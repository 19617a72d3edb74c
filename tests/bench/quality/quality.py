"""How good the vectors are: test accuracy of light models on them, by row of features and column of task.

    python -m tests.bench.quality.quality --seeds 3 --jobs 2
    python -m tests.bench.quality.quality --rows average,mix --columns linear-upos --dry-run
    python -m tests.bench.quality.quality --encoder elmo:DIR/options.json,DIR/weights.hdf5 --rows mix

Everything goes through the ordinary commands, each a process of its own: `featurestore extract` into a store
per row (UD EWT and sentence-polarity together), `train tagger` or `train classifier`, which choose the epoch
on dev, and `evaluate` on the official test split. Two rows do not: the carried one, whose store
carried_store.py makes because `extract` refuses to, and the plain model with embeddings of its own
(plain_tagger.py).

What each trained model scored is appended to a file of results at once, with its commands, so that an
interrupted run goes on where it stopped; the file in the repository is the one behind the README's table.
A result counts for a row only if it was made with the same recipe (weights included), codec, corpora and
training options; rows that turn out to be the same share store and results.
Prints the table as Markdown: mean and sample standard deviation over the seeds.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from tests.bench.machine import machine
from tests.bench.quality.plan import (
    COLUMNS,
    HERE,
    RESULTS,
    ROWS,
    VARIANTS,
    Cell,
    Results,
    Setup,
    Step,
    make_plan,
)
from tests.kit.programs import environment


def run_command(command: Sequence[str], threads: int) -> dict[str, Any]:
    """Run a command of ours and return the JSON it printed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=environment(OMP_NUM_THREADS=str(threads))
    )
    if done.returncode:
        raise click.ClickException(f"exit code {done.returncode} from: {shlex.join(command)}\n{done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_cell(cell: Cell, threads: int) -> dict[str, Any]:
    """Train and evaluate; return the line of the results file."""
    started = time.perf_counter()
    printed: dict[str, Any] = {}
    for command in cell.commands:
        if "--out" in command:
            Path(command[command.index("--out") + 1]).parent.mkdir(parents=True, exist_ok=True)
        printed.update(run_command(command, threads))
    if "model" in printed:
        Path(printed["model"]).unlink(missing_ok=True)
    dev = printed["dev"]
    return {
        "row": cell.row,
        "column": cell.column,
        "seed": cell.seed,
        "source": cell.source,
        "options": list(cell.options),
        "corpora": cell.corpora,
        "accuracy": printed["accuracy"],
        "dev": dev["accuracy"] if isinstance(dev, dict) else dev,
        "best_epoch": printed["best_epoch"],
        "epochs": len(printed["history"]) if "history" in printed else printed["epochs"],
        "layer_weights": printed.get("layer_weights"),
        "seconds": round(time.perf_counter() - started, 1),
        "threads": threads,
        "commands": [_anywhere(command) for command in cell.commands],
        "commit": commit(),
        "machine": machine(),
    }


def _anywhere(command: Sequence[str]) -> str:
    """Return a command as it would be given in any checkout."""
    return shlex.join(command).replace(sys.executable, "python")


class Stage:
    """A row at work: its store is made when its first training begins, and dropped after its last."""

    def __init__(self, step: Step, n_cells: int, threads: int, drop_store: bool) -> None:
        self._step, self._left, self._threads, self._drop_store = step, n_cells, threads, drop_store
        self._lock = threading.Lock()
        self._made = not step.command

    def train(self, cell: Cell, results: Results) -> None:
        """Run a cell's commands and keep the result."""
        with self._lock:
            if not self._made:
                started = time.perf_counter()
                run_command(self._step.command, self._threads)
                seconds = time.perf_counter() - started
                click.echo(f"{self._step.row}: {self._step.store}, {seconds:.0f} s", err=True)
                self._made = True
        result = run_cell(cell, self._threads)
        results.add(result)
        click.echo(
            f"{cell.row} {cell.column} seed {cell.seed}: {100 * result['accuracy']:.2f}, "
            f"epoch {result['best_epoch']} of {result['epochs']}, {result['seconds']:.0f} s",
            err=True,
        )
        with self._lock:
            self._left -= 1
            if not self._left and self._drop_store and self._step.store:
                shutil.rmtree(self._step.store)


def run(steps: Iterable[Step], results: Results, *, jobs: int, drop_stores: bool) -> None:
    """Make what is missing, row after row; as many trainings as there are jobs run side by side."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    taken: set[tuple[Any, ...]] = set()
    with ThreadPoolExecutor(jobs) as pool:
        futures = []
        for step in steps:
            missing = [c for c in step.cells if results.get(c) is None and c.key not in taken]
            taken.update(cell.key for cell in missing)
            stage = Stage(step, len(missing), threads, drop_stores)
            futures += [pool.submit(stage.train, cell, results) for cell in missing]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def planned(step: Step, results: Results) -> str:
    """Return what is left of a step: its commands, those of one seed for all."""
    missing = [cell for cell in step.cells if results.get(cell) is None]
    lines = [f"{step.row}: {len(step.cells) - len(missing)} of {len(step.cells)} trainings done"]
    if missing and step.command:
        lines.append(f"    {shlex.join(step.command)}")
    for column in dict.fromkeys(cell.column for cell in missing):
        cells = [cell for cell in missing if cell.column == column]
        lines.append(f"  {column}, seed {', '.join(str(cell.seed) for cell in cells)}")
        lines += [f"    {shlex.join(command)}" for command in cells[0].commands]
    return "\n".join(lines)


def table(steps: Sequence[Step], columns: Sequence[str], results: Results, encoder: str, layers: str) -> str:
    """Return the table as Markdown, with what the seeds are and how layers were mixed."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in (cell for step in steps for cell in step.cells):
        result = results.get(cell)
        if result is not None:
            found.setdefault((cell.row, cell.column), []).append(result)
    counts = [len(cells) for cells in found.values()]
    usual = statistics.mode(counts) if counts else 0
    words = {"average": "average of layers", "all": "learned mix"}.get(layers, f"layers {layers}")
    lines = ["| features | " + " | ".join(COLUMNS[column].title for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for step in steps:
        title = ROWS[step.row].title.format(encoder=encoder, layers=words)
        shown = [score(found.get((step.row, column), []), usual) for column in columns]
        lines.append(f"| {title} | " + " | ".join(shown) + " |")
    seeds = "1 seed" if usual == 1 else f"{usual} seeds"
    lines += [
        "",
        f"Test accuracy in percent: mean ± sample standard deviation over {seeds} (where another number, it "
        "stands in brackets); the epoch was chosen on dev.",
    ]
    for (row, column), cells in found.items():
        weights = [cell["layer_weights"] for cell in cells if cell.get("layer_weights")]
        if weights:
            means = ", ".join(f"{statistics.mean(shares):.2f}" for shares in zip(*weights, strict=True))
            lines.append(f"Layers weigh {means} in {row}, {COLUMNS[column].title}.")
    return "\n".join(lines)


def score(cells: Sequence[dict[str, Any]], usual: int) -> str:
    """Return a cell of the table."""
    if not cells:
        return "–"
    values = [100 * cell["accuracy"] for cell in cells]
    text = f"{statistics.mean(values):.2f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2f}"
    return text if len(values) == usual else f"{text} ({len(values)})"


def commit() -> str:
    """Return the checkout's commit, and whether files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(HERE), *arguments], stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ":/featurestore", ":/tests/bench")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def _names(known: Iterable[str]) -> Any:
    def parse(context: click.Context, option: click.Parameter, text: str) -> list[str]:
        chosen = list(known) if text == "all" else text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise click.BadParameter(f"no {', '.join(unknown)}: choose from {', '.join(known)}")
        return chosen

    return parse


@click.command()
@click.option("--corpora", type=click.Path(path_type=Path, exists=True), default=Path("../shared/corpora"))
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("features/quality"),
    show_default=True,
    help="Stores and models.",
)
@click.option(
    "--results",
    "results_path",
    type=click.Path(path_type=Path),
    default=RESULTS,
    help="What is there is not done again.  [default: tests/bench/results/quality.jsonl]",
)
@click.option("--rows", default="all", show_default=True, callback=_names(ROWS))
@click.option("--columns", default="all", show_default=True, callback=_names(COLUMNS))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many, from 0 on.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trainings side by side; they share the cores.",
)
@click.option("--encoder", default="elmo:demo", show_default=True)
@click.option("--untrained", default="elmo:untrained-demo?seed=0", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of extraction, in all rows.",
)
@click.option(
    "--layers",
    default="average",
    show_default=True,
    help=f"Of the rows {', '.join(VARIANTS)}: average, or all for the learned mix.",
)
@click.option("--train-options", default="", help="More options of featurestore train, for all columns.")
@click.option("--column-options", nargs=2, multiple=True, metavar="COLUMN TEXT", help="The same for one.")
@click.option("--drop-stores", is_flag=True, help="Delete each store after its last training.")
@click.option("--dry-run", is_flag=True, help="Print what would be run, and the table so far.")
def main(
    corpora: Path,
    work: Path,
    results_path: Path,
    rows: list[str],
    columns: list[str],
    seeds: int,
    jobs: int,
    encoder: str,
    untrained: str,
    precision: str,
    layers: str,
    train_options: str,
    column_options: tuple[tuple[str, str], ...],
    drop_stores: bool,
    dry_run: bool,
) -> None:
    options = {name: shlex.split(train_options) for name in COLUMNS}
    for name, text in column_options:
        if name not in options:
            raise click.BadParameter(f"no column {name}", param_hint="--column-options")
        options[name] += shlex.split(text)
    setup = Setup(
        corpora, work, encoder, untrained, precision, {name: tuple(more) for name, more in options.items()}
    )
    steps = make_plan(setup, rows, columns, seeds, layers)
    results = Results(results_path)
    if dry_run:
        for step in steps:
            click.echo(planned(step, results))
    else:
        run(steps, results, jobs=jobs, drop_stores=drop_stores)
    click.echo(table(steps, columns, results, encoder, layers))
    click.echo(f"{machine()}; commit {commit()}; extraction in {precision}")
    if any(options.values()):
        click.echo("training options: " + "; ".join(f"{c}: {shlex.join(o)}" for c, o in options.items() if o))


if __name__ == "__main__":
    main()
