"""Small models of the kinds that Flair embeds with: a transformer, character models, word vectors."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import torch
from flair.data import Dictionary
from flair.embeddings import BytePairEmbeddings, WordEmbeddings
from flair.models import LanguageModel
from sentencepiece import SentencePieceTrainer
from transformers import BertConfig, BertModel, BertTokenizerFast

MAX_LENGTH = 64
WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "barks", "house", "."]


def write_bert(folder: Path, *, extra_words: tuple[str, ...] = (), seed: int = 1) -> Path:
    """Write a transformer of two layers with random weights, and a tokenizer of letters and some words."""
    torch.manual_seed(seed)
    letters = string.ascii_letters + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *extra_words]
    pieces += [p for p in letters if p not in pieces] + [f"##{letter}" for letter in letters]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def write_character_model(path: Path, *, forward: bool, seed: int = 2) -> Path:
    """Write a character language model with random weights."""
    torch.manual_seed(seed)
    dictionary = Dictionary()
    for letter in string.printable:
        dictionary.add_item(letter)
    LanguageModel(dictionary, forward, hidden_size=12, nlayers=1, embedding_size=6).save(path)
    return path


def byte_pairs(folder: Path, words: list[str] = WORDS, **options) -> BytePairEmbeddings:
    """Return byte pair embeddings with random vectors, over a tokenizer trained on a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").write_text("\n".join([" ".join(words)] * 20), encoding="utf-8")
    SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "pieces"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    torch.manual_seed(6)
    embedding = BytePairEmbeddings(model_file_path=folder / "pieces.model", dim=4, name="pieces", **options)
    embedding.embedding.weight.data[:-1] = torch.randn(len(embedding.embedding.weight) - 1, 4)
    return embedding


def word_vectors(words: list[str] = WORDS, *, seed: int = 3, **options) -> WordEmbeddings:
    """Return word embeddings with random vectors; zeros for unknown words, as Flair has it."""
    torch.manual_seed(seed)
    vocabulary = {word: number for number, word in enumerate(words)}
    embedding = WordEmbeddings(None, vocab=vocabulary, embedding_length=8, name="words", **options)
    embedding.embedding.weight.data[:-1] = torch.randn(len(words), 8)
    return embedding
