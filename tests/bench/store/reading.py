"""Tokens per second of a corpus that is stored already: what a training script does before its first batch.

UD EWT's training part in each format: reading it; ``extract``, which finds nothing new; a FeatureDataset of
it, with labels where the format has them. One thread, files in the page cache, best of several passes. Beside
it Flair's readers where Flair is installed, and what splitting the same lines takes in Python.

    python -m tests.bench.store.reading
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from featurestore import Corpus, Example, FeatureDataset, Recipe, extract, open_corpus
from featurestore.encoders.vectors import BatchVectors
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part
from tests.bench.texts import TAGGING, source

RAW = "# text = "


class Zeros:
    """An encoder whose vectors are short and cost nothing."""

    spec, device, dim, n_layers, token_budget = "bench:", "cpu", 8, 1, 8192
    recipe = Recipe({"kind": "bench", "version": 1})

    def submit(self, sentences: Sequence[tuple[str, ...]]) -> Zeros.Ready:
        return self.Ready([len(tokens) for tokens in sentences])

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> list[NDArray[np.floating]]:
        return list(self.submit(sentences).result())

    class Ready:
        def __init__(self, lengths: list[int]) -> None:
            self._lengths = lengths

        def result(self) -> BatchVectors:
            return BatchVectors(np.zeros((sum(self._lengths), Zeros.dim), np.float32), self._lengths)


@dataclass
class Format:
    """A format the corpus is in.

    Attributes
    ----------
    title, ceiling : str
        What it is called, and what the least that any reader does is called.
    open : callable
        Opens the corpus.
    cut : callable
        Does that least.
    """

    title: str
    open: Callable[[], Corpus]
    ceiling: str
    cut: Callable[[], None]


def write_formats(folder: Path, conllu: Path) -> list[Format]:
    """Write a CoNLL-U file's sentences in other formats."""
    examples = list(open_corpus(conllu, label="upos"))
    lines = conllu.read_text(encoding="utf-8").splitlines()
    # In a line of fields apart by spaces a token has none.
    words = [[token.replace(" ", "_").replace("\u00a0", "_") for token in e.tokens] for e in examples]
    columns, records, tokens, raw = (folder / name for name in ("a.conll", "b.jsonl", "c.txt", "d.txt"))
    for path, content in (
        (
            columns,
            "".join(
                "".join(map("{} {}\n".format, sentence, example.labels or ())) + "\n"
                for sentence, example in zip(words, examples, strict=True)
            ),
        ),
        (records, "".join(json.dumps({"tokens": e.tokens, "labels": e.labels}) + "\n" for e in examples)),
        (tokens, "".join(" ".join(sentence) + "\n" for sentence in words)),
        (raw, "".join(line.removeprefix(RAW) + "\n" for line in lines if line.startswith(RAW))),
    ):
        path.write_text(content, encoding="utf-8")
    spaces, tabs = (lambda line: line.split(" ")), (lambda line: line.split("\t"))
    return [
        Format("CoNLL-U, a label a word", partial(open_corpus, conllu, label="upos"),
               "splitting CoNLL-U's lines", partial(cut, conllu, tabs)),
        Format("two columns, a label a word", partial(open_corpus, columns, label="last"),
               "splitting lines of two columns", partial(cut, columns, spaces)),
        Format("JSON Lines, a label a word", partial(open_corpus, records, label="labels"),
               "json.loads of each line", partial(cut, records, json.loads)),
        Format("text of tokens", partial(open_corpus, tokens),
               "splitting lines of tokens", partial(cut, tokens, spaces)),
        Format("raw text, tokenised", partial(open_corpus, raw, tokenize=True),
               "splitting lines of raw text", partial(cut, raw, spaces)),
    ]  # fmt: skip


def flair_readers(folder: Path, conllu: Path) -> dict[str, Callable[[], Any]]:
    """Return what reads the same files in Flair, which keeps its sentences in memory; none without Flair."""
    if not find_spec("flair"):
        return {}
    from flair.datasets import ColumnDataset
    from flair.datasets.treebanks import UniversalDependenciesDataset

    return {
        "CoNLL-U, Flair's UniversalDependenciesDataset": partial(UniversalDependenciesDataset, conllu),
        "two columns, Flair's ColumnDataset": partial(
            ColumnDataset, folder / "a.conll", {0: "text", 1: "upos"}
        ),
    }


def seconds_of(work: Callable[[], object], passes: int) -> float:
    """Return the shortest of several passes."""
    seconds = []
    for _ in range(passes):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def n_tokens_of(examples: Iterable[Example]) -> int:
    return sum(len(example.tokens) for example in examples)


def cut(path: Path, split: Callable[[str], object]) -> None:
    """Split each line of a file, and look at nothing."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line:
            split(line)


def measured(passes: int, *, sample: bool) -> PartResult:
    """Measure every format."""
    shared, small = TAGGING["train"]
    conllu = small if sample or not shared.exists() else shared
    table = Table("A corpus that is stored already", ["read", "extract, nothing new", "FeatureDataset"])
    with tempfile.TemporaryDirectory() as name:
        folder, encoder = Path(name), Zeros()
        store, n_tokens, ceilings = folder / "store", n_tokens_of(open_corpus(conllu)), {}
        for form in write_formats(folder, conllu):
            extract(form.open(), encoder, store, progress=False)
            thousands = n_tokens_of(form.open()) / 1000
            steps = (
                lambda form=form: n_tokens_of(form.open()),
                lambda form=form: extract(form.open(), encoder, store, progress=False),
                lambda form=form: FeatureDataset(store, form.open()),
            )
            speeds = [thousands / seconds_of(step, passes) for step in steps]
            table.add(form.title, "ours", *speeds, limit=form.ceiling)
            ceilings[form.ceiling] = thousands / seconds_of(form.cut, passes)
        for title, reading in ({} if sample else flair_readers(folder, conllu)).items():
            table.add(title, "alternative", n_tokens / 1000 / seconds_of(reading, 1))
        for title, speed in ceilings.items():
            table.add(title, "ceiling", speed)
    table.note = (
        f"Thousand tokens/s, one thread; {n_tokens:,} tokens of {conllu.name}; the raw text's are our "
        "tokeniser's. Shares are of splitting the same lines in Python."
    )
    return PartResult(
        tables=[table],
        promises={"alignment": "a dataset compares the tokens of every sentence with those stored"},
        settings={"passes": passes, "text": source(sample=sample)},
    )


@click.command()
@part_options
def main(quick: bool, as_json: bool) -> None:
    print_part(measured(1 if quick else 5, sample=quick), as_json)


if __name__ == "__main__":
    main()
