"""Small ELMo files in Flair's hands: embeddings of sentences, one row per token."""

from __future__ import annotations

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Sentence  # noqa: E402

from tests.kit.places import TINY_ELMO  # noqa: E402

OPTIONS, WEIGHTS = TINY_ELMO / "options.json", TINY_ELMO / "weights.hdf5"


FILES = {"options_file": OPTIONS, "weight_file": WEIGHTS}


def sentences_of(examples):
    return [Sentence(list(example.tokens)) for example in examples]


def on_tokens(sentences):
    """What Flair concatenates for each token, one row per token."""
    return torch.stack([token.get_embedding() for sentence in sentences for token in sentence])


def embedded(embedding, examples):
    sentences = sentences_of(examples)
    embedding.embed(sentences)
    return on_tokens(sentences)


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=atol)
