"""What is refused, and why: everything whose vectors are no function of the sentence and the recipe."""

from __future__ import annotations

import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import flair
import numpy as np
import torch
from flair.data import Dictionary, Sentence
from flair.embeddings import (
    CharacterEmbeddings,
    DocumentPoolEmbeddings,
    HashEmbeddings,
    OneHotEmbeddings,
    PooledFlairEmbeddings,
    StackedEmbeddings,
    TransformerDocumentEmbeddings,
    WordEmbeddings,
)
from flair.embeddings.base import TokenEmbeddings

from featurestore.encoders.flair import Dependence, FlairEncoder
from featurestore.errors import UsageError
from featurestore.integrations.flair import LiveEmbeddings
from tests.kit.flair_models import WORDS, word_vectors


@pytest.fixture
def dictionary() -> Dictionary:
    made = Dictionary()
    for item in [*WORDS, *"abcdefghijklmnopqrstuvwxyz"]:
        made.add_item(item)
    return made


class Backwards(WordEmbeddings):
    """A user's class: it might do anything with a sentence."""


class Lengths(TokenEmbeddings):
    """Another: a token's length, one number."""

    def __init__(self, scale: float = 1.0) -> None:
        self.name = "lengths"
        self.static_embeddings = True
        super().__init__()
        self.scale = scale

    @property
    def embedding_length(self) -> int:
        return 1

    def _add_embeddings_internal(self, sentences):
        for sentence in sentences:
            for token in sentence:
                token.set_embedding(self.name, torch.tensor([len(token.text) * self.scale]))
        return sentences


def refusal(embedding, **keywords) -> str:
    with pytest.raises(UsageError, match="cannot be cached") as refused:
        FlairEncoder(embedding, **keywords)
    return str(refused.value)


class TestStateful:
    def test_pooled_embeddings_even_if_told_and_in_a_stack(self, characters):
        assert "depends on the order of the corpus" in refusal(PooledFlairEmbeddings(characters()))
        stack = StackedEmbeddings([word_vectors(), PooledFlairEmbeddings(characters())])
        assert "PooledFlairEmbeddings" in refusal(stack, allow_trainable=True, dependence=Dependence())


class TestTrainable:
    def test_classes_that_are_trained_along(self, dictionary):
        for embedding in (OneHotEmbeddings(dictionary), CharacterEmbeddings(dictionary), HashEmbeddings()):
            assert "trained along with a model" in refusal(embedding)
            assert "allow_trainable=True" in refusal(embedding)

    def test_are_taken_as_they_are_if_told(self, dictionary):
        embedding = OneHotEmbeddings(dictionary, embedding_length=5)
        encoder = FlairEncoder(embedding, allow_trainable=True)
        vectors = encoder.encode([("cat", "the", "cat")])[0]
        expected = embedding.embedding_layer.weight[dictionary.get_idx_for_item("cat")].detach().numpy()
        np.testing.assert_array_equal(vectors[[0, 2]], [expected, expected])
        with torch.no_grad():
            embedding.embedding_layer.weight.mul_(2)
        assert FlairEncoder(embedding, allow_trainable=True).recipe != encoder.recipe

    def test_fine_tuned_embeddings(self, transformer, characters):
        for embedding in (
            transformer(fine_tune=True),
            characters(fine_tune=True),
            word_vectors(fine_tune=True),
            StackedEmbeddings([word_vectors(), transformer(fine_tune=True)]),
        ):
            assert "fine_tune=False" in refusal(embedding)
        tuned, frozen = transformer(fine_tune=True), transformer()
        assert FlairEncoder(tuned, allow_trainable=True).recipe == FlairEncoder(frozen).recipe


class TestNoVectorPerToken:
    def test_document_embeddings(self, bert):
        for embedding in (
            DocumentPoolEmbeddings([word_vectors()]),
            TransformerDocumentEmbeddings(str(bert)),
        ):
            assert "not a token embedding" in refusal(embedding)

    def test_embeddings_of_labels(self):
        embedding = word_vectors(field="pos")
        assert "field='pos'" in refusal(embedding)

    def test_models_of_images(self, transformer):
        embedding = transformer()
        embedding.needs_manual_ocr = True
        assert "images or boxes" in refusal(embedding)

    def test_models_without_a_mask(self, transformer):
        embedding = transformer()
        embedding.tokenizer.model_input_names = ["input_ids"]
        assert "force_max_length=True" in refusal(embedding)
        embedding.force_max_length = True
        FlairEncoder(embedding)

    def test_slow_tokenizers_that_should_cut_long_sentences(self, transformer):
        slow = {"use_fast": False}
        embedding = transformer(transformers_tokenizer_kwargs=slow)
        with pytest.raises(AssertionError):  # Flair's own
            embedding.embed(Sentence(["the", "cat"]))
        assert "allow_long_sentences=False" in refusal(embedding)

    def test_our_own(self, tiny_elmo):
        assert "extract with that encoder itself" in refusal(LiveEmbeddings(tiny_elmo))


class TestUnknownClasses:
    def test_need_to_be_told(self):
        for embedding in (Lengths(), Backwards(None, vocab={"a": 0}, embedding_length=2, name="w")):
            assert "dependence=Dependence()" in refusal(embedding)

    def test_then_are_encoders(self):
        encoder = FlairEncoder(Lengths(), dependence=Dependence(whitespace=True))
        np.testing.assert_array_equal(encoder.encode([("a", "house")])[0], [[1], [5]])
        assert Dependence.of(encoder.recipe) == encoder.dependence == Dependence(whitespace=True)
        assert FlairEncoder(Lengths(2.0), dependence=Dependence()).recipe != encoder.recipe
        identity = encoder.recipe["embeddings"]["0"]
        assert identity["class"].endswith("test_rules.Lengths")
        assert identity["attributes"] == {"scale": 1.0, "static_embeddings": True}


class TestStacks:
    def test_members_of_one_name(self):
        stack = StackedEmbeddings([word_vectors(), word_vectors(seed=9)], overwrite_names=False)
        with pytest.raises(UsageError, match="two embeddings of a stack have the name 'words'"):
            FlairEncoder(stack)

    def test_members_that_read_context_differently(self, transformer):
        stack = StackedEmbeddings(
            [
                transformer(use_context=2),
                transformer(use_context=2, respect_document_boundaries=False),
            ]
        )
        with pytest.raises(UsageError, match="respect_document_boundaries"):
            FlairEncoder(stack)

    def test_depend_on_what_any_member_does(self, transformer, characters):
        stack = StackedEmbeddings(
            [characters(tokenized_lm=False), StackedEmbeddings([transformer(use_context=True)])]
        )
        expected = Dependence(context=64, document_boundaries=True, whitespace=True)
        assert FlairEncoder(stack).dependence == expected


def test_nothing_of_it_changes_flairs_device(transformer):
    before = flair.device
    refusal(transformer(fine_tune=True))
    assert flair.device is before
