"""One measurement of the Flair benchmark in a process of its own; prints JSON.

live_and_cached.py runs it.

``extract``
    Fill the store of one embedding.
``train``
    Train a Flair model with live or stored vectors: seconds of every epoch, peak memory, size, accuracy.
``swap``
    Let a model that was trained on stored vectors run the encoders, and count what it predicts differently.
``lookup``
    Stored vectors a second, as Flair asks for them, and without Flair: one tensor for a batch.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
import flair
import torch
from flair.data import Corpus, Sentence
from flair.datasets import FlairDatapointDataset
from flair.embeddings import (
    DocumentPoolEmbeddings,
    FlairEmbeddings,
    StackedEmbeddings,
    TransformerWordEmbeddings,
)
from flair.embeddings.base import TokenEmbeddings
from flair.models import SequenceTagger, TextClassifier
from flair.trainers import ModelTrainer
from flair.trainers.plugins import TrainerPlugin

from featurestore import Example, Store, extract, load_encoder
from featurestore.integrations.flair import CachedEmbeddings, ElmoEmbeddings, from_flair, load, to_live
from tests.bench.flair.tasks import BATCH_SIZE, ROWS, SIDES, SPLITS, TASKS, Setup, Split, read_splits

FOUND = "found"
"""Label type of predictions."""
LOOKUP_PASSES = 3

# Standard output is for the result.
logging.getLogger("flair").setLevel(logging.ERROR)


class Clock:
    """Adds up the seconds that embeddings take, by replacing their ``embed``."""

    def __init__(self, embeddings: Sequence[TokenEmbeddings]) -> None:
        self.seconds = 0.0
        for embedding in embeddings:
            embedding.embed = self._timed(embedding.embed)

    def _timed(self, embed: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(embed)
        def timed(sentences: Any) -> Any:
            started = time.perf_counter()
            embedded = embed(sentences)
            self.seconds += time.perf_counter() - started
            return embedded

        return timed


class Epochs(TrainerPlugin):
    """Seconds of every epoch, and what of them went into vectors.

    An epoch ends where the next one begins: evaluation on dev, and saving the model if it is the best so far,
    are part of it.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._marks: list[tuple[float, float]] = []
        self.scores: list[float] = []

    def _mark(self) -> None:
        self._marks.append((time.perf_counter(), self._clock.seconds))

    @TrainerPlugin.hook
    def before_training_epoch(self, **_: Any) -> None:
        self._mark()

    @TrainerPlugin.hook
    def after_evaluation(self, validation_scores: tuple[float, ...], **_: Any) -> None:
        self.scores.append(validation_scores[0])

    @TrainerPlugin.hook
    def after_training_loop(self, **_: Any) -> None:
        self._mark()

    def differences(self, which: int) -> list[float]:
        """Return the seconds of each epoch (0), or those of its vectors (1)."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [round(after[which] - before[which], 3) for before, after in pairs]


def flair_sentences(examples: Sequence[Example], task: str) -> list[Sentence]:
    """Return examples as Flair has them, with the very tokens of the files."""
    label, sentences = TASKS[task].label, []
    for example in examples:
        sentence = Sentence(list(example.tokens))
        if isinstance(example.labels, str):
            sentence.add_label(label, example.labels)
        else:
            for token, value in zip(sentence, example.labels or (), strict=True):
                token.add_label(label, value)
        sentences.append(sentence)
    return sentences


def flair_corpus(splits: dict[str, Split], task: str, *names: str) -> Corpus:
    made = {name: FlairDatapointDataset(flair_sentences(splits[name].examples, task)) for name in names}
    return Corpus(**made, name=task, sample_missing_splits=False)


def live(setup: Setup, part: str) -> TokenEmbeddings:
    """Return an embedding that runs its model for every batch, as Flair's users have it."""
    if part == "elmo":
        return ElmoEmbeddings(setup.elmo, embedding_mode="average", precision="float32")
    if part == "characters":
        return FlairEmbeddings(str(setup.path(part)))
    return TransformerWordEmbeddings(str(setup.path(part)), fine_tune=False)


def parts_of(setup: Setup, row: str, side: str, task: str, sentences: int) -> list[TokenEmbeddings]:
    """Return the embeddings of a row, in its order."""
    if side == "cached":
        return [CachedEmbeddings(setup.store(part, task, sentences)) for part in ROWS[row]]
    return [live(setup, part) for part in ROWS[row]]


def new_model(task: str, embeddings: TokenEmbeddings, corpus: Corpus) -> Any:
    """Return the model of a task, not trained yet."""
    label = TASKS[task].label
    labels = corpus.make_label_dictionary(label, add_unk=False)
    if task == "upos":
        return SequenceTagger(embeddings, labels, label, hidden_size=256, use_crf=False)
    pooled = DocumentPoolEmbeddings(embeddings, pooling="mean")
    return TextClassifier(pooled, label_dictionary=labels, label_type=label)


def predicted(model: Any, sentences: Sequence[Sentence], task: str) -> list[str]:
    """Return the labels that a model gives, one per token or sentence."""
    model.predict(list(sentences), label_name=FOUND, mini_batch_size=64, embedding_storage_mode="none")
    return labels_of(sentences, task, FOUND)


def labels_of(sentences: Sequence[Sentence], task: str, label: str) -> list[str]:
    if TASKS[task].unit == "token":
        return [token.get_label(label).value for sentence in sentences for token in sentence]
    return [sentence.get_label(label).value for sentence in sentences]


def agreement(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def resident_memory() -> int:
    """Return the memory of this process that is resident now, in bytes."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(rollup.split("Rss:", 1)[1].split(maxsplit=1)[0]) << 10


def mapped_memory(folder: Path) -> int:
    """Return how much of the files of a folder is mapped and resident, in bytes."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):
            inside = len(words) == 6 and words[5].startswith(f"{folder.absolute()}/")
        elif inside and words[0] == "Rss:":
            total += int(words[1]) << 10
    return total


def peak_memory() -> int:
    """Return the most memory that was resident at any moment so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def trained_model_file(folder: Path) -> Path:
    return folder / "model.pt"


@click.group()
@click.option("--corpora", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--elmo", required=True)
@click.option("--characters", required=True)
@click.option("--transformer", required=True)
@click.option("--task", type=click.Choice(list(TASKS)), required=True)
@click.option("--sentences", type=int, required=True)
@click.pass_context
def main(
    context: click.Context,
    corpora: Path,
    work: Path,
    elmo: str,
    characters: str,
    transformer: str,
    task: str,
    sentences: int,
) -> None:
    flair.device = torch.device("cpu")
    setup = Setup(corpora, work, elmo, {"characters": characters, "transformer": transformer})
    context.obj = setup, task, sentences


def printed(command: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Give a command what the whole group is told, and print what it returns."""

    @wraps(command)
    def run(told: tuple[Setup, str, int], **options: Any) -> None:
        click.echo(json.dumps(command(*told, **options)))

    return click.pass_obj(run)


@main.command("extract")
@click.option("--part", required=True)
@printed
def extract_command(setup: Setup, task: str, sentences: int, part: str) -> dict[str, Any]:
    path = setup.store(part, task, sentences)
    if path.exists():
        shutil.rmtree(path)  # of a run that was killed: its seconds would be those of the rest
    encoder = load_encoder(setup.spec(part), precision="float32", device="cpu")
    corpus = flair_corpus(read_splits(setup, task, sentences), task, *SPLITS)
    report = extract(from_flair(corpus, encoder_or_dependence=encoder), encoder, path, progress=False)
    return {**report.to_dict(), "dim": encoder.dim, "peak": peak_memory()}


@main.command("train")
@click.option("--row", type=click.Choice(list(ROWS)), required=True)
@click.option("--side", type=click.Choice(list(SIDES)), required=True)
@click.option("--seed", type=int, required=True)
@click.option("--epochs", type=int, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@printed
def train_command(
    setup: Setup, task: str, sentences: int, row: str, side: str, seed: int, epochs: int, out: Path
) -> dict[str, Any]:
    splits = read_splits(setup, task, sentences)
    train = splits["train"]
    corpus = flair_corpus(splits, task, "train", "dev")
    memory_before = resident_memory()

    parts = parts_of(setup, row, side, task, sentences)
    timing = Epochs(Clock(parts))
    # Now, so that both sides begin with the same weights and see the same batches.
    flair.set_seed(seed)
    model = new_model(task, parts[0] if len(parts) == 1 else StackedEmbeddings(parts), corpus)
    ModelTrainer(model, corpus).train(
        out,
        optimizer=torch.optim.AdamW,
        learning_rate=TASKS[task].learning_rate,
        mini_batch_size=BATCH_SIZE,
        max_epochs=epochs,
        embeddings_storage_mode="cpu" if side == "kept" else "none",
        save_final_model=False,
        create_file_logs=False,
        create_loss_file=False,
        plugins=[timing],
    )
    # The kernel counts its peak lazily: it may be a few hundred kilobytes below what was resident before.
    peak, mapped = max(peak_memory(), memory_before), mapped_memory(setup.stores)
    model.eval()
    model.save(trained_model_file(out))
    test = flair_sentences(splits["test"].examples, task)
    found = predicted(model, test, task)
    n_bytes = trained_model_file(out).stat().st_size
    for file in out.iterdir():
        if side != "cached" or file != trained_model_file(out):
            file.unlink()
    return {
        "seconds": timing.differences(0),
        "vector_seconds": timing.differences(1),
        "dev": timing.scores,
        "accuracy": agreement(found, labels_of(test, task, TASKS[task].label)),
        "memory_before": memory_before,
        "peak": peak,
        "mapped": mapped,
        "model_bytes": n_bytes,
        "train_sentences": len(train.examples),
        "train_tokens": train.n_tokens,
        "all_train_sentences": train.all_sentences,
        "all_train_tokens": train.all_tokens,
    }


@main.command("swap")
@click.option("--row", type=click.Choice(list(ROWS)), required=True)
@click.option("--model", type=click.Path(path_type=Path), required=True)
@printed
def swap_command(setup: Setup, task: str, sentences: int, row: str, model: Path) -> dict[str, Any]:
    trained = load(model, trusted=True)
    test = flair_sentences(read_splits(setup, task, sentences)["test"].examples, task)
    stored = predicted(trained, test, task)
    for part in ROWS[row]:
        trained = to_live(trained, setup.spec(part))
    computed = predicted(trained, test, task)
    gold = labels_of(test, task, TASKS[task].label)
    return {
        "n": len(gold),
        "differing": sum(a != b for a, b in zip(stored, computed, strict=True)),
        "cached_accuracy": agreement(stored, gold),
        "live_accuracy": agreement(computed, gold),
    }


@main.command("lookup")
@click.option("--row", type=click.Choice(list(ROWS)), required=True)
@printed
def lookup_command(setup: Setup, task: str, sentences: int, row: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    corpus = flair_sentences(read_splits(setup, task, sentences)["train"].examples, task)
    parts = parts_of(setup, row, "cached", task, sentences)
    clock = Clock(parts)
    n_tokens = sum(map(len, corpus))
    texts = [tuple(token.text for token in sentence) for sentence in corpus]
    shuffled = random.Random(0)
    speeds, alone = [], []
    for _ in range(1 + LOOKUP_PASSES):
        shuffled.shuffle(corpus)
        before = clock.seconds
        for start in range(0, len(corpus), BATCH_SIZE):
            batch = corpus[start : start + BATCH_SIZE]
            for part in parts:
                part.embed(batch)
            for sentence in batch:
                sentence.clear_embeddings()
        speeds.append(round(n_tokens / (clock.seconds - before), 1))
        shuffled.shuffle(texts)
        started = time.perf_counter()
        for start in range(0, len(texts), BATCH_SIZE):
            for part in parts:
                part.source.vectors(texts[start : start + BATCH_SIZE])
        alone.append(round(n_tokens / (time.perf_counter() - started), 1))
    stores = [Store.open(setup.store(part, task, sentences)) for part in ROWS[row]]
    return {
        "n_tokens": n_tokens,
        "dim": sum(part.embedding_length for part in parts),
        "first": speeds[0],  # compares every checksum
        "tokens_per_second": max(speeds[1:]),
        "vectors_alone": max(alone[1:]),
        "store_bytes": sum(store.n_bytes for store in stores),
    }


if __name__ == "__main__":
    main()
