"""Small labelled corpora and stores of them that light models learn in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featurestore.cli.main import main
from featurestore.recipe import Recipe
from featurestore.store.store import Store

WORDS = {"the": "DET", "a": "DET", "dog": "NOUN", "cat": "NOUN", "sees": "VERB", "red": "ADJ", "big": "ADJ"}
SPANS = {"New": "B-LOC", "York": "I-LOC", "Ann": "B-PER", "saw": "O", "in": "O"}
QUICK = ["--epochs", "30", "--patience", "5", "--lr", "0.02", "--hidden", "8", "--token-budget", "64"]


def draw(words: dict[str, str], n: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return sorted({tuple(map(str, random.choice(list(words), random.integers(2, 7)))) for _ in range(n)})


def conll(sentences, labels) -> str:
    return "\n".join("".join(f"{w}\t{labels[w]}\n" for w in s) for s in sentences)


def make_place(folder: Path) -> Path:
    """Fill a folder with corpora and stores of their sentences under two recipes, one of them untrained."""
    everything: list[tuple[str, ...]] = []
    for name, words in (("pos", WORDS), ("ner", SPANS)):
        for split, n, seed in (("train", 120, 1), ("dev", 40, 2)):
            sentences = draw(words, n, seed)
            everything += sentences
            (folder / f"{name}.{split}.conll").write_text(conll(sentences, words))
            rows = [f"{'animal' if 'dog' in s or 'cat' in s else 'thing'}\t{' '.join(s)}" for s in sentences]
            (folder / f"{name}.{split}.tsv").write_text("\n".join(["mood\ttext", *rows]) + "\n")
    random = np.random.default_rng(0)
    vectors = {word: random.normal(size=8).astype(np.float32) for word in {**WORDS, **SPANS}}
    for name, recipe in {"a": {"version": 1}, "b": {"version": 2, "untrained": True}}.items():
        store = Store.create(folder / f"{name}.fs", recipe=Recipe({"kind": "test", **recipe}), dim=8)
        with store.write() as session:
            for tokens in everything:
                session.add(tokens, np.stack([vectors[word] for word in tokens]))
    return folder


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err
