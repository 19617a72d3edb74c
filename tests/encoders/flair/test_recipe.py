"""Recipes of Flair embeddings: equal for equal vectors, in every process; different where it matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import torch
from flair.data import Dictionary
from flair.embeddings import FastTextEmbeddings, FlairEmbeddings, StackedEmbeddings, TransformerWordEmbeddings
from flair.models import LanguageModel
from transformers import BertTokenizer

from featurestore.encoders.flair import Dependence, FlairEncoder
from featurestore.encoders.loading import encoder_recipe
from tests.kit.flair_models import WORDS, byte_pairs, word_vectors, write_bert, write_character_model


def recipe(embedding):
    return FlairEncoder(embedding).recipe


def differing(first, second) -> set[str]:
    """The last part of the name of every field in which two recipes differ."""
    return {difference.field.split(".", 2)[-1] for difference in first.diff(second)}


class TestFields:
    def test_of_word_vectors(self):
        made = recipe(word_vectors()).to_dict()
        identity = made["embeddings"]["0"]
        assert made == {"kind": "flair", "version": 1, "flair": "0.15", "embeddings": {"0": identity}}
        assert set(identity) == {"class", "options", "vocabulary_sha256", "weights_sha256"}

    def test_what_vectors_depend_on(self, transformer):
        made = recipe(transformer(use_context=True))
        assert made["depends_on"] == {"context": 64, "document_boundaries": True}
        assert Dependence.of(made) == Dependence(context=64, document_boundaries=True)
        assert "depends_on" not in recipe(transformer())

    def test_no_name_and_no_path(self, transformer, characters, bert, tmp_path):
        stack = StackedEmbeddings([transformer(), characters(), word_vectors()])
        text = recipe(stack).canonical.decode()
        for word in (str(bert), "words", "forward.pt", "transformer-", str(tmp_path.parent)):
            assert word not in text
        assert recipe(transformer(name="another")) == recipe(transformer())


class TestEqual:
    def test_for_a_model_loaded_again(self, transformer, characters):
        assert recipe(transformer()) == recipe(transformer())
        assert recipe(characters()) == recipe(characters())
        assert recipe(word_vectors()) == recipe(word_vectors())

    def test_elsewhere(self, tmp_path, bert):
        moved = write_bert(tmp_path / "moved")
        other = TransformerWordEmbeddings(str(moved), fine_tune=False)
        assert recipe(other) == recipe(TransformerWordEmbeddings(str(bert), fine_tune=False))

    def test_whatever_was_embedded_before(self, transformer):
        """A tokenizer remembers how it last padded and cut; Flair's own files of it differ by that."""
        embedding = transformer()
        before = recipe(embedding)
        FlairEncoder(embedding).encode([("the", "cat")] * 3)
        embedding.tokenizer("the cat", truncation=True, max_length=7, padding="max_length")
        assert recipe(embedding) == before

    def test_for_weights_that_are_never_read(self, transformer, characters):
        first, second = transformer(), transformer()
        table = second.model.get_input_embeddings().weight
        with torch.no_grad():
            table[-1] += 1  # the separator, which only a context needs
            second.model.pooler.dense.weight.add_(1)
        assert recipe(first) == recipe(second)
        assert recipe(transformer(use_context_separator=False)) == recipe(first)
        assert recipe(characters(has_decoder=True)) == recipe(characters())

    def test_for_options_of_training_and_memory(self, transformer, characters):
        assert recipe(transformer(context_dropout=0.1)) == recipe(transformer())
        assert recipe(characters(chars_per_chunk=64)) == recipe(characters())
        assert recipe(word_vectors(force_cpu=False)) == recipe(word_vectors())

    def test_for_a_stack_within_a_stack(self, characters):
        flat = StackedEmbeddings([word_vectors(), characters()])
        nested = StackedEmbeddings([StackedEmbeddings([word_vectors(), characters()])])
        assert recipe(flat) == recipe(nested)
        assert recipe(StackedEmbeddings([word_vectors()])) == recipe(word_vectors())

    def test_in_other_processes(self, bert, forward_model, saved_words, tmp_path):
        specs = [
            f"flair:{bert}",
            f"flair:{bert}?use_context=true",
            f"flair:{forward_model}",
            f"flair:{saved_words}+{forward_model}",
        ]
        program = (
            "import json, sys\n"
            "from featurestore.encoders.loading import encoder_recipe\n"
            "print(json.dumps([encoder_recipe(spec).fingerprint for spec in sys.argv[1:]]))\n"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "17"}
        done = subprocess.run(
            [sys.executable, "-c", program, *specs],
            check=True, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280,
        )  # fmt: skip
        there = json.loads(done.stdout.splitlines()[-1])
        assert there == [encoder_recipe(spec).fingerprint for spec in specs]
        assert len(set(there)) == len(specs)


class TestDifferent:
    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"layers": "0"}, "options.layers"),
            ({"layers": "-1,-2"}, "options.layers"),
            ({"layer_mean": False}, "options.layer_mean"),
            ({"subtoken_pooling": "mean"}, "options.subtoken_pooling"),
            ({"use_context": True}, "options.context_length"),
            ({"allow_long_sentences": False}, "options.allow_long_sentences"),
            ({"force_max_length": True}, "options.force_max_length"),
        ],
    )
    def test_for_options_of_a_transformer(self, transformer, options, field):
        assert field in differing(recipe(transformer()), recipe(transformer(**options)))

    def test_for_options_of_context(self, transformer):
        base = transformer(use_context=4)
        fields = differing(recipe(base), recipe(transformer(use_context=4, use_context_separator=False)))
        assert "options.use_context_separator" in fields
        boundaries = transformer(use_context=4, respect_document_boundaries=False)
        assert "document_boundaries" in {
            d.field.split(".")[-1] for d in recipe(base).diff(recipe(boundaries))
        }

    def test_for_a_separator_that_was_drawn_again(self, transformer):
        base, other = transformer(use_context=4), transformer(use_context=4)
        with torch.no_grad():
            other.model.get_input_embeddings().weight[-1] += 1
        assert "separator_sha256" in differing(recipe(base), recipe(other))

    @pytest.mark.parametrize(
        "options", [{"with_whitespace": False}, {"tokenized_lm": False}, {"is_lower": True}]
    )
    def test_for_options_of_a_character_model(self, characters, options):
        (name,) = options
        assert f"options.{name}" in differing(recipe(characters()), recipe(characters(**options)))

    def test_for_the_direction_and_the_letters_of_a_character_model(self, characters):
        assert "options.is_forward_lm" in differing(recipe(characters()), recipe(characters(forward=False)))
        embedding = characters()
        embedding.lm.dictionary.add_item("\u00e9")
        assert differing(recipe(characters()), recipe(embedding)) == {"vocabulary_sha256"}

    def test_for_one_number_among_the_weights(self, transformer, characters):
        for make, parameter in (
            (transformer, lambda embedding: embedding.model.encoder.layer[1].output.dense.bias),
            (transformer, lambda embedding: embedding.model.get_input_embeddings().weight[7]),
            (characters, lambda embedding: embedding.lm.rnn.weight_hh_l0[3]),
            (word_vectors, lambda embedding: embedding.embedding.weight[2]),
        ):
            changed = make()
            with torch.no_grad():
                parameter(changed)[0] += 1e-3
            assert differing(recipe(make()), recipe(changed)) == {"weights_sha256"}

    def test_for_weights_of_less_precision(self, transformer):
        rounded = transformer()
        rounded.model.to(torch.bfloat16)
        assert differing(recipe(transformer()), recipe(rounded)) == {"weights_sha256"}

    def test_for_the_configuration_that_reads_the_same_weights(self, transformer, tmp_path, bert):
        folder = write_bert(tmp_path / "bert")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
        other = TransformerWordEmbeddings(str(folder), fine_tune=False)
        assert differing(recipe(transformer()), recipe(other)) == {"config.num_attention_heads"}

    def test_for_the_tokenizer(self, transformer, tmp_path):
        folder = write_bert(tmp_path / "bert")
        text = (folder / "tokenizer.json").read_text()
        (folder / "tokenizer.json").write_text(text.replace('"##q"', '"##qu"'))
        other = TransformerWordEmbeddings(str(folder), fine_tune=False)
        assert differing(recipe(transformer()), recipe(other)) == {"tokenizer_sha256"}

    def test_for_a_slow_tokenizer_as_well(self, bert, tmp_path):
        def slow(folder):
            return TransformerWordEmbeddings(
                str(folder),
                fine_tune=False,
                allow_long_sentences=False,
                transformers_tokenizer_kwargs={"use_fast": False},
            )

        first = slow(bert)
        assert isinstance(first.tokenizer, BertTokenizer)
        assert recipe(first) == recipe(slow(write_bert(tmp_path / "same")))
        folder = write_bert(tmp_path / "other")
        text = (folder / "vocab.txt").read_text()
        (folder / "vocab.txt").write_text(text.replace("##q\n", "##qu\n"))
        assert differing(recipe(first), recipe(slow(folder))) == {"tokenizer_sha256"}

    def test_for_words_and_how_they_are_normalised(self):
        renamed = word_vectors([*WORDS[:-1], "?"])
        assert differing(recipe(word_vectors()), recipe(renamed)) == {"vocabulary_sha256"}
        assert "options.stable" in differing(recipe(word_vectors()), recipe(word_vectors(stable=True)))

    def test_for_byte_pairs(self, tmp_path):
        base = byte_pairs(tmp_path)
        other = byte_pairs(tmp_path, preprocess=False)
        assert recipe(base) == recipe(byte_pairs(tmp_path))
        assert differing(recipe(base), recipe(other)) == {"options.preprocess"}
        fewer = byte_pairs(tmp_path, WORDS[:5])
        assert differing(recipe(base), recipe(fewer)) == {"tokenizer_sha256", "weights_sha256"}

    @pytest.mark.filterwarnings("ignore:Call to deprecated class FastTextEmbeddings")
    def test_for_fasttext(self, tmp_path):
        models = pytest.importorskip("gensim.models", reason="FastTextEmbeddings needs gensim")
        texts = [WORDS] * 5
        found = []
        for name, settings in {"a": {}, "b": {}, "c": {"seed": 9}, "d": {"max_n": 4}}.items():
            settings = {"seed": 1, "max_n": 3, **settings}
            model = models.FastText(
                texts, vector_size=4, min_count=1, min_n=2, bucket=50, workers=1, **settings
            )
            model.wv.save(str(tmp_path / name))
            embedding = FastTextEmbeddings(str(tmp_path / name))
            found.append(recipe(embedding))
            vectors = FlairEncoder(embedding).encode([("cat", "catsat")])[0]
            np.testing.assert_array_equal(vectors, [model.wv["cat"], model.wv["catsat"]])
        assert found[0] == found[1]
        assert differing(found[0], found[2]) == {"weights_sha256"}
        assert "options.max_n" in differing(found[0], found[3])

    def test_for_the_members_of_a_stack_and_their_order(self, characters):
        words = StackedEmbeddings([word_vectors(), characters()])
        swapped = StackedEmbeddings([characters(), word_vectors()])
        other = StackedEmbeddings([word_vectors(), characters(forward=False)])
        assert len({recipe(stack) for stack in (words, swapped, other)}) == 3

    def test_for_where_a_text_begins(self, tmp_path):
        path = write_character_model(tmp_path / "lm.pt", forward=True)
        embedding = FlairEmbeddings(LanguageModel.load_language_model(path))
        before = recipe(embedding)
        embedding.lm.document_delimiter = "\t"
        assert differing(before, recipe(embedding)) == {"options.document_delimiter"}


def test_of_embeddings_that_are_trained_along():
    from flair.embeddings import CharacterEmbeddings, HashEmbeddings

    def trained(embedding):
        return FlairEncoder(embedding, allow_trainable=True).recipe

    torch.manual_seed(0)
    first = HashEmbeddings(num_embeddings=10, embedding_length=4)
    other = HashEmbeddings(num_embeddings=10, embedding_length=4, hash_method="sha1")
    other.load_state_dict(first.state_dict())
    assert differing(trained(first), trained(other)) == {"options.hash_method"}
    letters, more = Dictionary(), Dictionary()
    for letter in "abc":
        letters.add_item(letter)
        more.add_item(letter.upper())
    spelled, shouted = CharacterEmbeddings(letters), CharacterEmbeddings(more)
    shouted.load_state_dict(spelled.state_dict())
    assert differing(trained(spelled), trained(shouted)) == {"vocabulary_sha256"}
