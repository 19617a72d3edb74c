"""A real store of a labelled corpus for the dataset tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from featurestore import Example, Store, extract


def draw_examples(n: int, seed: int = 0, longest: int = 14, kind: str = "token") -> list[Example]:
    """Distinct labelled sentences, as if read from corpus.conll."""
    random = np.random.default_rng(seed)
    examples = []
    for number in range(n):
        words = [f"w{seed}.{number}", *(f"w{random.integers(60)}" for _ in range(random.integers(longest)))]
        labels = tuple("NOUN" if word.endswith(("1", "2", "3")) else "VERB" for word in words)
        label = {"token": labels, "sentence": labels[-1], "none": None}[kind]
        examples.append(Example(tuple(words), label, "corpus.conll", 10 * number + 1))
    return examples


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return draw_examples(60)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory, tiny_elmo, examples) -> Path:
    """Several float16 shards of one layer."""
    path = tmp_path_factory.mktemp("dataset") / "store"
    extract(examples, tiny_elmo, path, shard_bytes=8_000, progress=False)
    assert len(Store.open(path).manifest.shards) > 2
    return path


@pytest.fixture
def store(store_path) -> Store:
    return Store.open(store_path)


@pytest.fixture(scope="session")
def layered_path(tmp_path_factory, tiny_elmo_spec, examples) -> Path:
    """Three layers kept apart, int8."""
    path = tmp_path_factory.mktemp("dataset") / "layered"
    extract(examples, tiny_elmo_spec, path, layers="all", codec="int8", device="cpu", progress=False)
    return path


@pytest.fixture(scope="session")
def tensor_of():
    """What a store returns for an example, as a tensor."""
    return lambda store, example: torch.from_numpy(store.get(example.tokens))
