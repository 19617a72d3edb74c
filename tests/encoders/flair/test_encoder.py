"""FlairEncoder: its vectors are Flair's own, whatever the batch, and it leaves everything as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import flair
import torch
from flair.data import Sentence
from flair.embeddings import (
    MuseCrosslingualEmbeddings,
    StackedEmbeddings,
    TransformerWordEmbeddings,
)

from featurestore.encoders.base import Encoder
from featurestore.encoders.flair import Dependence, FlairEncoder, conditioned
from featurestore.encoders.flair.encoder import BATCH_INVARIANCE, TOKEN_BUDGET
from featurestore.encoders.loading import load_encoder
from featurestore.errors import EncoderError, EncoderOutOfMemory, SentenceError
from featurestore.keys import sentence_with
from tests.encoders.flair.differences import SENTENCES, by_flair, relative_l2
from tests.kit.flair_models import MAX_LENGTH, byte_pairs, word_vectors, write_bert


@pytest.fixture(scope="module")
def embeddings(transformer, characters, tmp_path_factory):
    """One of each kind that is no stack, by name."""
    return {
        "words": word_vectors(),
        "words, normalised": word_vectors(stable=True),
        "byte pairs": byte_pairs(tmp_path_factory.mktemp("pieces")),
        "characters forward": characters(),
        "characters backward": characters(forward=False, with_whitespace=False),
        "transformer": transformer(),
        "transformer, all layers": transformer(layers="all", layer_mean=False, subtoken_pooling="first_last"),
        "transformer, mean": transformer(subtoken_pooling="mean", layers="-1,-2"),
        "transformer with context": transformer(use_context=4),
    }


KINDS = [
    "words",
    "words, normalised",
    "byte pairs",
    "characters forward",
    "characters backward",
    "transformer",
    "transformer, all layers",
    "transformer, mean",
    "transformer with context",
]


class TestVectors:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_flairs_own_for_the_sentence_alone(self, embeddings, kind):
        embedding = embeddings[kind]
        encoder = FlairEncoder(embedding)
        for tokens in SENTENCES:
            ours = encoder.encode([tokens])[0]
            assert ours.dtype == np.float32
            assert ours.shape == (len(tokens), encoder.dim) == (len(tokens), embedding.embedding_length)
            np.testing.assert_array_equal(ours, by_flair(embedding, Sentence(list(tokens)))[0])

    @pytest.mark.parametrize("kind", KINDS)
    def test_do_not_depend_on_the_batch(self, embeddings, kind):
        encoder = FlairEncoder(embeddings[kind])
        alone = {tokens: encoder.encode([tokens])[0] for tokens in SENTENCES}
        draw = random.Random(5)
        for size in (2, 6, 30):
            batch = [draw.choice(SENTENCES) for _ in range(size)]
            for tokens, vectors in zip(batch, encoder.encode(batch), strict=True):
                assert relative_l2(vectors, alone[tokens]) < BATCH_INVARIANCE
        assert relative_l2(alone[SENTENCES[0]][:4], alone[SENTENCES[5]]) > 100 * BATCH_INVARIANCE

    def test_of_a_stack_in_flairs_order(self, transformer, characters):
        """By name, so that the eleventh member comes before the third."""
        members = [word_vectors(seed=seed) for seed in range(10)] + [characters(), transformer()]
        stack = StackedEmbeddings(members)
        encoder = FlairEncoder(stack)
        assert encoder.dim == 10 * 8 + 12 + 16
        for tokens in SENTENCES[:2]:
            np.testing.assert_array_equal(
                encoder.encode([tokens])[0], by_flair(stack, Sentence(list(tokens)))[0]
            )
        third = encoder.encode([("the",)])[0][0, 16 : 16 + 12]
        np.testing.assert_array_equal(third, FlairEncoder(characters()).encode([("the",)])[0][0])

    def test_of_a_stack_renamed_since(self):
        stack = StackedEmbeddings([word_vectors(seed=1), word_vectors(seed=2)])
        encoder = FlairEncoder(stack)
        before = encoder.encode(SENTENCES[:1])[0]
        StackedEmbeddings([word_vectors(seed=3), stack.embeddings[0]])
        np.testing.assert_array_equal(encoder.encode(SENTENCES[:1])[0], before)

    def test_unknown_words_and_dropped_tokens_have_zeros(self, transformer):
        words = FlairEncoder(word_vectors()).encode([("the", "xyzzy", "cat")])[0]
        assert [bool(row.any()) for row in words] == [True, False, True]
        tokens = ("the", "\u200d", "cat")
        cut = FlairEncoder(transformer()).encode([tokens])[0]
        assert [bool(row.any()) for row in cut] == [True, False, True]
        np.testing.assert_array_equal(cut, by_flair(transformer(), Sentence(list(tokens)))[0])

    def test_of_a_model_that_computes_gradients(self, characters):
        tuned = FlairEncoder(characters(fine_tune=True), allow_trainable=True)
        wanted = FlairEncoder(characters()).encode(SENTENCES)
        for ours, theirs in zip(tuned.encode(SENTENCES), wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_in_half_precision_come_as_float32(self, transformer):
        embedding = transformer()
        embedding.model.to(torch.bfloat16)
        vectors = FlairEncoder(embedding).encode(SENTENCES[:1])[0]
        assert vectors.dtype == np.float32
        full = FlairEncoder(transformer()).encode(SENTENCES[:1])[0]
        assert 0 < relative_l2(vectors, full) < 0.1


class TestSpacesAndLanguages:
    def test_spaces_matter_to_a_model_of_raw_text(self, characters):
        embedding = characters(tokenized_lm=False)
        encoder = FlairEncoder(embedding)
        assert encoder.dependence == Dependence(whitespace=True)
        raw, apart = Sentence("the dog, barks."), Sentence(["the", "dog", ",", "barks", "."])
        ours = encoder.encode([conditioned(raw, encoder.dependence), conditioned(apart, encoder.dependence)])
        theirs = by_flair(embedding, raw) + by_flair(embedding, apart)
        for vectors, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
        assert relative_l2(ours[0], ours[1]) > 0.01

    def test_the_language_chooses_muse_tables(self):
        """Its published tables cannot be fetched here: two of ours stand where they would lie."""
        pytest.importorskip("gensim", reason="MuseCrosslingualEmbeddings needs gensim")
        embedding = MuseCrosslingualEmbeddings()
        table = {"hand": np.ones(300, np.float32)}
        embedding.language_embeddings = {"en": table, "de": {"hand": -table["hand"]}}
        encoder = FlairEncoder(embedding)
        assert encoder.dependence == Dependence(language=True)
        english, german = (sentence_with(("hand",), b'{"language":"%s"}' % c) for c in (b"en", b"de"))
        first, second = encoder.encode([english, german])
        assert first[0, 0] == 1
        assert second[0, 0] == -1


class TestLeavesEverythingAsItWas:
    def test_modes_gradients_and_flairs_device(self, transformer):
        embedding = StackedEmbeddings([transformer(), word_vectors()])
        encoder = FlairEncoder(embedding)
        embedding.train()
        modes = [module.training for module in embedding.modules()]
        assert True in modes
        wanted = encoder.encode(SENTENCES)
        assert [module.training for module in embedding.modules()] == modes
        assert torch.is_grad_enabled()
        assert flair.device == torch.device("cpu")
        embedding.eval()
        for ours, theirs in zip(encoder.encode(SENTENCES), wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_the_programs_autocast_does_not_reach_it(self, transformer):
        encoder = FlairEncoder(transformer())
        wanted = encoder.encode(SENTENCES[:1])[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(encoder.encode(SENTENCES[:1])[0], wanted)

    def test_modes_also_after_a_failure(self, transformer):
        embedding = transformer(allow_long_sentences=False)
        encoder = FlairEncoder(embedding)
        embedding.train()
        with pytest.raises(EncoderError):
            encoder.encode([("x",) * 500])
        assert embedding.training
        assert torch.is_grad_enabled()


class TestTooLong:
    LIMIT = MAX_LENGTH - 2
    """Tokens of one subword each that fit between [CLS] and [SEP]."""

    @staticmethod
    def tokens(n: int) -> tuple[str, ...]:
        return tuple(("the", "cat", "é")[i % 3] for i in range(n))

    def test_flair_alone_gives_zeros_in_silence(self, transformer):
        cut = by_flair(transformer(allow_long_sentences=False), Sentence(list(self.tokens(100))))[0]
        assert not cut[self.LIMIT :].any()

    @pytest.mark.parametrize("word", ["x", "é"])
    def test_is_refused_to_the_token(self, transformer, word):
        encoder = FlairEncoder(transformer(allow_long_sentences=False))
        whole = encoder.encode([(word,) * self.LIMIT])[0]
        assert whole.any(1).all()
        with pytest.raises(EncoderError, match=r"sentence of 63 tokens.*65 subwords.*over the 64") as refused:
            encoder.encode([("a",), (word,) * (self.LIMIT + 1)])
        assert "allow_long_sentences=True" in str(refused.value)
        assert f"'{' '.join([word] * 8)}'" in str(refused.value)

    def test_subwords_count_not_tokens(self, transformer):
        encoder = FlairEncoder(transformer(allow_long_sentences=False))
        with pytest.raises(EncoderError, match="sentence of 2 tokens"):
            encoder.encode([("abcdefghij" * 7, "cat")])

    def test_tokens_without_subwords_do_not_count(self, transformer):
        encoder = FlairEncoder(transformer(allow_long_sentences=False))
        vectors = encoder.encode([("\u200d",) * 200 + ("cat",)])[0]
        assert vectors[-1].any()
        assert not vectors[:-1].any()

    def test_context_counts_on_the_left_and_is_cut_on_the_right(self, transformer):
        encoder = FlairEncoder(transformer(allow_long_sentences=False, use_context=40))
        own = self.tokens(30)
        right = sentence_with(own, b'{"right":[%s]}' % b",".join([b'"cat"'] * 40))
        assert encoder.encode([right])[0].any(1).all()
        left = sentence_with(own, b'{"left":[%s]}' % b",".join([b'"cat"'] * 40))
        with pytest.raises(EncoderError, match=r"sentence of 30 tokens.*73 subwords with the context"):
            encoder.encode([left])

    def test_is_no_matter_in_pieces(self, transformer):
        embedding = transformer()
        assert embedding.allow_long_sentences
        tokens = self.tokens(300)
        encoder = FlairEncoder(embedding)
        vectors = encoder.encode([tokens])[0]
        assert vectors.any(1).all()
        beside = encoder.encode([SENTENCES[0], tokens, SENTENCES[1]])
        assert relative_l2(beside[1], vectors) < BATCH_INVARIANCE
        assert relative_l2(beside[0], encoder.encode([SENTENCES[0]])[0]) < BATCH_INVARIANCE

    def test_beyond_the_positions_of_a_model_without_a_stated_length(self, tmp_path):
        folder = write_bert(tmp_path / "unbounded")
        settings = folder / "tokenizer_config.json"
        settings.write_text(settings.read_text().replace(f'"model_max_length": {MAX_LENGTH},', ""))
        embedding = TransformerWordEmbeddings(str(folder), fine_tune=False)
        assert not embedding.truncate
        with pytest.raises(EncoderError, match=r"over the 64.*Split the sentence"):
            FlairEncoder(embedding).encode([self.tokens(80)])


class TestLostTokens:
    @pytest.fixture
    def slow(self, transformer):
        """A tokenizer that does not say which subwords are whose, so that Flair guesses."""
        return transformer(allow_long_sentences=False, transformers_tokenizer_kwargs={"use_fast": False})

    def test_are_refused(self, slow):
        assert not by_flair(slow, Sentence(["the", "[SEP]", "cat"]))[0][1].any()
        with pytest.raises(EncoderError, match=r"no vector for the token '\[SEP\]'"):
            FlairEncoder(slow).encode([("a", "."), ("the", "[SEP]", "cat")])

    def test_others_are_as_with_a_fast_tokenizer(self, slow, transformer):
        ours = FlairEncoder(slow).encode([("the", "Unbelievably", "\u200d", "cat")])[0]
        fast = FlairEncoder(transformer()).encode([("the", "Unbelievably", "\u200d", "cat")])[0]
        np.testing.assert_allclose(ours, fast, atol=1e-6)
        assert not ours[2].any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu(bert, forward_model, saved_words):
    spec = f"flair:{bert}?use_context=true+{forward_model}+{saved_words}"
    cpu, before = load_encoder(spec, device="cpu"), flair.device
    gpu = load_encoder(spec, device="cuda")
    assert gpu.recipe == cpu.recipe
    pending = [gpu.submit(SENTENCES[:3]), gpu.submit(SENTENCES[3:])]
    ours = [vectors for part in pending for vectors in part.result()]
    for vectors, theirs in zip(ours, cpu.encode(SENTENCES), strict=True):
        assert relative_l2(vectors, theirs) < 1e-4
    assert flair.device == before


class TestProtocol:
    def test_is_an_encoder(self, transformer):
        encoder = FlairEncoder(transformer())
        assert isinstance(encoder, Encoder)
        assert (encoder.n_layers, encoder.device, encoder.spec) == (1, "cpu", "")
        assert encoder.token_budget > 0
        assert encoder.encode([]) == []

    def test_pending_vectors_are_those_of_their_batch(self):
        encoder = FlairEncoder(word_vectors())
        first, second = encoder.submit(SENTENCES[:1]), encoder.submit(SENTENCES[1:2])
        np.testing.assert_array_equal(second.result()[0], encoder.encode(SENTENCES[1:2])[0])
        np.testing.assert_array_equal(first.result()[0], encoder.encode(SENTENCES[:1])[0])

    @pytest.mark.parametrize("sentence", [(), ("a", ""), "a string", (1,)])
    def test_no_sentences(self, sentence):
        with pytest.raises(SentenceError):
            FlairEncoder(word_vectors()).encode([sentence])

    def test_what_flair_cannot_embed_is_named(self, transformer):
        with pytest.raises(EncoderError, match="TransformerWordEmbeddings failed on a batch of 1 sentences"):
            FlairEncoder(transformer()).encode([("the", "\ud800")])

    def test_what_torch_cannot_compute_is_named(self, transformer):
        embedding = transformer()
        embedding.model.encoder.layer[1].output.dense = torch.nn.Linear(3, 16)
        with pytest.raises(EncoderError, match=r"first of which begins 'a cat': RuntimeError: mat1 and mat2"):
            FlairEncoder(embedding).encode([("a", "cat")])

    def test_out_of_memory_is_ours(self, transformer):
        embedding = transformer()

        def exhausted(*_):
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")

        handle = embedding.model.register_forward_pre_hook(exhausted)
        encoder = FlairEncoder(embedding)
        with pytest.raises(EncoderOutOfMemory, match=r"batch of 2 tokens.*smaller token budget"):
            encoder.encode([("a", "cat")])
        assert encoder.token_budget == TOKEN_BUDGET["cpu"]  # a single sentence says nothing about batches
        handle.remove()
        assert encoder.encode([("a", "cat")])[0].any()
