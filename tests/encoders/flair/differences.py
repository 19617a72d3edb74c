"""Vectors as Flair itself gives them, and how far ours are from them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import torch
from flair.data import Sentence

SENTENCES = [
    ("the", "cat", "sat", "on", "the", "mat", "."),
    ("dogs", "bark", "!"),
    ("a", "house"),
    ("the", "Unbelievably", "long", "wordiness", "of", "it", "all", "."),
    (".",),
    ("the", "dog", "barks", "."),
]


def by_flair(embedding, *sentences: Sentence) -> list[np.ndarray]:
    """What Flair itself gives for sentences in one batch."""
    for sentence in sentences:
        sentence.clear_embeddings()
    embedding.embed(list(sentences))
    found = [torch.stack([token.get_embedding() for token in sentence]) for sentence in sentences]
    for sentence in sentences:
        sentence.clear_embeddings()
    return [vectors.detach().numpy() for vectors in found]


def relative_l2(ours, theirs) -> float:
    difference = np.linalg.norm(ours - theirs)
    return float(difference / np.linalg.norm(theirs)) if difference else 0.0
