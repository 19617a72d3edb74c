"""Fixtures: small models in files, as Flair reads them, and functions that make embeddings of them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import torch
from flair.embeddings import FlairEmbeddings, TransformerWordEmbeddings

from tests.kit.flair_models import word_vectors, write_bert, write_character_model


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="session")
def forward_model(tmp_path_factory) -> Path:
    return write_character_model(tmp_path_factory.mktemp("characters") / "forward.pt", forward=True)


@pytest.fixture(scope="session")
def backward_model(tmp_path_factory) -> Path:
    return write_character_model(tmp_path_factory.mktemp("characters") / "backward.pt", forward=False, seed=4)


@pytest.fixture(scope="session")
def saved_words(tmp_path_factory) -> Path:
    """Word embeddings as Flair itself saves an embedding."""
    path = tmp_path_factory.mktemp("words") / "words.pt"
    torch.save(word_vectors().save_embeddings(), path)
    return path


@pytest.fixture(scope="session")
def transformer(bert):
    """A function that makes an embedding of the small transformer, not to be fine-tuned."""

    def make(**options) -> TransformerWordEmbeddings:
        return TransformerWordEmbeddings(str(bert), **{"fine_tune": False, **options})

    return make


@pytest.fixture(scope="session")
def characters(forward_model, backward_model):
    """A function that makes an embedding of a small character model."""

    def make(*, forward: bool = True, **options) -> FlairEmbeddings:
        return FlairEmbeddings(str(forward_model if forward else backward_model), **options)

    return make
