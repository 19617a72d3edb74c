"""The plan of the Flair benchmark: its measurements, what makes two of them the same, which are done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.flair.tasks import ROWS, TASKS, Setup
from tests.bench.result_lines import append_line, read_lines
from tests.kit.programs import program


@dataclass(frozen=True)
class Extent:
    """How much is measured: sentences of train (0 for all), epochs, seeds from 0 on."""

    sentences: int
    epochs: int
    seeds: int


@dataclass(frozen=True)
class Measurement:
    """One process, and what its result is kept under.

    Attributes
    ----------
    kind : str
        A command of measure.py.
    what : str
        Row, or the embedding of an extraction.
    source : str
        What decides the vectors.
    """

    kind: str
    task: str
    what: str
    side: str
    seed: int
    source: str
    epochs: int
    sentences: int
    threads: int
    corpora: str
    training: str
    command: tuple[str, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal experiments."""
        return tuple(self.named.values())

    @property
    def named(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("command", "what")}

    @property
    def shown(self) -> str:
        more = f" {self.side} seed {self.seed}" if self.side else ""
        return f"{self.task} {self.what}: {self.kind}{more}"


@dataclass(frozen=True)
class Block:
    """A row of a task, with its measurements in the order in which they run."""

    task: str
    row: str
    extent: Extent
    extractions: tuple[Measurement, ...]
    trainings: tuple[Measurement, ...]
    swaps: tuple[Measurement, ...]
    lookup: Measurement

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        return (*self.extractions, *self.trainings, *self.swaps, self.lookup)


class Results:
    """The finished measurements of a work folder, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        for row in read_lines(path):
            self._found[json.dumps(row["of"])] = row["result"]

    def get(self, measurement: Measurement) -> dict[str, Any] | None:
        return self._found.get(json.dumps(measurement.named))

    def add(self, measurement: Measurement, result: dict[str, Any], **more: Any) -> None:
        row = {"of": measurement.named, "result": result, "command": shlex.join(measurement.command), **more}
        append_line(self.path, row)
        self._found[json.dumps(measurement.named)] = result


def make_plan(
    setup: Setup,
    tasks: Iterable[str],
    rows: Sequence[str],
    sides: Sequence[str],
    *,
    trained: Extent,
    speed: Extent,
    threads: int,
) -> list[Block]:
    """Return what is to be measured, in the order of the table; loads no model.

    Parameters
    ----------
    setup : Setup
    tasks, rows, sides : sequence of str
    trained, speed : Extent
        Of rows whose weights are trained, and of those whose weights are random.
    threads : int
        Of every process but those that measure one core.
    """
    return [
        _Planner(
            setup, task, row, speed if setup.is_random(row) else trained, threads, setup.digest(task)
        ).block(sides)
        for task in tasks
        for row in rows
    ]


@dataclass(frozen=True)
class _Planner:
    """Makes the measurements of one row of one task."""

    setup: Setup
    task: str
    row: str
    extent: Extent
    threads: int
    corpora: str

    def block(self, sides: Sequence[str]) -> Block:
        seeds = range(self.extent.seeds)
        return Block(
            self.task,
            self.row,
            self.extent,
            tuple(self._extraction(part) for part in ROWS[self.row]),
            # Sides of a seed one after the other: whatever else the machine does slows them alike.
            tuple(self._training(side, seed) for seed in seeds for side in sides),
            tuple(self._swap(seed) for seed in seeds if "cached" in sides),
            self._of_row("lookup", threads=1),
        )

    def _extraction(self, part: str) -> Measurement:
        return self._measurement("extract", part, self.setup.identity(part), ("--part", part))

    def _training(self, side: str, seed: int) -> Measurement:
        options = ("--side", side, "--seed", str(seed), "--epochs", str(self.extent.epochs))
        out = ("--out", str(self._model(side, seed)))
        return self._of_row("train", *options, *out, side=side, seed=seed, epochs=self.extent.epochs)

    def _swap(self, seed: int) -> Measurement:
        model = self._model("cached", seed) / "model.pt"
        return self._of_row(
            "swap", "--model", str(model), side="cached", seed=seed, epochs=self.extent.epochs
        )

    def _model(self, side: str, seed: int) -> Path:
        name = f"{self.row}-{self.task}-{self.extent.sentences or 'all'}-{self.extent.epochs}-{side}-{seed}"
        return self.setup.work / "models" / name

    def _of_row(self, kind: str, *options: str, **more: Any) -> Measurement:
        source = self.setup.source(self.row)
        return self._measurement(kind, self.row, source, ("--row", self.row, *options), **more)

    def _measurement(
        self,
        kind: str,
        what: str,
        source: str,
        options: Sequence[str],
        *,
        side: str = "",
        seed: int = 0,
        epochs: int = 0,
        threads: int = 0,
    ) -> Measurement:
        task, extent = TASKS[self.task], self.extent
        return Measurement(
            kind, self.task, what, side, seed, source, epochs, extent.sentences, threads or self.threads,
            self.corpora, f"{task.training}, AdamW {task.learning_rate}" if epochs else "",
            (
                *program("tests.bench.flair.measure"), *self.setup.options,
                "--task", self.task, "--sentences", str(extent.sentences), kind, *options,
            ),
        )  # fmt: skip
