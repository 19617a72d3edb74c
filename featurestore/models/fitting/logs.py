"""What a training writes down while it runs, for other tools to plot: a row a step and a row an epoch.

``jsonl``: ``training.jsonl``, an object a line, each written by one call, so that a kill costs half a line at
most. ``csv``: ``steps.csv`` and ``epochs.csv``. ``tensorboard``: event files below ``steps`` and ``epochs``.
A training that goes on from a checkpoint first takes back what was written after it; one that begins takes
the place of what another one wrote.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from featurestore.disk.atomic import write_atomic
from featurestore.disk.explaining import explained
from featurestore.errors import StoreWriteError, UsageError
from featurestore.models.fitting.stopping import Epoch

log = logging.getLogger(__name__)

STEP_FIELDS = ("step", "epoch", "loss", "lr", "tokens_per_second")
EPOCH_FIELDS = ("epoch", "step", "loss", "lr", "score", "metric", "seconds", "tokens_per_second")

Row = Mapping[str, Any]


class Log(ABC):
    """One log of a training.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def begin(self, n_steps: int, n_epochs: int) -> None:
        """Open the log: keep the first ``n_steps`` steps and ``n_epochs`` epochs in it, take back all others.

        Raises
        ------
        StoreWriteError
            If it cannot be written.
        """

    @abstractmethod
    def step(self, row: Row) -> None:
        """Write the row of a step, with :data:`STEP_FIELDS`."""

    @abstractmethod
    def epoch(self, row: Row) -> None:
        """Write the row of an epoch, with :data:`EPOCH_FIELDS`."""

    @abstractmethod
    def flush(self) -> None:
        """Hand what was written to the system."""

    @abstractmethod
    def close(self) -> None:
        """Write no more."""


class _Lines:
    """A file that grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def begin(self, header: bytes, is_kept: Callable[[bytes], bool]) -> None:
        """Keep the header and the lines that are to be kept; half a line that a kill left is not."""
        lines = []
        if self._path.exists():
            with explained(self._path), open(self._path, "rb") as file:
                found = file.read()
            lines = [line for line in found.splitlines(keepends=True) if line.endswith(b"\n")]
        kept = [line for line in lines if line != header and is_kept(line)]
        write_atomic(self._path, b"".join([header, *kept]))
        with explained(self._path):
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (stays open)

    def add(self, line: bytes) -> None:
        """Write a line by one call."""
        if self._file is not None:
            with explained(self._path):
                self._file.write(line)

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()


class JsonLinesLog(Log):
    """``training.jsonl``: objects with ``kind``, which is ``step`` or ``epoch``, and its fields."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lines = _Lines(folder / "training.jsonl")

    def begin(self, n_steps: int, n_epochs: int) -> None:
        """Keep the first ``n_steps`` steps and ``n_epochs`` epochs."""
        most = {"step": n_steps, "epoch": n_epochs}

        def is_kept(line: bytes) -> bool:
            try:
                row = json.loads(line)
                return int(row[row["kind"]]) <= most[row["kind"]]
            except (ValueError, LookupError, TypeError):
                return False

        self._lines.begin(b"", is_kept)

    def step(self, row: Row) -> None:
        """Write the row of a step."""
        self._add("step", row)

    def epoch(self, row: Row) -> None:
        """Write the row of an epoch."""
        self._add("epoch", row)

    def _add(self, kind: str, row: Row) -> None:
        self._lines.add(json.dumps({"kind": kind, **row}).encode() + b"\n")

    def flush(self) -> None:
        """Do nothing: every line was handed over."""

    def close(self) -> None:
        """Write no more."""
        self._lines.close()


class CsvLog(Log):
    """``steps.csv`` and ``epochs.csv``, with the names of the fields in the first row."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._steps, self._epochs = _Lines(folder / "steps.csv"), _Lines(folder / "epochs.csv")

    def begin(self, n_steps: int, n_epochs: int) -> None:
        """Keep the first ``n_steps`` steps and ``n_epochs`` epochs."""
        for lines, fields, most in (
            (self._steps, STEP_FIELDS, n_steps),
            (self._epochs, EPOCH_FIELDS, n_epochs),
        ):

            def is_kept(line: bytes, most: int = most) -> bool:
                number = line.split(b",", 1)[0]
                return number.isdigit() and int(number) <= most

            lines.begin(_csv_line(fields), is_kept)

    def step(self, row: Row) -> None:
        """Write the row of a step."""
        self._steps.add(_csv_line(row[name] for name in STEP_FIELDS))

    def epoch(self, row: Row) -> None:
        """Write the row of an epoch."""
        self._epochs.add(_csv_line(row[name] for name in EPOCH_FIELDS))

    def flush(self) -> None:
        """Do nothing: every line was handed over."""

    def close(self) -> None:
        """Write no more."""
        self._steps.close()
        self._epochs.close()


def _csv_line(values: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


class TensorBoardLog(Log):
    """Event files of two runs, ``steps`` and ``epochs``, with a scalar for each field.

    Event files are only added to. What is taken back stays in them, behind the mark by which TensorBoard's
    own reader leaves it out.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "logs for TensorBoard need the package tensorboard: pip install 'featurestore[tensorboard]'"
            ) from error
        self._open: Any = SummaryWriter
        self._steps: Any = None
        self._epochs: Any = None

    def begin(self, n_steps: int, n_epochs: int) -> None:
        """Keep the first ``n_steps`` steps and ``n_epochs`` epochs."""
        with explained(self.folder):
            _let_a_second_begin(self.folder / "steps")
            # What earlier files hold from purge_step on does not count.
            self._steps = self._open(str(self.folder / "steps"), purge_step=n_steps + 1)
            self._epochs = self._open(str(self.folder / "epochs"), purge_step=n_epochs + 1)

    def step(self, row: Row) -> None:
        """Write the row of a step."""
        _add_scalars(self._steps, row, ("loss", "lr", "tokens_per_second"), row["step"])

    def epoch(self, row: Row) -> None:
        """Write the row of an epoch."""
        _add_scalars(self._epochs, row, ("loss", "lr", "seconds", "tokens_per_second"), row["epoch"])
        self._epochs.add_scalar(f"dev/{row['metric']}", row["score"], row["epoch"])

    def flush(self) -> None:
        """Hand what was written to the system."""
        for writer in (self._steps, self._epochs):
            if writer is not None:
                writer.flush()

    def close(self) -> None:
        """Write no more."""
        for writer in (self._steps, self._epochs):
            if writer is not None:
                writer.close()


def _let_a_second_begin(folder: Path) -> None:
    """Wait until a new event file sorts behind those in a folder: their names hold the time in seconds."""
    seconds = [file.name.split(".")[3] for file in folder.glob("events.out.tfevents.*")]
    latest = max((int(second) for second in seconds if second.isdigit()), default=0)
    while 0 <= latest - int(time.time()) <= 1:
        time.sleep(0.05)


def _add_scalars(writer: Any, row: Row, names: Iterable[str], at: int) -> None:
    for name in names:
        writer.add_scalar(f"train/{name}", row[name], at)


KINDS: dict[str, type[Log]] = {"tensorboard": TensorBoardLog, "csv": CsvLog, "jsonl": JsonLinesLog}
"""Logs by what they are called."""


class Logs:
    """The logs of one training, as :func:`featurestore.models.training.train` takes them; to be closed.

    A log that can no longer be written, as on a full disk, is given up with a warning; the training goes on.

    Parameters
    ----------
    wanted : iterable of (str, path)
        Kind, one of :data:`KINDS`, and folder.

    Raises
    ------
    UsageError
        If a kind is unknown, or its package is not installed.
    """

    def __init__(self, wanted: Iterable[tuple[str, str | os.PathLike[str]]] = ()) -> None:
        self._logs: list[Log] = []
        for kind, folder in wanted:
            if kind not in KINDS:
                raise UsageError(f"no log of the kind {kind!r}: expected one of {', '.join(KINDS)}")
            self._logs.append(KINDS[kind](Path(folder)))

    def begin(self, n_steps: int, n_epochs: int) -> None:
        """Open the logs, with what a training that goes on had written until then.

        Parameters
        ----------
        n_steps, n_epochs : int
            Steps and epochs that were done; 0 for a training that begins.

        Raises
        ------
        StoreWriteError
            If one cannot be written.
        """
        for one in self._logs:
            one.begin(n_steps, n_epochs)

    def step(self, step: int, epoch: int, loss: float, lr: float, speed: float) -> None:
        """Write down a step: its number from 1, its epoch, loss, learning rate, and tokens a second."""
        values = (step, epoch, loss, lr, speed)
        self._each(lambda one: one.step(dict(zip(STEP_FIELDS, values, strict=True))))

    def epoch(self, epoch: Epoch, step: int, metric: str, n_tokens: int) -> None:
        """Write down an epoch, the number of its last step, the name of its score, and its tokens."""
        speed = n_tokens / epoch.seconds if epoch.seconds > 0 else 0.0
        row = {**vars(epoch), "step": step, "metric": metric, "tokens_per_second": speed}
        self._each(lambda one: (one.epoch(row), one.flush()))

    def flush(self) -> None:
        """Hand what was written to the system, before a checkpoint that relies on it."""
        self._each(lambda one: one.flush())

    def close(self) -> None:
        """Close the logs."""
        self._each(lambda one: one.close())

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _each(self, do: Callable[[Log], object]) -> None:
        for one in list(self._logs):
            try:
                do(one)
            except (OSError, StoreWriteError) as error:
                self._logs.remove(one)
                with contextlib.suppress(OSError, StoreWriteError):
                    one.close()
                log.warning("the log in %s ends here, it cannot be written: %s", one.folder, error)
