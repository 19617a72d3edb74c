"""The baseline without ELMo: word and character embeddings of its own, a BiLSTM, a linear layer.

    python -m tests.bench.quality.plain_tagger --task upos --seed 0
    python -m tests.bench.quality.plain_tagger --task sentiment --seed 0 --json

It sees the training split and nothing else: 100-d embeddings of the words that occur twice or more there, and
the states at both ends of a BiLSTM over each word's characters. Rare words are sometimes replaced by the
unknown word while training, so that it is learned. Tagging reads the BiLSTM at every token, sentiment its two
last states. The best epoch on dev is scored once on test; quality.py prints it as a row of its table.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from featurestore import Example, open_corpus
from featurestore.dataset.sampling.sampler import BucketBatchSampler
from tests.bench.machine import machine

FILES = {
    "upos": ("ud-ewt/en_ewt-ud-{}.conllu", "upos"),
    "sentiment": ("sentence-polarity/{}.tsv", "label"),
}
PADDING, UNKNOWN = 0, 1
LONGEST_WORD = 30
"""Characters read of a word: the first so many."""


@dataclass(frozen=True)
class Settings:
    """What decides the model.

    Attributes
    ----------
    unknown : float
        A word that occurs n times is replaced by the unknown word with probability unknown / (unknown + n).
    word_dropout : float
        Share of tokens whose word embedding is zeroed: the model must also read characters and context.
    dropout : float
        On the BiLSTM's input and output.
    epochs, patience : int
        The learning rate falls to nothing along a cosine over ``epochs``.
    """

    word_dim: int = 100
    character_dim: int = 32
    character_hidden: int = 50
    hidden: int = 256
    unknown: float = 0.25
    word_dropout: float = 0.05
    dropout: float = 0.5
    lr: float = 2e-3
    weight_decay: float = 0.01
    epochs: int = 15
    patience: int = 5
    token_budget: int = 1024
    max_sentences: int = 48
    clip: float = 5.0


SETTINGS = {"upos": Settings(), "sentiment": Settings(word_dropout=0.2, lr=1e-3, epochs=10, patience=4)}


class Numbers:
    """Words, characters and labels of the training split as numbers."""

    def __init__(self, train: Sequence[Example], settings: Settings) -> None:
        counts = Counter(word.lower() for example in train for word in example.tokens)
        words = sorted(word for word, n in counts.items() if n >= 2)
        self._words = {word: number for number, word in enumerate(words, 2)}
        characters = Counter(character for word in counts for character in word + word.upper())
        self._characters = {character: number for number, character in enumerate(sorted(characters), 2)}
        labels = {label for example in train for label in labels_of(example)}
        self.labels = sorted(labels)
        self._labels = {label: number for number, label in enumerate(self.labels)}
        self.n_words, self.n_characters = len(words) + 2, len(characters) + 2
        self.unknown_rate = torch.zeros(self.n_words)
        for word, number in self._words.items():
            self.unknown_rate[number] = settings.unknown / (settings.unknown + counts[word])

    def words(self, example: Example) -> Tensor:
        """Return the word numbers of a sentence, unknown ones included."""
        return torch.tensor([self._words.get(word.lower(), UNKNOWN) for word in example.tokens])

    def characters(self, word: str) -> Tensor:
        """Return the character numbers of a word, its beginning if it is long."""
        return torch.tensor([self._characters.get(c, UNKNOWN) for c in word[:LONGEST_WORD]])

    def label_numbers(self, example: Example) -> Tensor:
        """Return label numbers; -1, never predicted, for a label that training lacks."""
        return torch.tensor([self._labels.get(label, -1) for label in labels_of(example)])


def labels_of(example: Example) -> tuple[str, ...]:
    """Return a label per token, or the one of the sentence."""
    return (example.labels,) if isinstance(example.labels, str) else tuple(example.labels or ())


@dataclass(frozen=True)
class Batch:
    """Sentences side by side; the characters of each distinct word once.

    Attributes
    ----------
    words, types : LongTensor (batch, longest)
        Word numbers, and rows of ``characters``.
    characters : LongTensor (n_types, longest word)
    character_lengths, lengths : LongTensor
    labels : LongTensor (batch, longest), or (batch, 1) for sentence labels
        -100 in the padding.
    """

    words: Tensor
    types: Tensor
    characters: Tensor
    character_lengths: Tensor
    lengths: Tensor
    labels: Tensor


class Split:
    """Examples as tensors, cut into batches of like length."""

    def __init__(self, examples: Sequence[Example], numbers: Numbers, settings: Settings, seed: int) -> None:
        types = {word: row for row, word in enumerate(dict.fromkeys(w for e in examples for w in e.tokens))}
        self._characters = [numbers.characters(word) for word in types]
        self._types = [torch.tensor([types[word] for word in example.tokens]) for example in examples]
        self._words = [numbers.words(example) for example in examples]
        self._labels = [numbers.label_numbers(example) for example in examples]
        self._sampler = BucketBatchSampler(
            [len(example.tokens) for example in examples],
            token_budget=settings.token_budget,
            max_sentences=settings.max_sentences,
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._sampler:
            types, inverse = torch.unique(torch.cat([self._types[i] for i in rows]), return_inverse=True)
            lengths = [len(self._types[i]) for i in rows]
            characters = [self._characters[i] for i in types.tolist()]
            yield Batch(
                pad_sequence([self._words[i] for i in rows], batch_first=True),
                pad_sequence(torch.split(inverse, lengths), batch_first=True),
                pad_sequence(characters, batch_first=True),
                torch.tensor([len(word) for word in characters]),
                torch.tensor(lengths),
                pad_sequence([self._labels[i] for i in rows], batch_first=True, padding_value=-100),
            )


class PlainModel(nn.Module):
    """Embeddings, BiLSTM, linear layer."""

    def __init__(self, numbers: Numbers, settings: Settings, *, per_token: bool) -> None:
        super().__init__()
        s = settings
        self.word_dropout, self.per_token = s.word_dropout, per_token
        self.register_buffer("unknown_rate", numbers.unknown_rate)
        self.words = nn.Embedding(numbers.n_words, s.word_dim, padding_idx=PADDING)
        self.characters = nn.Embedding(numbers.n_characters, s.character_dim, padding_idx=PADDING)
        nn.init.normal_(self.words.weight, std=0.3)
        nn.init.normal_(self.characters.weight, std=0.3)
        self.spelling = nn.LSTM(s.character_dim, s.character_hidden, batch_first=True, bidirectional=True)
        self.reader = nn.LSTM(
            s.word_dim + 2 * s.character_hidden, s.hidden, batch_first=True, bidirectional=True
        )
        self.dropout = nn.Dropout(s.dropout)
        self.output = nn.Linear(2 * s.hidden, len(numbers.labels))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (batch, longest, n_labels), or (batch, 1, n_labels) for sentence labels."""
        words = batch.words
        if self.training:
            unknown = torch.rand(words.shape) < self.unknown_rate[words]
            words = words.masked_fill(unknown, UNKNOWN)
        by_word = self.words(words)
        if self.training and self.word_dropout:
            by_word = by_word * (torch.rand(words.shape) >= self.word_dropout).unsqueeze(2)
        _, spelled = self._ends(self.spelling, self.characters(batch.characters), batch.character_lengths)
        vectors = self.dropout(torch.cat([by_word, spelled[batch.types]], 2))
        outputs, ends = self._ends(self.reader, vectors, batch.lengths)
        return self.output(self.dropout(outputs if self.per_token else ends.unsqueeze(1)))

    @staticmethod
    def _ends(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs at every position and the two states at the true ends."""
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        outputs, (states, _) = lstm(packed)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
        return padded, torch.cat([states[0], states[1]], 1)


def accuracy(model: PlainModel, split: Split) -> float:
    """Return the share of labels that are right."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for batch in split:
            mask = batch.labels != -100
            right += int((model(batch).argmax(-1) == batch.labels)[mask].sum())
            total += int(mask.sum())
    return right / total


def train(
    splits: dict[str, list[Example]], settings: Settings, seed: int, *, per_token: bool, verbose: bool = False
) -> dict[str, Any]:
    """Train on ``train``, choose the epoch on ``dev``, score it on ``test``."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    np.random.seed(seed)
    numbers = Numbers(splits["train"], settings)
    data = {name: Split(examples, numbers, settings, seed) for name, examples in splits.items()}
    model = PlainModel(numbers, settings, per_token=per_token)
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay)
    n_steps = settings.epochs * len(data["train"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1, step / n_steps)))
    )
    best, best_epoch, state, epoch = -1.0, 0, {}, 0
    for epoch in range(1, settings.epochs + 1):
        model.train()
        total = 0.0
        for batch in data["train"]:
            loss = nn.functional.cross_entropy(
                model(batch).flatten(0, 1), batch.labels.flatten(), ignore_index=-100
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            total += loss.item()
        score = accuracy(model, data["dev"])
        if verbose:
            seconds = time.perf_counter() - started
            print(f"epoch {epoch:2}  loss {total / len(data['train']):.4f}  dev {score:.4f}  {seconds:.0f} s")
        if score > best:
            best, best_epoch, state = score, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(state)
    return {
        "accuracy": accuracy(model, data["test"]),
        "dev": best,
        "best_epoch": best_epoch,
        "epochs": epoch,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": time.perf_counter() - started,
        "settings": asdict(settings),
    }


@click.command()
@click.option("--task", type=click.Choice(list(FILES)), required=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--corpora", type=click.Path(path_type=Path, exists=True), default=Path("../shared/corpora"))
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another setting, for trials.")
@click.option("--json", "as_json", is_flag=True)
def main(task: str, seed: int, corpora: Path, changes: tuple[str, ...], as_json: bool) -> None:
    settings = asdict(SETTINGS[task])
    for change in changes:
        name, _, value = change.partition("=")
        if name not in settings:
            raise click.BadParameter(f"no setting {name!r}: one of {', '.join(settings)}", param_hint="--set")
        settings[name] = type(settings[name])(value)
    pattern, label = FILES[task]
    splits = {
        name: list(open_corpus(corpora / pattern.format(name), label=label))
        for name in ("train", "dev", "test")
    }
    result = train(splits, Settings(**settings), seed, per_token=task == "upos", verbose=not as_json)
    if as_json:
        print(json.dumps({"task": task, "seed": seed, **result}))
        return
    print(machine())
    print(
        f"{task}, seed {seed}: test {100 * result['accuracy']:.2f}, dev {100 * result['dev']:.2f} "
        f"(epoch {result['best_epoch']} of {result['epochs']}), {result['n_parameters']:,} parameters, "
        f"{result['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
