"""Which training defaults work with little data and with much: dev scores over settings, heads and sizes.

    python -m tests.bench.training.sweep --store DIR --results sweep.jsonl \
        --tasks upos,sentiment --heads linear-tagger --sizes 100,1000 --lr 1e-3,1e-2 --token-budget 256,2048

Each combination is trained on the first sentences of a shuffled training set and scored on the development
set, once a seed, in this process on one thread. The store must hold the sentences: extract them first
(`featurestore extract ... --encoder elmo:demo --codec float16`). NER sets are not among the shared corpora:
name them with --ner NAME=TRAIN,DEV (column files, the label last).

What a training scored is appended to the file of results at once, so that an interrupted run goes on where
it stopped. Prints the table as Markdown: the mean over the seeds, its baseline, epochs and seconds.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import torch

from featurestore import Example, FeatureDataset, Store, open_corpus
from featurestore.models.heads import HEADS
from featurestore.models.training import TrainConfig, train
from tests.bench.result_lines import append_line, read_lines

DEV_SENTENCES = 500
SPLITS = {
    "upos": ("ud-ewt/en_ewt-ud-train.conllu", "ud-ewt/en_ewt-ud-dev.conllu", "upos"),
    "sentiment": ("sentence-polarity/train.tsv", "sentence-polarity/dev.tsv", "label"),
}
MEANS = ("best_epoch", "epochs", "seconds")
SETTINGS = ("lr", "token_budget", "epochs", "patience", "max_sentences", "average_steps", "dropout", "hidden")


def examples(path: Path, label: str) -> list[Example]:
    """Return the labelled sentences of a file, always in the same random order."""
    found = list(open_corpus(path, label=label))
    random.Random(0).shuffle(found)
    return found


def run(store: Store, part: list[Example], dev: list[Example], head: str, settings: dict[str, Any]) -> Any:
    """Train once; return the result and its seconds."""
    dataset = FeatureDataset(store, part)
    dev_dataset = FeatureDataset(store, dev, labels=dataset.labels, unseen_labels="keep")
    started = time.perf_counter()
    result = train(dataset, dev_dataset, TrainConfig(head, precision="float32", device="cpu", **settings))
    return result, time.perf_counter() - started


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of results."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["task"], row["head"], row["size"], tuple(sorted(row["settings"].items()))].append(row)
    lines = [
        "| task | head | sentences | settings | seeds | score | baseline | best epoch | epochs | s |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (task, head, size, settings), group in sorted(groups.items(), key=lambda item: item[0][:3]):
        shown = ", ".join(f"{name} {value:g}" for name, value in settings) or "defaults"
        scores = [row["score"] for row in group]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        cells = [task, head, f"{size:,}", shown, str(len(group)), f"{statistics.fmean(scores):.2f}{spread}"]
        cells.append(f"{group[0]['baseline']:.2f}")
        cells += [f"{statistics.fmean(row[name] for row in group):.0f}" for name in MEANS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--store", type=Path, required=True)
@click.option("--corpora", type=Path, default=Path("../shared/corpora"), show_default=True)
@click.option("--ner", multiple=True, metavar="NAME=TRAIN,DEV", help="A NER set: two column files.")
@click.option("--results", type=Path, required=True, help="JSON Lines, one for each training.")
@click.option("--tasks", default="upos,sentiment", show_default=True)
@click.option("--heads", default=",".join(HEADS), show_default=True)
@click.option("--sizes", default="100,1000", show_default=True, help="Training sentences.")
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--minutes", type=float, default=60, show_default=True, help="Begin no training after that.")
@click.option("--only-print", is_flag=True)
def main(
    store: Path, corpora: Path, ner: tuple[str, ...], results: Path, tasks: str, heads: str, sizes: str,
    seeds: str, minutes: float, only_print: bool, **grid: str | None,
) -> None:  # fmt: skip
    """Train every combination that is not among the results yet; print the table."""
    torch.set_num_threads(1)
    splits = {name: (corpora / one, corpora / two, label) for name, (one, two, label) in SPLITS.items()}
    for entry in ner:
        name, _, files = entry.partition("=")
        train_file, _, dev_file = files.partition(",")
        splits[name] = (Path(train_file), Path(dev_file), "last")
    known = [*read_lines(results)]
    done = {key(row) for row in known}
    axes = {name: [float(v) for v in value.split(",")] for name, value in grid.items() if value}
    ends = time.monotonic() + 60 * minutes
    opened = Store.open(store)
    for task in [] if only_print else tasks.split(","):
        train_file, dev_file, label = splits[task]
        everything, dev = examples(train_file, label), examples(dev_file, label)[:DEV_SENTENCES]
        kind = "sentence" if task == "sentiment" else "token"
        combinations = itertools.product(map(int, sizes.split(",")), heads.split(","), *axes.values())
        for (size, head, *values), seed in itertools.product(combinations, map(int, seeds.split(","))):
            settings = {n: v if n in ("lr", "dropout") else int(v) for n, v in zip(axes, values, strict=True)}
            row = {"task": task, "head": head, "size": size, "settings": settings, "seed": seed}
            if HEADS[head].label_kind != kind or key(row) in done or time.monotonic() > ends:
                continue
            result, seconds = run(opened, everything[:size], dev, head, {**settings, "seed": seed})
            row |= {
                "score": 100 * result.scores.value, "baseline": 100 * result.scores.baseline.value,
                "best_epoch": result.best_epoch, "epochs": len(result.history), "seconds": seconds,
                "history": [round(100 * epoch.score, 2) for epoch in result.history],
            }  # fmt: skip
            append_line(results, row)
            known.append(row)
            click.echo(f"{ {n: v for n, v in row.items() if n != 'history'} }", err=True)
    click.echo(table(known))


for setting in SETTINGS:
    main = click.option(f"--{setting.replace('_', '-')}", metavar="N,...", help="By default, as train.")(main)


def key(row: dict[str, Any]) -> str:
    """Return what makes a training this one."""
    return repr([row["task"], row["head"], row["size"], sorted(row["settings"].items()), row["seed"]])


if __name__ == "__main__":
    main()
