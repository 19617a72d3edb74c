"""From a corpus to a store with a Flair encoder, through the real command line, and back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from featurestore import Store, extract, load_encoder, open_corpus
from featurestore.cli.main import main
from featurestore.corpora.contract.example import Example
from featurestore.encoders.flair import FlairEncoder
from featurestore.encoders.flair.encoder import BATCH_INVARIANCE
from featurestore.errors import UsageError
from featurestore.keys import ConditionedSentence
from featurestore.store.canaries import SENTENCES, read_canaries
from tests.kit.places import DATA

CORPUS = DATA / "tagging" / "dev.conllu"
N_SENTENCES = 25


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The first sentences of the sample corpus."""
    blocks = CORPUS.read_text(encoding="utf-8").split("\n\n")
    path = tmp_path_factory.mktemp("corpus") / "part.conllu"
    path.write_text("\n\n".join(itertools.islice(blocks, N_SENTENCES)) + "\n\n", encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.parametrize("query", ["", "?use_context=true"])
def test_the_command_fills_a_store_with_the_encoders_vectors(corpus, bert, tmp_path, capsys, query):
    spec = f"flair:{bert}{query}"
    arguments = ["extract", corpus, "--store", tmp_path / "store", "--encoder", spec, "--codec", "float32"]
    assert run(*arguments) == 0
    store, encoder = Store.open(tmp_path / "store"), load_encoder(spec)
    assert store.recipe == encoder.recipe
    sentences = {example.tokens for example in open_corpus(str(corpus))}
    assert len(store) == len(sentences) > 10
    for tokens in sentences:
        ours, stored = encoder.encode([tokens])[0], store.get(tokens)
        assert np.linalg.norm(ours - stored) <= BATCH_INVARIANCE * np.linalg.norm(ours)
    capsys.readouterr()
    assert run("extract", corpus, "--store", tmp_path / "store") == 0
    assert "nothing to encode" in capsys.readouterr().out


@pytest.mark.parametrize("query", ["", "?use_context=true"])
def test_the_store_grows_only_by_an_encoder_that_gives_its_canaries(corpus, bert, tmp_path, capsys, query):
    arguments = ["--store", tmp_path / "store", "--encoder", f"flair:{bert}{query}"]
    assert run("extract", corpus, *arguments) == 0
    kept = read_canaries(Store.open(tmp_path / "store"))
    assert kept.sentences == SENTENCES
    assert "transformers" in kept.made_with
    more = tmp_path / "more.txt"
    more.write_text("one more sentence\n")
    with pytest.MonkeyPatch.context() as patch:
        encode = FlairEncoder.encode
        patch.setattr(FlairEncoder, "encode", lambda self, s: [a * 1.001 for a in encode(self, s)])
        assert run("extract", more, *arguments) == 4
    assert "expected at most 0.0001" in capsys.readouterr().err
    assert run("extract", more, *arguments) == 0
    assert ("one", "more", "sentence") in Store.open(tmp_path / "store")


def test_another_embedding_is_refused_naming_what_differs(corpus, bert, tmp_path, capsys):
    arguments = ["extract", corpus, "--store", tmp_path / "store", "--encoder"]
    assert run(*arguments, f"flair:{bert}") == 0
    capsys.readouterr()
    assert run(*arguments, f"flair:{bert}?layers=0") == 4
    assert "embeddings.0.options.layers: [-1] in" in capsys.readouterr().err


def test_sentences_with_context_are_stored_beside_those_without(transformer, tmp_path):
    encoder = FlairEncoder(transformer(use_context=4))
    tokens = ("the", "cat", "sat")
    within = ConditionedSentence(tokens, b'{"left":["a","dog","."]}')
    extract([Example(tokens), Example(within)], encoder, tmp_path / "store", codec="float32", progress=False)
    store = Store.open(tmp_path / "store")
    assert len(store) == 2
    for sentence in (tokens, within):
        np.testing.assert_allclose(store.get(sentence), encoder.encode([sentence])[0], atol=1e-5)
    assert np.abs(store.get(tokens) - store.get(within)).max() > 0.01


def test_a_store_of_an_object_says_that_it_cannot_be_loaded_again(corpus, transformer, tmp_path):
    extract([str(corpus)], FlairEncoder(transformer()), tmp_path / "store", progress=False)
    assert Store.open(tmp_path / "store").encoder == ""
    with pytest.raises(UsageError, match="does not name its encoder"):
        extract([str(corpus)], None, tmp_path / "store", progress=False)


def test_a_file_without_the_surroundings_that_matter_is_said(corpus, bert, tmp_path, capsys):
    arguments = ["extract", corpus, "--store", tmp_path / "store", "--encoder"]
    assert run(*arguments, f"flair:{bert}?use_context=true") == 0
    assert "note: the vectors depend on more than the tokens (context" in capsys.readouterr().out
    arguments[3] = tmp_path / "json"
    assert run(*arguments, f"flair:{bert}?use_context=true", "--json") == 0
    assert json.loads(capsys.readouterr().out)["report"]["missing_surroundings"][0] == "context"
    arguments[3] = tmp_path / "plain"
    assert run(*arguments, f"flair:{bert}") == 0
    assert "note:" not in capsys.readouterr().out


def test_a_bare_embedding_is_told_how_it_becomes_an_encoder(corpus, transformer, tmp_path):
    with pytest.raises(UsageError, match=r"TransformerWordEmbeddings is no encoder.*FlairEncoder\(embedding"):
        extract([str(corpus)], transformer(), tmp_path / "store", progress=False)
