"""Context of a sentence: in documents, in memory, and what of it a transformer sees."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import torch
from flair.data import Sentence
from flair.embeddings import (
    StackedEmbeddings,
)

from featurestore import Store, extract
from featurestore.corpora.contract.example import Example
from featurestore.encoders.flair import Dependence, FlairEncoder, conditioned
from featurestore.encoders.flair.encoder import BATCH_INVARIANCE
from tests.encoders.flair.differences import SENTENCES, by_flair, relative_l2
from tests.kit.flair_models import WORDS, word_vectors


class TestContext:
    @pytest.fixture
    def embedding(self, transformer):
        return transformer(use_context=4)

    @pytest.fixture
    def document(self):
        sentences = [Sentence(list(tokens)) for tokens in SENTENCES]
        Sentence.set_context_for_sentences(sentences)
        return sentences

    def test_is_flairs_own_for_linked_sentences(self, embedding, document):
        encoder = FlairEncoder(embedding)
        assert encoder.dependence == Dependence(context=4, document_boundaries=True)
        ours = encoder.encode([conditioned(sentence, encoder.dependence) for sentence in document])
        for vectors, theirs in zip(ours, by_flair(embedding, *document), strict=True):
            assert relative_l2(vectors, theirs) < BATCH_INVARIANCE
        without = encoder.encode([tuple(token.text for token in document[1])])[0]
        assert relative_l2(without, ours[1]) > 0.01

    def test_never_comes_from_the_batch(self, embedding):
        encoder = FlairEncoder(embedding)
        together = encoder.encode(SENTENCES)
        for tokens, vectors in zip(SENTENCES, together, strict=True):
            assert relative_l2(vectors, encoder.encode([tokens])[0]) < BATCH_INVARIANCE
        # The trap is real: Flair alone takes the neighbours in the batch.
        theirs = by_flair(embedding, *[Sentence(list(tokens)) for tokens in SENTENCES])
        assert relative_l2(together[1], theirs[1]) > 0.01

    def test_ends_at_document_boundaries_or_not(self, transformer, document):
        document[1].is_document_boundary = True
        for respected in (True, False):
            embedding = transformer(use_context=4, respect_document_boundaries=respected)
            encoder = FlairEncoder(embedding)
            ours = encoder.encode([conditioned(document[2], encoder.dependence)])[0]
            assert relative_l2(ours, by_flair(embedding, *document)[2]) < BATCH_INVARIANCE

    def test_of_a_stack_is_as_long_as_each_member_reads(self, transformer, document):
        stack = StackedEmbeddings([transformer(use_context=2), transformer(use_context=5), word_vectors()])
        encoder = FlairEncoder(stack)
        assert encoder.dependence.context == 5
        ours = encoder.encode([conditioned(sentence, encoder.dependence) for sentence in document])
        for vectors, theirs in zip(ours, by_flair(stack, *document), strict=True):
            assert relative_l2(vectors, theirs) < BATCH_INVARIANCE


class TestContextInMemory:
    """Of short sentences the context is most of what a model reads: it counts when a batch is cut."""

    CONTEXT = 8
    BUDGET = 60

    @pytest.fixture
    def embedding(self, transformer):
        return transformer(use_context=self.CONTEXT)

    @pytest.fixture
    def encoder(self, embedding):
        encoder = FlairEncoder(embedding)
        encoder.token_budget = self.BUDGET
        return encoder

    @pytest.fixture
    def read(self, embedding):
        """Sentences, and words without padding, of each call of the model itself."""
        seen = []

        def record(_, args, inputs):
            mask = inputs["attention_mask"]
            special = 4  # [CLS], [SEP] and a separator on each side
            seen.append((len(mask), int(mask.sum()) - special * len(mask)))

        handle = embedding.model.register_forward_pre_hook(record, with_kwargs=True)
        yield seen
        handle.remove()

    @pytest.fixture
    def batch(self):
        """Words in running text, one or two to a sentence; some sentences stand alone."""
        draw = random.Random(3)
        sentences = [Sentence(draw.sample(WORDS, draw.choice((1, 1, 2)))) for _ in range(36)]
        Sentence.set_context_for_sentences(sentences[:30])
        dependence = Dependence(context=self.CONTEXT)
        return [conditioned(sentence, dependence) for sentence in sentences]

    def test_a_batch_is_cut_where_its_context_fills_the_budget(self, encoder, read, batch):
        n_own = sum(map(len, batch))
        assert n_own < self.BUDGET
        together = encoder.encode(batch)
        assert sum(n_sentences for n_sentences, _ in read) == len(batch)
        assert sum(n_words for _, n_words in read) > 6 * self.BUDGET
        assert self.BUDGET - 2 * self.CONTEXT < max(n_words for _, n_words in read) <= self.BUDGET
        for sentence, vectors in zip(batch, together, strict=True):
            assert vectors.shape == (len(sentence), encoder.dim)
            assert relative_l2(vectors, encoder.encode([sentence])[0]) < BATCH_INVARIANCE

    def test_a_larger_batch_than_the_budget_may_fill_itself(self, encoder, read, batch):
        encoder.encode(batch * 3)
        n_own = 3 * sum(map(len, batch))
        assert self.BUDGET < max(n_words for _, n_words in read) <= n_own

    def test_what_fits_is_read_at_once(self, encoder, read, batch):
        encoder.encode([("the", "cat")] * 30)
        encoder.encode(batch[10:13])
        assert [n_sentences for n_sentences, _ in read] == [30, 3]

    def test_one_sentence_over_the_budget_is_read_alone(self, encoder, read, batch):
        encoder.token_budget = 1
        encoder.encode(batch[:1])
        encoder.encode(batch[:2])
        assert [n_sentences for n_sentences, _ in read] == [1, 1, 1]

    def test_context_shrinks_with_the_batch_when_memory_runs_out(self, embedding, encoder, batch, tmp_path):
        n_failed = 0

        def exhausted(_, args, inputs):
            nonlocal n_failed
            if inputs["attention_mask"].numel() > 50:
                n_failed += 1
                raise torch.OutOfMemoryError("tried to allocate 20 GiB")

        wanted = {sentence: encoder.encode([sentence])[0] for sentence in batch}
        embedding.model.register_forward_pre_hook(exhausted, with_kwargs=True)
        examples = [Example(sentence) for sentence in batch]
        report = extract(examples, encoder, tmp_path / "s", codec="float32", progress=False)
        assert report.n_encoded == len(wanted)
        assert n_failed <= 3
        store = Store.open(tmp_path / "s")
        for sentence, vectors in wanted.items():
            assert relative_l2(store.get(sentence), vectors) < BATCH_INVARIANCE
