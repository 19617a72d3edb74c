"""What the Flair benchmark measures: tasks, the embeddings that its rows are made of, where their files lie.

Flair itself is not needed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from featurestore import Example, open_corpus

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Task:
    """A corpus and the Flair model that is trained on it.

    Attributes
    ----------
    title : str
    files : str
        Below the folder of corpora; ``{}`` is the split.
    label : str
        Column of the files, and Flair's label type.
    unit : str
        What has a label.
    training : str
        The model and its optimiser, in words.
    learning_rate : float
    """

    title: str
    files: str
    label: str
    unit: str
    training: str
    learning_rate: float


TASKS = {
    "upos": Task(
        "UPOS on UD EWT",
        "ud-ewt/en_ewt-ud-{}.conllu",
        "upos",
        "token",
        "SequenceTagger(hidden_size=256, use_crf=False)",
        0.002,
    ),
    "sentiment": Task(
        "Sentiment on sentence-polarity",
        "sentence-polarity/{}.tsv",
        "label",
        "sentence",
        'TextClassifier(DocumentPoolEmbeddings(pooling="mean"))',
        0.002,
    ),
}
BATCH_SIZE = 32

ROWS = {
    "elmo": ("elmo",),
    "characters": ("characters",),
    "transformer": ("transformer",),
    "stack": ("elmo", "characters"),
}
"""A row of the table: the embeddings that are concatenated."""

SIDES = {
    "live": "live, for every batch",
    "kept": "live, kept in memory (Flair's default)",
    "cached": "cached",
}
"""Where vectors come from in training."""


@dataclass(frozen=True)
class Setup:
    """What holds for the whole run.

    Attributes
    ----------
    corpora, work : Path
    elmo : str
        Specification.
    shapes : dict
        Of the models with random weights: ``characters`` as layers and cells, ``transformer`` as layers,
        width and heads.
    """

    corpora: Path
    work: Path
    elmo: str = "elmo:demo"
    shapes: dict[str, str] = field(
        default_factory=lambda: {"characters": "1x1024", "transformer": "6x384x12"}
    )

    @property
    def options(self) -> tuple[str, ...]:
        """The same as options of the scripts."""
        return (
            "--corpora", str(self.corpora), "--work", str(self.work), "--elmo", self.elmo,
            "--characters", self.shapes["characters"], "--transformer", self.shapes["transformer"],
        )  # fmt: skip

    def files(self, task: str) -> list[Path]:
        return [self.corpora / TASKS[task].files.format(split) for split in SPLITS]

    def digest(self, task: str) -> str:
        """Return the hash of a task's corpus."""
        total = hashlib.sha256()
        for file in self.files(task):
            total.update(hashlib.sha256(file.read_bytes()).digest())
        return total.hexdigest()[:16]

    def is_random(self, row: str) -> bool:
        """Return whether an embedding of a row was never trained, so that only its speed means something."""
        return any(part != "elmo" or self.elmo.startswith("elmo:untrained") for part in ROWS[row])

    def title(self, row: str) -> str:
        titles = {
            "elmo": f"ELMo `{self.elmo}`",
            "characters": f"FlairEmbeddings {self.shapes['characters']}",
            "transformer": f"BERT {self.shapes['transformer']}",
        }
        named = " + ".join(titles[part] for part in ROWS[row])
        return f"{named} (random weights: speed only)" if self.is_random(row) else named

    def path(self, part: str) -> Path:
        """Return where a model with random weights lies."""
        ending = {"characters": ".pt", "transformer": ""}[part]
        return self.work / "encoders" / f"{part}-{self.shapes[part]}{ending}"

    def spec(self, part: str) -> str:
        return self.elmo if part == "elmo" else f"flair:{quote(str(self.path(part).absolute()), safe='/')}"

    def identity(self, part: str) -> str:
        """Return what decides the vectors of an embedding: ELMo's recipe, or a shape (the seed is fixed)."""
        from featurestore.encoders.loading import encoder_recipe

        if part != "elmo":
            return f"{part}-{self.shapes[part]}"
        return f"elmo-{encoder_recipe(self.elmo, precision='float32').fingerprint[:16]}"

    def source(self, row: str) -> str:
        return "+".join(self.identity(part) for part in ROWS[row])

    @property
    def stores(self) -> Path:
        return self.work / "stores"

    def store(self, part: str, task: str, sentences: int) -> Path:
        return self.stores / f"{self.identity(part)}-{task}-{sentences or 'all'}"


@dataclass(frozen=True)
class Split:
    """Some sentences of a split, and the size of the whole."""

    examples: Sequence[Example]
    all_sentences: int
    all_tokens: int

    @property
    def n_tokens(self) -> int:
        return sum(len(example.tokens) for example in self.examples)


def read_splits(setup: Setup, task: str, sentences: int) -> dict[str, Split]:
    """Read a corpus, or as large a share of each split as some sentences are of train.

    Parameters
    ----------
    setup : Setup
    task : str
    sentences : int
        Of train, at even distances, so that long and short ones are there as in the whole; 0 for all.
    """
    splits = {}
    share = 1.0
    for split, file in zip(SPLITS, setup.files(task), strict=True):
        examples = list(open_corpus(str(file), label=TASKS[task].label))
        n_all = len(examples)
        if split == "train" and 0 < sentences < n_all:
            share = sentences / n_all
        n = max(1, round(n_all * share))
        n_tokens = sum(len(example.tokens) for example in examples)
        splits[split] = Split([examples[i * n_all // n] for i in range(n)], n_all, n_tokens)
    return splits
