"""A shape small enough for tests, texts that are quick to learn, and a training of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from featurestore.corpora.corpus import open_corpus
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.pretraining.progress import PretrainProgress
from featurestore.pretraining.runner import Pretraining, PretrainReport
from featurestore.pretraining.settings import PretrainConfig
from tests.kit import elmo

TINY = replace(elmo.TINY, lstm_dim=12, filters=((1, 4), (2, 6), (3, 6)))
QUICK = PretrainConfig(
    epochs=3,
    n_streams=4,
    n_steps=5,
    lr=0.01,
    min_count=1,
    held_out=0.1,
    precision="float32",
    dropout=0.2,
    character_dropout=0.1,
)

Sentences = list[list[str]]


def drawn_text(n_sentences: int, seed: int = 0) -> Sentences:
    """Sentences of ten words, some of them long, of all lengths from one word up."""
    random = Random(seed)
    words = [
        "a",
        "bee",
        "sees",
        "the",
        "red",
        "one",
        ".",
        "straße",
        "Pneumonoultramicroscopicsilico",
        "x" * 60,
    ]
    return [random.choices(words, k=random.randrange(1, 9)) for _ in range(n_sentences)]


def write_text(path: Path, sentences: Sentences) -> Path:
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences), encoding="utf-8")
    return path


def training(
    corpus: Path | list[Path],
    out: Path,
    config: PretrainConfig = QUICK,
    *,
    options: ElmoOptions = TINY,
    progress: PretrainProgress | None = None,
    changed: dict | None = None,
    **more,
) -> Pretraining:
    """A training on the CPU of some files."""
    paths = corpus if isinstance(corpus, list) else [corpus]
    config = replace(config, **(changed or {}))
    corpora = [open_corpus(path) for path in paths]
    return Pretraining(corpora, out, options, config, device="cpu", progress=progress, **more)


def history(report: PretrainReport) -> list[dict]:
    """What must be the same in every run: all but the seconds."""
    return [{**each.to_dict(), "seconds": None} for each in report.history]
