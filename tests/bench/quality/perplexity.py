"""Held-out perplexity of a trained biLM beside a unigram and a trigram model, each direction by itself.

    python -m tests.bench.quality.perplexity CORPUS... --model DIR
    python -m tests.bench.quality.perplexity CORPUS... --min-count 2 --held-out 0.01 --seed 0  # n-grams alone

CORPUS... are the texts that `featurestore pretrain CORPUS... --out DIR` read, in the same order. They are
split as the training split them; all models know the same classes, one of them for every unknown word, and
are scored at the same positions: every word and every sentence end of the held-out sentences, but not the
marker that begins one. The n-grams learn from the training part (see ngrams.py).

The biLM is measured with its LSTM state at the start of a sentence being zero, warm (one fixed state: the one
beside the weights, else made here from training text) and carried from each held-out sentence to the next. It
computes in float32. The weights and the softmax are those of the folder's checkpoint, which are weights.hdf5
where the last pass was the best; "as the trainer printed" is what stands in card.json: carried in sixteen
streams, which leave a short rest of the text out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch

from featurestore import open_corpus
from featurestore.encoders.elmo.files.initial_state import read_state
from featurestore.encoders.elmo.model.network import BiLM, InitialState
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.encoders.elmo.warm import split_streams, warm_state
from featurestore.pretraining.network import StreamState
from featurestore.pretraining.settings import CHECKPOINT_FORMAT, PretrainConfig
from featurestore.pretraining.streams import BEGIN_TYPE, END_TYPE, Chunk, Text
from featurestore.pretraining.trainer import Perplexity, Trainer
from featurestore.pretraining.vocabulary import Vocabulary
from featurestore.resuming.checkpoint import FORMAT_VERSION
from featurestore.tensorfile import read_tensor_file
from tests.bench.machine import machine
from tests.bench.quality.ngrams import BEGIN, END, Trigram, Unigram, events
from tests.bench.quality.ngrams import perplexity as perplexity_of

Policy = Literal["zero", "warm", "carried"]
POLICIES: tuple[Policy, ...] = ("zero", "warm", "carried")

_SENTENCES = 64
"""Sentences scored side by side."""

_STEPS = 512
"""Steps of the carried state scored at once: they bound memory and change nothing."""

_WARM_TOKENS = 100_000
"""Of the training text, where no warm state lies beside the weights."""


def sentence_perplexity(
    trainer: Trainer, text: Text, policy: Policy, warm: InitialState | None = None
) -> Perplexity:
    """Return the perplexity of every sentence's words and end, forward, and words and begin, backward.

    Parameters
    ----------
    trainer : Trainer
        Its network and softmax.
    text : Text
        Of the trainer's word types.
    policy : {"zero", "warm", "carried"}
        The state before a sentence's first marker. ``carried``: the one that the sentence before left, both
        markers read; zeros before the first sentence.
    warm : InitialState
        For ``warm``.
    """
    trainer.network.eval()
    trainer.objective.eval()
    total, n = np.zeros(2), np.zeros(2)
    state = trainer.network.initial_state(1)
    with torch.inference_mode():
        for chunk in _carried_chunks(text) if policy == "carried" else _sentence_chunks(text):
            if policy != "carried":
                state = _start(trainer, chunk.inputs.shape[2], warm if policy == "warm" else None)
            outputs, state = trainer.network(trainer._vectors(chunk.inputs), state)
            losses = trainer._losses(outputs, chunk).double().numpy(force=True)
            n_forward = int(chunk.scored[0].sum())
            total += losses[:n_forward].sum(), losses[n_forward:].sum()
            n += n_forward, len(losses) - n_forward
    return Perplexity(*np.exp(total / n).tolist())


def _start(trainer: Trainer, n_streams: int, initial: InitialState | None) -> StreamState:
    if initial is None:
        return trainer.network.initial_state(n_streams)
    return StreamState(
        *(
            part.to(trainer.device).unsqueeze(2).expand(-1, -1, n_streams, -1)
            for part in (initial.hidden, initial.memory)
        )
    )


def _sentence_chunks(text: Text) -> Iterator[Chunk]:
    """Yield whole sentences side by side, of like length; padding comes last, so it changes nothing."""
    sentences = np.split(text.tokens, text.ends[:-1])
    order = np.argsort([len(sentence) for sentence in sentences], kind="stable")
    for start in range(0, len(order), _SENTENCES):
        chosen = [sentences[i] for i in order[start : start + _SENTENCES]]
        types = np.full((2, len(chosen[-1]) + 2, len(chosen)), END_TYPE, np.int32)
        scored = np.zeros((2, len(chosen[-1]) + 1, len(chosen)), bool)
        for row, words in enumerate(chosen):
            marked = np.concatenate([[BEGIN_TYPE], words, [END_TYPE]])
            types[0, : len(marked), row] = marked
            types[1, : len(marked), row] = marked[::-1]
            scored[:, : len(words) + 1, row] = True
        yield Chunk(types[:, :-1], types[:, 1:], scored)


def _carried_chunks(text: Text) -> Iterator[Chunk]:
    """Yield the sentences as one stream in their order."""
    begin, end = np.array([BEGIN_TYPE], np.int32), np.array([END_TYPE], np.int32)
    forward: list[np.ndarray] = []
    backward: list[np.ndarray] = []
    for words in np.split(text.tokens, text.ends[:-1]):
        forward += [begin, words, end]
        backward += [end, words[::-1], begin]
    flat = np.stack([np.concatenate(forward), np.concatenate(backward)])[:, :, None]
    # The target after a sentence's last marker is the next one's first: given, not scored.
    scored = np.ones((2, flat.shape[1], 1), bool)
    lengths = np.diff(text.ends, prepend=0) + 2
    scored[:, np.cumsum(lengths) - lengths] = False
    for start in range(0, flat.shape[1] - 1, _STEPS):
        stop = min(start + _STEPS, flat.shape[1] - 1)
        targets = slice(start + 1, stop + 1)
        yield Chunk(flat[:, start:stop], flat[:, targets], scored[:, targets])


def read_split(corpora: tuple[str, ...], config: PretrainConfig) -> tuple[Text, Text, Vocabulary]:
    """Return the training and the held-out part of the texts, and the vocabulary, as a training has them."""
    text = Text.of(example.tokens for path in corpora for example in open_corpus(path))
    train, held_out = text.split(config.held_out, config.seed)
    vocabulary = Vocabulary.of_counts(train.counts(), min_count=config.min_count, max_words=config.max_words)
    return train, held_out, vocabulary


def load_trainer(folder: Path, config: PretrainConfig, train: Text, vocabulary: Vocabulary) -> Trainer:
    """Return the network and the softmax of a training, in float32 on the CPU, ready to score.

    Raises
    ------
    click.ClickException
        If the folder is of a training on other texts or with other settings.
    """
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    if tuple(words) != vocabulary.words:
        raise click.ClickException(
            f"{folder / 'vocabulary.txt'} has {len(words):,} classes, these texts give others "
            f"({len(vocabulary):,}): name the texts of that training, in its order"
        )
    saved = read_tensor_file(
        folder / "checkpoint.h5",
        format_name=CHECKPOINT_FORMAT,
        format_version=FORMAT_VERSION,
        noun="training checkpoint",
    )
    options = ElmoOptions.read(folder / "options.json")
    config = dataclasses.replace(config, precision="float32")
    trainer = Trainer(options, config, train, vocabulary, device=torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(torch.from_numpy(saved.tensors[name]))
    return trainer


def warm_of(folder: Path, weights_sha256: str, trainer: Trainer, train: Text) -> tuple[InitialState, str]:
    """Return the warm state of a model, and where it is from."""
    options = trainer.network.options
    path = folder / "weights.warm.hdf5"
    if path.exists():
        state = read_state(path, options, weights_sha256=weights_sha256)
        return InitialState(torch.from_numpy(state.hidden), torch.from_numpy(state.memory)), path.name
    n_sentences = int(np.searchsorted(train.ends, _WARM_TOKENS, side="right"))
    sentences = [
        tuple(train.types[number] for number in words)
        for words in np.split(train.tokens, train.ends[:-1])[:n_sentences]
    ]
    network = BiLM(options, trainer.network.weights())
    return warm_state(network, split_streams(sentences)), f"made from {train.ends[n_sentences - 1]:,} tokens"


def ngram_rows(train: Text, held_out: Text, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Return the perplexities of the count-based models."""
    models: tuple[tuple[str, Callable[..., Unigram | Trigram]], ...] = (
        ("unigram", Unigram),
        ("trigram, interpolated modified Kneser-Ney", Trigram),
    )
    rows = []
    for name, model in models:
        row: dict[str, Any] = {"model": name}
        for direction, first in (("forward", BEGIN), ("backward", END)):
            backward = direction == "backward"
            fitted = model(events(train, vocabulary, backward=backward), len(vocabulary), first=first)
            row[direction] = perplexity_of(
                fitted.probabilities(events(held_out, vocabulary, backward=backward))
            )
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown, with how many times below the first row's each perplexity is."""
    lines = ["| model | forward | backward | mean | below unigram |", "|---|---|---|---|---|"]
    means = [(row["forward"] * row["backward"]) ** 0.5 for row in rows]
    for row, mean in zip(rows, means, strict=True):
        shown = " | ".join(f"{value:.1f}" for value in (row["forward"], row["backward"], mean))
        lines.append(f"| {row['model']} | {shown} | {means[0] / mean:.2f} x |")
    return "\n".join(lines)


@click.command()
@click.argument("corpora", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--model", "folder", type=click.Path(exists=True, path_type=Path), help="Folder of a training.")
@click.option("--policies", default=",".join(POLICIES), show_default=True)
@click.option("--min-count", default=PretrainConfig.min_count, show_default=True)
@click.option("--max-words", default=PretrainConfig.max_words, show_default=True)
@click.option("--held-out", default=PretrainConfig.held_out, show_default=True)
@click.option("--seed", default=PretrainConfig.seed, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    corpora: tuple[str, ...], folder: Path | None, policies: str, as_json: bool, **settings: Any
) -> None:
    card: dict[str, Any] = {}
    config = PretrainConfig(**settings)
    if folder is not None:  # the training's settings count
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        config = PretrainConfig(**card["settings"])
    train, held_out, vocabulary = read_split(corpora, config)
    rows = ngram_rows(train, held_out, vocabulary)
    notes = []
    if folder is not None:
        best, last = card["best"], card["history"][-1]
        rows.append({"model": "biLM, as the trainer printed", **_both(best)})
        if best["epoch"] != last["epoch"]:
            notes.append(
                f"the checkpoint is of pass {last['epoch']}, weights.hdf5 of pass {best['epoch']}: the rows "
                "of initial states are of the checkpoint"
            )
        trainer = load_trainer(folder, config, train, vocabulary)
        for policy in (name for name in POLICIES if name in policies.split(",")):
            warm = None
            if policy == "warm":
                warm, origin = warm_of(folder, card["weights_sha256"], trainer, train)
                notes.append(f"warm state: {origin}")
            measured = sentence_perplexity(trainer, held_out, policy, warm)
            rows.append({"model": f"biLM, initial state {policy}", **_both(dataclasses.asdict(measured))})
    facts = {
        "n_train_tokens": train.n_tokens,
        "n_held_out_sentences": held_out.n_sentences,
        "n_held_out_scored": held_out.n_tokens + held_out.n_sentences,
        "n_classes": len(vocabulary),
    }
    if as_json:
        print(json.dumps({"machine": machine(), **facts, "rows": rows, "notes": notes}, indent=2))
        return
    print(
        f"{train.n_tokens:,} training tokens, {len(vocabulary):,} classes; "
        f"{facts['n_held_out_scored']:,} positions scored in {held_out.n_sentences:,} held-out sentences"
    )
    print(table(rows))
    print("\n".join(notes))


def _both(row: dict[str, Any]) -> dict[str, float]:
    return {direction: row[direction] for direction in ("forward", "backward")}


if __name__ == "__main__":
    main()
