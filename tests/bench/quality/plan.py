"""The plan of the quality benchmark: rows, columns, trainings, and which of them are done."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.quality.carried_store import carried_recipe
from tests.bench.result_lines import append_line, read_lines
from tests.kit.programs import program

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "quality.jsonl"
SPLITS = ("train", "dev", "test")
TAGGING, SENTIMENT = "ud-ewt/en_ewt-ud-{}.conllu", "sentence-polarity/{}.tsv"


@dataclass(frozen=True)
class Row:
    """Features.

    Attributes
    ----------
    title : str
        In the table; ``{encoder}`` stands for the specification.
    model : str
        ``trained``, ``untrained`` or ``plain`` (no store at all).
    layers, codec, state : str
        As ``extract`` takes them; also the state ``carried``.
    """

    title: str
    model: str = "trained"
    layers: str = "average"
    codec: str = "float32"
    state: str = "auto"


ROWS = {
    "untrained": Row("untrained, same shape, average of layers", "untrained"),
    "layer0": Row("{encoder}, layer 0 only", layers="0"),
    "average": Row("{encoder}, average of layers"),
    "top": Row("{encoder}, top layer", layers="top"),
    "mix": Row("{encoder}, learned mix of all layers", layers="all"),
    "zero": Row("{encoder}, {layers}, initial state zero", state="zero"),
    "warm": Row("{encoder}, {layers}, initial state warm", state="warm"),
    "carried": Row("{encoder}, {layers}, state carried (not for use)", state="carried"),
    "float16": Row("{encoder}, {layers}, stored as float16", codec="float16"),
    "int8": Row("{encoder}, {layers}, stored as int8", codec="int8"),
    "plain": Row("plain model, its own word and character embeddings", "plain"),
}  # fmt: skip
VARIANTS = ("zero", "warm", "carried", "float16", "int8")
"""Rows that take their layers from --layers."""


@dataclass(frozen=True)
class Column:
    """A model on a task: ``plain`` is what plain_tagger.py calls the task, where it has such a model."""

    title: str
    command: str
    model: str
    label: str
    files: str
    plain: str | None = None


COLUMNS = {
    "linear-upos": Column("linear probe UPOS", "tagger", "linear", "upos", TAGGING),
    "bilstm-upos": Column("BiLSTM UPOS", "tagger", "bilstm", "upos", TAGGING, "upos"),
    "meanpool-sentiment": Column("mean-pool sentiment", "classifier", "meanpool", "label", SENTIMENT),
    "bilstm-sentiment": Column("BiLSTM sentiment", "classifier", "bilstm", "label", SENTIMENT, "sentiment"),
}


@dataclass(frozen=True)
class Setup:
    """What holds for the whole run.

    Attributes
    ----------
    corpora, work : Path
    encoder, untrained, precision : str
    options : dict
        More options of ``train``, by column.
    """

    corpora: Path
    work: Path
    encoder: str = "elmo:demo"
    untrained: str = "elmo:untrained-demo?seed=0"
    precision: str = "float32"
    options: dict[str, tuple[str, ...]] | None = None

    def file(self, column: Column, split: str) -> str:
        return str(self.corpora / column.files.format(split))

    @property
    def files(self) -> list[str]:
        """Every corpus, in the order in which a store takes them in."""
        return [str(self.corpora / files.format(split)) for files in (TAGGING, SENTIMENT) for split in SPLITS]

    def train_options(self, column: str) -> tuple[str, ...]:
        return (self.options or {}).get(column, ())

    def digest(self) -> str:
        """Return the hash of all corpora."""
        total = hashlib.sha256()
        for file in self.files:
            total.update(hashlib.sha256(Path(file).read_bytes()).digest())
        return total.hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """One training: the key under which its result is kept, and the commands that make it.

    Attributes
    ----------
    source : str
        What the features are: recipe and codec, or the plain model's script.
    commands : tuple
        To run in order; the last prints the accuracy.
    """

    row: str
    column: str
    seed: int
    source: str
    options: tuple[str, ...]
    corpora: str
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal experiments, whatever row they stand in."""
        return self.column, self.seed, self.source, self.options, self.corpora


@dataclass(frozen=True)
class Step:
    """A row's store (None for the plain model), the command that fills it, and what is trained on it."""

    row: str
    store: Path | None
    command: tuple[str, ...]
    cells: tuple[Cell, ...]


class Results:
    """The finished trainings, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in read_lines(path):
            self._rows[self._key(row)] = row

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["column"], row["seed"], row["source"], tuple(row["options"]), row["corpora"]

    def get(self, cell: Cell) -> dict[str, Any] | None:
        return self._rows.get(cell.key)

    def add(self, row: dict[str, Any]) -> None:
        with self._lock:
            append_line(self.path, row)
            self._rows[self._key(row)] = row


def make_plan(
    setup: Setup, rows: Iterable[str], columns: Sequence[str], seeds: int, layers: str
) -> list[Step]:
    """Return the steps of a run, in the order of the table; loads no model."""
    corpora = setup.digest()
    steps = []
    for name in rows:
        row = ROWS[name] if name not in VARIANTS else replace(ROWS[name], layers=layers)
        source, store, command = _source(setup, row)
        cells = tuple(
            Cell(
                name,
                column,
                seed,
                source,
                setup.train_options(column) if store else (),
                corpora,
                _commands(setup, column, seed, store, name),
            )
            for column in columns
            if store or COLUMNS[column].plain
            for seed in range(seeds)
        )
        steps.append(Step(name, store, command, cells))
    return steps


def _source(setup: Setup, row: Row) -> tuple[str, Path | None, tuple[str, ...]]:
    """Return what a row's features are, and the store and the command that makes them."""
    from featurestore.encoders.loading import encoder_recipe

    if row.model == "plain":
        digest = hashlib.sha256((HERE / "plain_tagger.py").read_bytes()).hexdigest()
        return f"plain-{digest[:16]}", None, ()
    spec = setup.encoder if row.model == "trained" else setup.untrained
    chosen = {"layers": row.layers, "precision": setup.precision}
    if row.state == "carried":
        recipe = carried_recipe(setup.files, spec, **chosen)
        start = program("tests.bench.quality.carried_store", *setup.files)
        state = []
    else:
        recipe = encoder_recipe(spec, initial_state=row.state, **chosen)
        start = [sys.executable, "-m", "featurestore", "extract", *setup.files]
        state = ["--initial-state", row.state]
    source = f"{recipe.fingerprint[:16]}-{row.codec}"
    store = setup.work / "stores" / source
    options = ["--layers", row.layers, "--codec", row.codec, "--precision", setup.precision, *state]
    return source, store, (*start, "--store", str(store), "--encoder", spec, *options, "--json")


def _commands(
    setup: Setup, column_name: str, seed: int, store: Path | None, row: str
) -> tuple[tuple[str, ...], ...]:
    column = COLUMNS[column_name]
    if store is None:
        script = program("tests.bench.quality.plain_tagger", "--task", column.plain)
        return ((*script, "--seed", str(seed), "--corpora", str(setup.corpora), "--json"),)
    out = setup.work / "models" / f"{row}-{column_name}-{seed}.h5"
    start = [sys.executable, "-m", "featurestore"]
    train = [
        *start, "train", column.command, "--store", str(store), "--model", column.model,
        "--train", setup.file(column, "train"), "--dev", setup.file(column, "dev"), "--label", column.label,
        "--seed", str(seed), "--out", str(out), *setup.train_options(column_name), "--json",
    ]  # fmt: skip
    test = [*start, "evaluate", str(out), setup.file(column, "test"), "--store", str(store), "--json"]
    return tuple(train), tuple(test)
