"""``flair:...`` specifications by the public doors: what they load, what they refuse, what is kept."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

import torch
from flair.embeddings import StackedEmbeddings

from featurestore.encoders.flair import FlairEncoder, fix_separator
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder, warm_up_encoder
from featurestore.errors import (
    DownloadError,
    EncoderError,
    UnknownEncoderError,
    UsageError,
    WeightsError,
)
from tests.kit.flair_models import byte_pairs, word_vectors, write_bert, write_character_model
from tests.kit.places import DATA

SENTENCES = [("the", "cat", "sat", "."), ("a", "Dog")]


def same_vectors(encoder, embedding) -> bool:
    wanted = FlairEncoder(embedding)
    assert encoder.recipe == wanted.recipe
    both = zip(encoder.encode(SENTENCES), wanted.encode(SENTENCES), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in both)


class TestPaths:
    def test_the_files_say_what_they_are(self, bert, forward_model, saved_words, transformer, characters):
        assert same_vectors(load_encoder(f"flair:{bert}"), transformer())
        assert same_vectors(load_encoder(f"flair:{forward_model}"), characters())
        assert same_vectors(load_encoder(f"flair:{saved_words}"), word_vectors())

    def test_an_embedding_pickled_as_a_whole(self, tmp_path, characters):
        torch.save(characters(), tmp_path / "whole.pt")
        assert same_vectors(load_encoder(f"flair:{tmp_path / 'whole.pt'}"), characters())

    def test_vectors_in_gensims_format_and_word2vecs(self, tmp_path):
        models = pytest.importorskip("gensim.models", reason="word vectors in files need gensim")
        words = ["the", "cat", "a"]
        model = models.KeyedVectors(4)
        model.add_vectors(words, np.arange(12, dtype=np.float32).reshape(3, 4))
        model.save(str(tmp_path / "words.gensim"))
        model.save_word2vec_format(str(tmp_path / "words.txt"))
        for name in ("words.gensim", "words.txt"):
            vectors = load_encoder(f"flair:{tmp_path / name}").encode([("cat", "dog", "A")])[0]
            np.testing.assert_array_equal(vectors, [[4, 5, 6, 7], [0, 0, 0, 0], [8, 9, 10, 11]])

    def test_files_named_by_options(self, tmp_path, monkeypatch):
        models = pytest.importorskip("gensim.models", reason="byte pair vectors in files need gensim")
        pytest.importorskip("bpemb", reason="byte pair vectors in files need bpemb")
        embedding = byte_pairs(tmp_path)
        pieces = [embedding.spm.id_to_piece(number) for number in range(embedding.spm.vocab_size())]
        vectors = models.KeyedVectors(4)
        vectors.add_vectors(pieces, embedding.embedding.weight[:-1].numpy())
        vectors.save_word2vec_format(str(tmp_path / "vectors.bin"), binary=True)
        monkeypatch.chdir(tmp_path)
        spec = "flair:BytePairEmbeddings?model_file_path=pieces.model&embedding_file_path=vectors.bin&dim=4"
        encoder = load_encoder(spec)
        assert same_vectors(encoder, embedding)
        monkeypatch.chdir("/")
        assert load_encoder(encoder.spec) is encoder

    def test_the_spec_loads_it_again_from_anywhere(self, bert, forward_model, tmp_path, monkeypatch):
        monkeypatch.chdir(bert.parent)
        encoder = load_encoder(f"flair:./bert?layers=-1,-2&subtoken_pooling=mean+{forward_model}")
        monkeypatch.chdir(tmp_path)
        again = load_encoder(encoder.spec)
        assert again.recipe == encoder.recipe
        assert again.spec == encoder.spec
        assert "flair:TransformerWordEmbeddings=/" in encoder.spec

    def test_any_path_can_be_written(self, tmp_path):
        path = write_character_model(tmp_path / "a+b = 100%? ü.pt", forward=True)
        text = str(path).replace("%", "%25").replace("+", "%2B").replace("?", "%3F")
        encoder = load_encoder(f"flair:{text}")
        assert load_encoder(encoder.spec) is encoder

    @pytest.mark.parametrize("name", ["./nowhere", "/no/where", "nowhere.pt", "FlairEmbeddings=./no.pt"])
    def test_nothing_there(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(EncoderError, match="is not here"):
            load_encoder(f"flair:{name}")

    def test_files_of_other_kinds(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "text.vec").write_text("the 1 2 3")
        torch.save({"epoch": 3}, tmp_path / "checkpoint.pt")
        (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 and no more")
        for name, message in {
            "folder": "no config.json",
            "text.vec": "nothing that Flair reads",
            "checkpoint.pt": "neither a LanguageModel of Flair nor a saved embedding",
            "half.pt": "cannot read",
        }.items():
            with pytest.raises(EncoderError, match=message):
                load_encoder(f"flair:{tmp_path / name}")

    def test_inspecting_a_file_runs_no_code(self, tmp_path):
        """What decides the kind only reads; a foreign pickle gets no further."""

        class Hostile:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "it ran"),)

        torch.save({"state": Hostile()}, tmp_path / "hostile.pt")
        (tmp_path / "hostile.pkl.pt").write_bytes(b"PK" + pickle.dumps(Hostile()))
        for name in ("hostile.pt", "hostile.pkl.pt"):
            with pytest.raises(EncoderError):
                load_encoder(f"flair:{tmp_path / name}")
        assert not (tmp_path / "it ran").exists()

    def test_damaged_models(self, tmp_path, forward_model, bert):
        folder = write_bert(tmp_path / "bert")
        (folder / "config.json").write_text("{")
        with pytest.raises(WeightsError, match=r"Flair cannot make .*complete and of this kind"):
            load_encoder(f"flair:{folder}")
        with pytest.raises(WeightsError, match="cannot make FlairEmbeddings"):
            load_encoder(f"flair:FlairEmbeddings={bert / 'config.json'}")
        other = tmp_path / "stacked.pt"
        torch.save({"__cls__": "Nothing"}, other)
        with pytest.raises(WeightsError, match=r"stacked\.pt"):
            load_encoder(f"flair:{other}")

    def test_a_flipped_byte_of_the_weights(self, tmp_path, forward_model):
        """torch reads it without a word; the vectors would be those of no model that ever was."""
        content = bytearray(forward_model.read_bytes())
        content[len(content) // 2] ^= 1
        damaged = tmp_path / "damaged.pt"
        damaged.write_bytes(content)
        states = [torch.load(path, weights_only=False)["state_dict"] for path in (forward_model, damaged)]
        assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        for spec in (f"flair:{damaged}", f"flair:FlairEmbeddings={damaged}"):
            with pytest.raises(WeightsError, match=r"damaged\.pt is damaged \(.*data/\d+\): get it again"):
                load_encoder(spec)

    def test_a_file_that_was_cut_off(self, tmp_path, forward_model):
        half = tmp_path / "half.pt"
        half.write_bytes(forward_model.read_bytes()[:-1000])
        with pytest.raises(EncoderError, match=r"half\.pt .*is it damaged, or cut off"):
            load_encoder(f"flair:{half}")
        with pytest.raises(WeightsError, match=r"half\.pt is damaged \(.*\): get it again"):
            load_encoder(f"flair:FlairEmbeddings={half}")


class TestNames:
    def test_unknown_ones_say_what_could_be_meant(self):
        with pytest.raises(UnknownEncoderError, match="flair:TransformerWordEmbeddings=bert-base") as refused:
            load_encoder("flair:bert-base")
        assert "glove" in str(refused.value)
        assert refused.value.exit_code == 2

    def test_unknown_classes_say_what_there_is(self):
        with pytest.raises(UnknownEncoderError, match=r"no embedding 'Word': .*WordEmbeddings"):
            load_encoder("flair:Word=glove")

    def test_what_the_network_would_have_to_give(self, monkeypatch, tmp_path):
        """Nothing is fetched: the names are Flair's, and its cache is empty."""
        monkeypatch.setenv("FEATURESTORE_OFFLINE", "1")
        for name in ("glove", "news-forward", "WordEmbeddings=crawl", "BytePairEmbeddings=en"):
            with pytest.raises(DownloadError, match="FEATURESTORE_OFFLINE forbids"):
                load_encoder(f"flair:{name}")
        with pytest.raises(DownloadError, match="Flair cannot find or fetch 'no-such/model'"):
            load_encoder("flair:TransformerWordEmbeddings=no-such/model")

    @pytest.mark.parametrize(
        ("spec", "reason"),
        [
            ("PooledFlairEmbeddings=news-forward", "depends on the order of the corpus"),
            ("DocumentPoolEmbeddings", "not a token embedding"),
            ("TransformerDocumentEmbeddings=bert", "not a token embedding"),
            ("ELMoEmbeddings=original", "use the encoder elmo:original"),
            ("HashEmbeddings", "trained along with a model"),
        ],
    )
    def test_what_cannot_be_cached_is_refused_before_anything_is_fetched(self, spec, reason):
        with pytest.raises(UsageError, match=reason):
            load_encoder(f"flair:{spec}")

    def test_unless_told(self):
        spec = "flair:HashEmbeddings?allow_trainable=true&num_embeddings=10&embedding_length=4"
        with pytest.raises(UsageError, match="no option 'embedding_length'"):
            load_encoder(spec)
        spec = "flair:HashEmbeddings?allow_trainable=true&num_embeddings=10"
        first = load_encoder(spec)
        load_encoder("flair:HashEmbeddings?allow_trainable=true&num_embeddings=11")
        again = load_encoder(spec)
        assert again is not first
        assert again.recipe == first.recipe


class TestOptions:
    def test_reach_the_constructor(self, bert, forward_model, transformer, characters):
        spec = f"flair:{bert}?layers=-1,-2&layer_mean=false&subtoken_pooling=mean&use_context=7"
        embedding = transformer(layers="-1,-2", layer_mean=False, subtoken_pooling="mean", use_context=7)
        encoder = load_encoder(spec)
        assert encoder.dependence == FlairEncoder(embedding).dependence
        ours, theirs = (e.recipe["embeddings"]["0"] for e in (encoder, FlairEncoder(embedding)))
        assert ours["options"] == theirs["options"]
        spec = f"flair:FlairEmbeddings={forward_model}?with_whitespace=false"
        assert same_vectors(load_encoder(spec), characters(with_whitespace=False))

    def test_stacks(self, bert, forward_model, transformer, characters):
        encoder = load_encoder(f"flair:{forward_model}+{bert}?layers=0")
        assert same_vectors(encoder, StackedEmbeddings([characters(), transformer(layers="0")]))

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("layer=0", r"no option 'layer': expected .*layer_mean, layers"),
            ("name=x", "no option 'name'"),
            ("saved_config=x", "no option 'saved_config'"),
            ("subtoken_pooling=middle", "subtoken_pooling=middle: expected first, last, first_last, mean"),
            ("layer_mean=yes", "layer_mean=yes: expected true or false"),
            ("use_context=long", "use_context=long: expected true or false, a whole number"),
            ("use_context=-3", "a context of -3 tokens"),
            ("layers", "expected option=value"),
            ("layers=0&layers=1", "expected option=value.*each once"),
            ("allow_trainable=perhaps", "allow_trainable=perhaps: expected true or false"),
        ],
    )
    def test_nonsense_says_what_is_valid(self, bert, query, message):
        with pytest.raises(UsageError, match=message):
            load_encoder(f"flair:{bert}?{query}")

    @pytest.mark.parametrize("rest", ["+", "glove+", "FlairEmbeddings=", "FlairEmbeddings"])
    def test_missing_parts(self, rest):
        with pytest.raises(UsageError, match="expected a name or path"):
            load_encoder(f"flair:{rest}")

    def test_frozen_by_default_whatever_flairs_default_is(self, bert):
        load_encoder(f"flair:{bert}")
        with pytest.raises(UsageError, match="trained along with a model"):
            load_encoder(f"flair:{bert}?fine_tune=true")
        tuned = load_encoder(f"flair:{bert}?fine_tune=true&allow_trainable=true")
        assert tuned.recipe == load_encoder(f"flair:{bert}").recipe

    def test_a_saved_embedding_has_its_own(self, saved_words):
        with pytest.raises(UsageError, match="has its own options"):
            load_encoder(f"flair:{saved_words}?stable=true")

    def test_a_separator_is_the_same_every_time(self, bert, transformer):
        first = load_encoder(f"flair:{bert}?use_context=true")
        load_encoder(f"flair:{bert}")
        again = load_encoder(f"flair:{bert}?use_context=true")
        assert again is not first
        assert again.recipe == first.recipe
        drawn = transformer(use_context=True)
        assert FlairEncoder(drawn).recipe != first.recipe
        before = drawn.model.get_input_embeddings().weight.clone()
        fix_separator(drawn)
        assert same_vectors(first, drawn)
        moved = (drawn.model.get_input_embeddings().weight - before).abs().max(1).values
        assert 0 < moved[-1] < 0.01  # nearly what Flair draws
        assert not moved[:-1].any()
        state = torch.random.get_rng_state()
        load_encoder(f"flair:{bert}")
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_what_has_no_separator(self):
        with pytest.raises(UsageError, match=r"a StackedEmbeddings has no separator.*fix its members"):
            fix_separator(StackedEmbeddings([word_vectors()]))

    def test_but_one_that_was_trained_stays(self, tmp_path, transformer):
        embedding = transformer(use_context=True)
        with torch.no_grad():
            embedding.model.get_input_embeddings().weight[-1] = 0.25
        embedding.model.save_pretrained(tmp_path / "trained")
        embedding.tokenizer.save_pretrained(tmp_path / "trained")
        encoder = load_encoder(f"flair:{tmp_path / 'trained'}?use_context=true")
        assert encoder.recipe == FlairEncoder(embedding).recipe


class TestDoors:
    def test_outline_and_recipe_are_the_encoders(self, bert):
        encoder = load_encoder(f"flair:{bert}")
        assert (outline_encoder(f"flair:{bert}").dim, encoder.dim) == (16, 16)
        assert encoder_recipe(f"flair:{bert}", precision="auto") == encoder.recipe
        assert load_encoder(f"flair:{bert}", device="cpu") is encoder

    def test_another_file_is_another_encoder(self, tmp_path):
        path = write_character_model(tmp_path / "lm.pt", forward=True)
        first = load_encoder(f"flair:{path}")
        write_character_model(path, forward=True, seed=99)
        os.utime(path, ns=(1, 1))
        assert load_encoder(f"flair:{path}").recipe != first.recipe

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"layers": "top"}, "option of its own"),
            ({"precision": "float16"}, "computed in float32"),
            ({"initial_state": "warm"}, "only ELMo has one"),
            ({"device": "abacus"}, "unknown device"),
        ],
    )
    def test_what_only_elmo_has(self, bert, keywords, message):
        with pytest.raises(UsageError, match=message):
            load_encoder(f"flair:{bert}", **keywords)

    def test_no_warming_up(self):
        with pytest.raises(UsageError, match="only an ELMo has one"):
            warm_up_encoder("flair:glove", [])

    def test_an_unknown_family_names_flair_too(self):
        with pytest.raises(UnknownEncoderError, match="flair:PATH"):
            load_encoder("flare:glove")

    def test_without_flair_it_says_how_to_get_it(self):
        program = (
            "import sys\n"
            "sys.modules['flair'] = None\n"
            "from featurestore.cli.main import main\n"
            "main(['plan', sys.argv[1], '--store', 'none', '--encoder', 'flair:glove'])\n"
        )
        corpus = DATA / "tagging" / "dev.conllu"
        done = subprocess.run(
            [sys.executable, "-c", program, str(corpus)], capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 1
        assert "pip install 'featurestore[flair]'" in done.stderr
        assert "Traceback" not in done.stderr
