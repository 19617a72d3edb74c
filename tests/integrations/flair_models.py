"""Small models of Flair's: corpora, training, and what they score."""

from __future__ import annotations

import logging

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Corpus, Dictionary, Sentence  # noqa: E402
from flair.datasets import FlairDatapointDataset  # noqa: E402
from flair.embeddings import (  # noqa: E402
    OneHotEmbeddings,
)
from flair.models import SequenceTagger, TextClassifier  # noqa: E402
from flair.trainers import ModelTrainer  # noqa: E402

logging.getLogger("flair").setLevel(logging.ERROR)


N_EPOCHS = 2


def tagging_corpus(tagged):
    def read(examples):
        sentences = []
        for example in examples:
            sentence = Sentence(list(example.tokens))
            for token, label in zip(sentence, example.labels, strict=True):
                token.add_label("upos", label)
            sentences.append(sentence)
        return FlairDatapointDataset(sentences)

    return Corpus(train=read(tagged[0]), dev=read(tagged[1]), sample_missing_splits=False)


def train(model, corpus, path, mode="none", epochs=N_EPOCHS):
    flair.set_seed(1)
    trainer = ModelTrainer(model, corpus)
    options = {"create_file_logs": False, "create_loss_file": False, "embeddings_storage_mode": mode}
    trainer.train(path, learning_rate=0.5, mini_batch_size=8, max_epochs=epochs, **options)
    # The trainer's final-model.pt is the last epoch's; in memory it leaves the best one's weights.
    model.eval().save(path / "model.pt")
    return model


def words_of(corpus):
    dictionary = Dictionary()
    for sentence in corpus.train:
        for token in sentence:
            dictionary.add_item(token.text)
    return OneHotEmbeddings(dictionary, embedding_length=4)


def new_tagger(embeddings, corpus):
    flair.set_seed(0)
    return SequenceTagger(
        embeddings=embeddings, tag_dictionary=corpus.make_label_dictionary("upos"), tag_type="upos",
        hidden_size=8, use_crf=True,
    )  # fmt: skip


def tags(model, examples):
    sentences = [Sentence(list(example.tokens)) for example in examples]
    model.predict(sentences, label_name="found", mini_batch_size=5)
    return [[(label.data_point.text, label.value) for label in s.get_labels("found")] for s in sentences]


def scores(model, examples):
    """Numbers, which tell more than labels do."""
    sentences = [Sentence(list(example.tokens)) for example in examples]
    with torch.no_grad():
        if isinstance(model, TextClassifier):
            model.embeddings.embed(sentences)
            return model.decoder(
                torch.stack([s.get_embedding(model.embeddings.get_names()) for s in sentences])
            )
        tensor, lengths = model._prepare_tensors(sorted(sentences, key=len, reverse=True))
        return model.forward(tensor, lengths)


def close(ours, theirs):
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (ours, theirs)), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
