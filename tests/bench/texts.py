"""The texts that benchmarks read: the shared corpora where they are, else the repository's samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featurestore import Example, open_corpus
from tests.kit.places import DATA, SHARED

CORPORA = SHARED / "corpora"

TAGGING = {
    split: (CORPORA / f"ud-ewt/en_ewt-ud-{split}.conllu", DATA / f"tagging/{split}.conllu")
    for split in ("train", "dev", "test")
}
SENTIMENT = {
    split: (CORPORA / f"sentence-polarity/{split}.tsv", DATA / f"sentiment/{split}.tsv")
    for split in ("train", "dev", "test")
}


def text(places: tuple[Path, Path], label: str | None = None, *, sample: bool = False) -> list[Example]:
    """Read a corpus from the first of its places, or the sample if that is asked for or all there is."""
    shared, small = places
    return list(open_corpus(small if sample or not shared.exists() else shared, label=label))


def sentences(max_tokens: int | None = None, *, sample: bool = False) -> list[tuple[str, ...]]:
    """Return the distinct sentences of UD EWT (train, dev, test) up to about so many tokens.

    The samples have no test part.
    """
    found: dict[tuple[str, ...], None] = {}
    n_tokens = 0
    for split in ("train", "dev") if sample or not CORPORA.exists() else ("train", "dev", "test"):
        for example in text(TAGGING[split], sample=sample):
            if max_tokens is not None and n_tokens >= max_tokens:
                return list(found)
            if example.tokens not in found:
                found[example.tokens] = None
                n_tokens += len(example.tokens)
    return list(found)


def source(*, sample: bool = False) -> str:
    """Return what :func:`sentences` reads, for a report."""
    return "the samples in data/" if sample or not CORPORA.exists() else "UD EWT"


def enough_sentences(least_tokens: int) -> list[tuple[str, ...]]:
    """Return distinct sentences of real text; some again, with a first token of their own, if it is short."""
    found = sentences(least_tokens)
    n_tokens, n_distinct = sum(map(len, found)), len(found)
    random = np.random.default_rng(0)
    while n_tokens < least_tokens:
        again = found[int(random.integers(n_distinct))]
        found.append((f"{len(found)}_", *again[1:]))
        n_tokens += len(again)
    return found
