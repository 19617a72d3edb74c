"""Seconds of a training epoch from the cache, against the same model with ELMo `original` in the loop.

The linear tagger on UD EWT and the BiLSTM classifier of featurestore/examples on sentence-polarity: one
pass over the training data, all cores, the same batches, steps and code; only where a batch's vectors come
from differs. Live epochs are not run in full: the first batches are, and their seconds a token count for
all (batches come shuffled, and the vectors of word types are known before, so the part is not dearer than
the rest). AllenNLP's row is computed: its seconds a token for encoding the first of the same batches
(``--peer``, see beside_allennlp.py; else its speed of another day, in batches of 64), and the epoch from the
cache.

The cache holds vectors of elmo:demo, as long as those of `original` and of the same type. The ceiling is
the model alone, on batches that lie in memory ready to use.

    python -m tests.bench.training.train_epochs
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from featurestore import Encoder, Example, FeatureBatch, FeatureDataset, extract, feature_loader, load_encoder
from featurestore.examples.bilstm import TOKEN_BUDGET, BiLSTMClassifier
from featurestore.models.heads import HeadConfig, LinearTagger
from tests.bench.encoding.beside_allennlp import SETTINGS, peer_speed, write_model
from tests.bench.encoding.encode import recorded
from tests.bench.figures import Table
from tests.bench.report import PartResult, part_options, print_part, use_cores
from tests.bench.texts import SENTIMENT, TAGGING, source, text

LIVE = "elmo:untrained-original"
CACHED = "elmo:demo"
PEER_TOKENS = 6_000


@dataclass
class Task:
    """A model, what it is trained on, and how.

    Attributes
    ----------
    title : str
    examples : list of Example
    token_budget : int
        Of its batches.
    make : callable
        Returns a new model for so many dimensions and labels.
    loss : callable
        Of a model and a batch.
    lr : float
    """

    title: str
    examples: list[Example]
    token_budget: int
    make: Callable[[int, int], nn.Module]
    loss: Callable[[nn.Module, FeatureBatch], Tensor]
    lr: float


def tasks(sample: bool) -> list[Task]:
    """Return the two tasks, of few sentences if a sample of the text is enough."""
    n = 60 if sample else None
    return [
        Task(
            "Linear tagger", text(TAGGING["train"], "upos", sample=sample)[:n], 2048,
            lambda dim, n_labels: LinearTagger(HeadConfig(dim, n_labels)),
            lambda model, batch: model.loss(batch.features, batch.lengths, batch.mask, batch.labels), 1e-3,
        ),
        Task(
            "BiLSTM classifier", text(SENTIMENT["train"], "label", sample=sample)[:n], TOKEN_BUDGET,
            lambda dim, n_labels: BiLSTMClassifier(dim, 64, n_labels),
            lambda model, batch: cross_entropy(model(batch.features, batch.lengths), batch.labels), 3e-3,
        ),
    ]  # fmt: skip


def seconds_per_token(task: Task, dim: int, n_labels: int, batches: Iterable[FeatureBatch]) -> float:
    """Train a new model on batches; return seconds a token, those of getting the batches included."""
    torch.manual_seed(0)
    model = task.make(dim, n_labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.lr, fused=True)
    n_tokens, started = 0, time.perf_counter()
    for batch in batches:
        loss = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        n_tokens += int(batch.lengths.sum())
    return (time.perf_counter() - started) / n_tokens


def first_batches(batches: Iterable[FeatureBatch], n_tokens: int) -> Iterator[FeatureBatch]:
    """Yield batches until they hold so many tokens."""
    for batch in batches:
        yield batch
        n_tokens -= int(batch.lengths.sum())
        if n_tokens <= 0:
            return


class Live:
    """The batches of a loader with vectors that an encoder makes anew each time.

    Their labels and masks are read with the cached vectors, which costs a thousandth of the encoder.
    """

    def __init__(self, task: Task, encoder: Encoder, n_tokens: int) -> None:
        self.examples, self.encoder = task.examples, encoder
        self.n_tokens = n_tokens

    def batches(self, loader: Iterable[FeatureBatch]) -> Iterator[FeatureBatch]:
        for batch in first_batches(loader, self.n_tokens):
            sentences = [self.examples[i].tokens for i in batch.indices.tolist()]
            vectors = [torch.from_numpy(array) for array in self.encoder.encode(sentences)]
            yield replace(batch, features=pad_sequence(vectors, batch_first=True))


def allennlp_speed(peer: str, task: Task, batches: Iterable[FeatureBatch]) -> float:
    """Return the tokens a second of AllenNLP's ElmoEmbedder on batches of a task, in its better setting."""
    sentences = [[list(task.examples[i].tokens) for i in batch.indices.tolist()] for batch in batches]
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), "original")
        return max(peer_speed(peer, Path(name), sentences, setting)[0] for setting in SETTINGS.values())


def measured(
    task: Task, encoders: dict[str, Encoder], live_tokens: dict[str, int], passes: int, peer: str | None
) -> Table:
    """Measure a task's epochs."""
    table = Table(task.title, ["seconds an epoch"], lower_is_better=True)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        extract(task.examples, CACHED, store, progress=False)
        dataset = FeatureDataset(store, task.examples)
        n_tokens, sizes = int(dataset.lengths.sum()), (dataset.dim, len(dataset.labels))

        def loader() -> Iterable[FeatureBatch]:
            return feature_loader(dataset, token_budget=task.token_budget)

        def epoch(batches: Iterable[FeatureBatch]) -> float:
            return seconds_per_token(task, *sizes, batches) * n_tokens

        epoch(loader())  # every checksum compared, every page touched
        cached = min(epoch(loader()) for _ in range(passes))
        ready = list(first_batches(loader(), 30_000))
        alone = min(epoch(ready) for _ in range(passes))
        lines = {}
        for precision, encoder in encoders.items():
            live = Live(task, encoder, live_tokens[precision])
            for _ in live.batches(loader()):
                pass  # word types, which a whole epoch would hardly meet for the first time
            lines[precision] = epoch(live.batches(loader()))
        if peer:
            theirs, kind = allennlp_speed(peer, task, first_batches(loader(), PEER_TOKENS)), "alternative"
            row, of_theirs = "AllenNLP's", f"its {theirs:,.0f} tokens/s on {PEER_TOKENS:,} of the tokens"
        else:
            other_day, kind = recorded(), "recorded"
            theirs = max(other_day["tokens_per_second"].values())
            row = f"AllenNLP's {theirs:,.0f} tokens/s (recorded {other_day['date']})"
            of_theirs = f"its speed on {other_day['cores']} x {other_day['machine']} in batches of 64"
    table.add(f"ELMo in the loop, {row}", kind, n_tokens / theirs + cached)
    for precision, seconds in lines.items():
        table.add(f"ELMo in the loop, featurestore's, {precision}", "alternative", seconds)
    table.add("featurestore, from the cache", "ours", cached)
    table.add("the model alone, batches in memory", "ceiling", alone)
    table.base = f"ELMo in the loop, featurestore's, {next(iter(lines))}"
    table.note = (
        f"{len(dataset):,} sentences, {n_tokens:,} tokens, {torch.get_num_threads()} threads. In the loop: "
        f"{next(iter(encoders.values())).spec}, extrapolated from "
        f"{', '.join(f'{n:,} tokens in {precision}' for precision, n in live_tokens.items())}. AllenNLP's "
        f"row: {of_theirs}, and the epoch from the cache, added up."
    )
    return table


@click.command()
@click.option("--peer", help="Python 3.7 with AllenNLP 0.9.0.")
@part_options
def main(peer: str | None, quick: bool, as_json: bool) -> None:
    use_cores(quick)
    live_tokens = {"float32": 100} if quick else {"float32": 3_000, "bfloat16": 6_000}
    live = CACHED if quick else LIVE
    encoders = {precision: load_encoder(live, precision=precision, device="cpu") for precision in live_tokens}
    tables = [measured(task, encoders, live_tokens, 1 if quick else 4, peer) for task in tasks(sample=quick)]
    promises = {
        "checksums": "compared for every sentence in the first epoch, which is not the one timed",
        "batch invariance": "cached vectors are the same in every batch and epoch",
        "fsync": "does not apply: nothing is written while training",
    }
    settings = {"live": live, "cached": CACHED, "live_tokens": live_tokens, "text": source(sample=quick)}
    print_part(PartResult(tables=tables, promises=promises, settings=settings), as_json)


if __name__ == "__main__":
    main()
