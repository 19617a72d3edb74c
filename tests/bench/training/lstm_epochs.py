"""Seconds of a BiLSTM's training epoch from the cache: the compiled LSTM beside torch.nn.LSTM's ways.

The BiLSTM tagger on UD EWT and the BiLSTM classifier on sentence-polarity, with their usual dropout, in
float32 and bfloat16: the batches, steps and code of ``featurestore train``, only the LSTM is another. Each
way trains on the first batches of an epoch, one way after the other, several times; the best time counts,
and its seconds a token count for the whole epoch. The ceiling is the matrix products alone, at the speed
that oneDNN reaches with a prepacked weight of this size: those that locked dropout leaves, forward and for
the gradients of the weights.

With ``--seeds``, the scores of whole trainings as well, ours beside torch's (``--passes 0``: these alone).

    python -m tests.bench.training.lstm_epochs --seeds 3
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch import Tensor, nn

from featurestore import Example, FeatureBatch, FeatureDataset, Store, extract, feature_loader
from featurestore.encoders.elmo.model.linear import PrepackedLinear
from featurestore.models.fitting.averaging import WeightAverage
from featurestore.models.heads import HEADS, Head, HeadConfig, build_head
from featurestore.models.recurrent.bilstm import BiLSTM
from featurestore.models.recurrent.compiled import Inputs, compiled_lstm
from featurestore.models.training import TrainConfig, train
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part, use_cores
from tests.bench.texts import SENTIMENT, TAGGING, source, text

HIDDEN = 256
AVERAGE_STEPS = 100

Way = Callable[[BiLSTM, Inputs, torch.dtype], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """A head and what it is trained on."""

    title: str
    model: str
    label: str
    places: dict[str, tuple[Path, Path]]

    def examples(self, split: str, *, sample: bool) -> list[Example]:
        """Return the examples of a split."""
        return text(self.places[split], self.label, sample=sample)


TASKS = (
    Task("BiLSTM tagger, UD EWT", "bilstm-tagger", "upos", TAGGING),
    Task("BiLSTM classifier, sentence-polarity", "bilstm-classifier", "label", SENTIMENT),
)


def by_torch(way: Callable[[BiLSTM, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Way:
    """Return a way of the module that reads finished vectors as one that takes what the heads give."""

    def run(module: BiLSTM, inputs: Inputs, products: torch.dtype) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=products != torch.float32):
            outputs, states = way(module, inputs.read(), inputs.lengths)
        return outputs.float(), states.float()

    return run


PACKED, PADDED = by_torch(BiLSTM._packed), by_torch(BiLSTM._padded)
COMPILED = "torch.compile of the padded one"
WAYS: dict[str, Way] = {
    "torch.nn.LSTM, packed": PACKED,
    "torch.nn.LSTM, padded, a direction at a time": PADDED,
    COMPILED: PADDED,
    "featurestore": BiLSTM.forward,
}
OURS = "featurestore"
BASE = "torch.nn.LSTM, packed"


@contextmanager
def running(way: Way) -> Iterator[None]:
    """Let every BiLSTM run so for a while."""
    with patch.object(BiLSTM, "forward", way):
        yield


class Training:
    """A head that trains as ``featurestore train`` trains it."""

    def __init__(self, task: Task, dataset: FeatureDataset, precision: str, *, compiled: bool) -> None:
        torch.manual_seed(0)
        dropout = HEADS[task.model].usual_dropout
        self.head: Head = build_head(
            task.model, HeadConfig(dataset.dim, len(dataset.labels), hidden=HIDDEN, dropout=dropout)
        ).train()
        self.head.learning_dtype = getattr(torch, precision)
        self.loss: Any = torch.compile(self.head.loss, dynamic=True) if compiled else self.head.loss
        self.optimizer = torch.optim.AdamW(self.head.parameters(), 1e-3, weight_decay=0.01, fused=True)
        self.average = WeightAverage(self.head, AVERAGE_STEPS)

    def seconds_per_token(self, batches: Iterable[FeatureBatch]) -> float:
        """Train on batches; return seconds a token, those of getting the batches included."""
        n_tokens, started = 0, time.perf_counter()
        for batch in batches:
            loss = self.loss(batch.features, batch.lengths, batch.mask, batch.labels)
            loss.item()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.head.parameters(), 5.0)
            self.optimizer.step()
            self.average.update()
            n_tokens += int(batch.lengths.sum())
        return (time.perf_counter() - started) / n_tokens


def first_batches(batches: Iterable[FeatureBatch], n_tokens: int) -> Iterator[FeatureBatch]:
    """Yield batches until they hold so many tokens."""
    for batch in batches:
        yield batch
        n_tokens -= int(batch.lengths.sum())
        if n_tokens <= 0:
            return


def products_per_token(dim: int, precision: str, kept: float, n_rows: int) -> float:
    """Return the seconds of a token's products at the speed of one prepacked product of all gates."""
    dtype = getattr(torch, precision)
    rows, product = (
        torch.randn(n_rows, dim).to(dtype),
        PrepackedLinear(torch.randn(8 * HIDDEN, dim).to(dtype)),
    )
    times = []
    for _ in range(8):
        started = time.perf_counter()
        product(rows)
        times.append(time.perf_counter() - started)
    # Of the inputs: forward and the weights' gradient. Of the states: these, and the states' gradient.
    products = 2 * kept + 3 * HIDDEN / dim
    return min(times) / n_rows * products


def measured(
    task: Task, dataset: FeatureDataset, precision: str, budget: int, n_tokens: int, passes: int
) -> Table:
    """Measure a task's epochs in a precision."""
    table = Table(
        f"{task.title}, {precision}", ["seconds an epoch", "microseconds a token"], lower_is_better=True
    )
    whole = int(dataset.lengths.sum())
    trainings: dict[str, Training] = {}
    best: dict[str, float] = {}
    for number in range(passes + 1):
        for name, way in WAYS.items():
            with running(way):
                if name not in trainings:
                    trainings[name] = Training(task, dataset, precision, compiled=name == COMPILED)
                loader = feature_loader(dataset, token_budget=budget, seed=0)
                # The first pass touches every page, compares checksums, compiles.
                seconds = trainings[name].seconds_per_token(first_batches(loader, n_tokens))
            if number:
                best[name] = min(seconds, best.get(name, seconds))
    for name, seconds in best.items():
        kind = "ours" if name == OURS else "alternative"
        table.add(name, kind, seconds * whole, seconds * 1e6)
    dropout = HEADS[task.model].usual_dropout
    alone = products_per_token(dataset.dim, precision, 1 - dropout, budget)
    table.add("the products that dropout leaves", "ceiling", alone * whole, alone * 1e6)
    table.base = BASE
    table.note = (
        f"{whole:,} tokens, batches of up to {budget:,}, {dataset.dim} inputs, {HIDDEN} units, "
        f"dropout {dropout}, {torch.get_num_threads()} threads; from "
        f"{min(n_tokens, whole):,} tokens, the best of {passes}."
    )
    return table


def scored(
    task: Task,
    store: Store,
    precisions: Sequence[str],
    n_sentences: int,
    epochs: int,
    seeds: int,
    budget: int,
    *,
    sample: bool,
) -> Table:
    """Train on some of the sentences with several seeds, by torch and by ours; return the scores."""
    columns = ["accuracy on dev, %", "spread", "mean loss of the last epoch"]
    table = Table(f"{task.title}: scores", columns)
    some = task.examples("train", sample=sample)[:n_sentences]
    dataset = FeatureDataset(store, some)
    dev_examples = task.examples("dev", sample=sample)
    dev = FeatureDataset(store, dev_examples, labels=dataset.labels, unseen_labels="keep")
    for precision in precisions:
        for name in (BASE, OURS):
            scores, losses = [], []
            for seed in range(seeds):
                config = TrainConfig(
                    task.model, epochs=epochs, patience=epochs, seed=seed, hidden=HIDDEN, lr=1e-3,
                    token_budget=budget, precision=precision,
                )  # fmt: skip
                with running(WAYS[name]):
                    result = train(dataset, dev, config)
                scores.append(100 * result.scores.accuracy)
                losses.append(result.history[-1].loss)
            spread = statistics.stdev(scores) if seeds > 1 else 0.0
            kind = "ours" if name == OURS else "alternative"
            table.add(f"{name}, {precision}", kind, statistics.mean(scores), spread, statistics.mean(losses))
    table.note = f"{len(some):,} sentences, {epochs} epochs, {seeds} seeds."
    return table


@click.command()
@click.option(
    "--store", "folder", type=click.Path(path_type=Path), help="Keep the vectors here, or take them."
)
@click.option("--task", type=click.IntRange(0, 1), help="The tagger or the classifier alone.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), multiple=True)
@click.option("--budget", default=2048, show_default=True, help="Tokens of a batch.")
@click.option("--tokens", default=12_000, show_default=True, help="Trained on by each way in each pass.")
@click.option("--passes", default=2, show_default=True)
@click.option("--seeds", default=0, show_default=True, help="Trainings whose scores are compared.")
@click.option("--sentences", default=1_000, show_default=True, help="That these train on.")
@click.option("--epochs", default=3, show_default=True, help="Of these.")
@part_options
def main(
    folder: Path | None,
    task: int | None,
    precision: tuple[str, ...],
    budget: int,
    tokens: int,
    passes: int,
    seeds: int,
    sentences: int,
    epochs: int,
    quick: bool,
    as_json: bool,
) -> None:
    use_cores(quick)
    if compiled_lstm() is None:
        raise click.ClickException("installing compiled no LSTM here: there is nothing to compare")
    if quick:
        tokens, passes = 500, 1
    precisions, tables = precision or ("float32", "bfloat16"), []
    with tempfile.TemporaryDirectory() as name:
        place = folder or Path(name) / "store"
        for chosen in TASKS if task is None else [TASKS[task]]:
            for split in ("train", "dev"):
                extract(chosen.examples(split, sample=quick), "elmo:demo", place, progress=False)
            store = Store.open(place)
            dataset = FeatureDataset(store, chosen.examples("train", sample=quick))
            if passes:
                tables += [measured(chosen, dataset, each, budget, tokens, passes) for each in precisions]
            if seeds:
                some = sentences, epochs, seeds, budget
                tables.append(scored(chosen, store, precisions, *some, sample=quick))
    promises = {
        "checksums": "compared for every sentence in the first pass, which is not timed",
        "batch invariance": "cached vectors are the same in every batch and epoch",
        "fsync": "does not apply: nothing is written while training",
    }
    settings = {"encoder": "elmo:demo", "text": source(sample=quick), "budget": budget}
    print_part(PartResult(tables=tables, promises=promises, settings=settings), as_json)


if __name__ == "__main__":
    main()
