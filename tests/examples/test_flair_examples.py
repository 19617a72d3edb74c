"""The Flair examples: cached and live are the same training, the model comes back, errors are messages."""

from __future__ import annotations

import logging
import sys

import pytest

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Sentence  # noqa: E402
from flair.models import SequenceTagger  # noqa: E402

from featurestore import Store, open_corpus  # noqa: E402
from featurestore.integrations.flair import load, to_live  # noqa: E402

LABELS = {"sentiment": "sentiment", "entities": "ner"}
BOTH = pytest.mark.parametrize("name", LABELS)


@pytest.fixture
def folder(name, sentiment_folder, tagging_folder):
    return {"sentiment": sentiment_folder, "entities": tagging_folder}[name]


def run_training(run_example, name, folder, out, *arguments, epochs=3):
    """Run an example; return its scores, one per epoch and the last."""
    result = run_example(name, folder, "--out", out, "--epochs", epochs, *arguments)
    assert result.exit_code == 0, result.output
    lines = [
        line.split(", ")[0]
        for line in result.stdout.splitlines()
        if " on dev " in line or " on test " in line
    ]
    assert len(lines) == epochs + 1, result.output
    return lines


def sentences_of(folder):
    (path,) = folder.glob("dev.*")
    return [Sentence(list(example.tokens)) for example in open_corpus(path)]


def predictions(model, folder):
    """What a model says of the development sentences, and how sure it is of every label there is."""
    sentences = sentences_of(folder)
    model.predict(sentences, label_name="found", mini_batch_size=4, return_probabilities_for_all_classes=True)
    if isinstance(model, SequenceTagger):
        sure = [tag.score for s in sentences for token in s for tag in token.get_tags_proba_dist("found")]
        found = [
            (s.text, label.data_point.text, label.value) for s in sentences for label in s.get_labels("found")
        ]
    else:
        sure = [label.score for s in sentences for label in s.get_labels("found")]
        found = [s.get_label("found").value for s in sentences]
    assert len(sure) > len(sentences)
    return found, sure


@BOTH
class TestTraining:
    def test_cached_and_live_are_the_same(
        self, name, folder, run_example, exact_store, tiny_elmo_spec, tmp_path
    ):
        encoder = ("--encoder", tiny_elmo_spec)
        cached = run_training(
            run_example, name, folder, tmp_path / "a", "--cached", *encoder, "--store", exact_store
        )
        live = run_training(run_example, name, folder, tmp_path / "b", "--live", *encoder)
        assert cached == live
        answers, sure = predictions(load(tmp_path / "a" / "model.pt", trusted=True), folder)
        live_answers, live_sure = predictions(load(tmp_path / "b" / "model.pt", trusted=True), folder)
        assert answers == live_answers
        assert sure == pytest.approx(live_sure, abs=1e-3)

    def test_the_store_is_filled_once(self, name, folder, run_example, tiny_elmo_spec, tmp_path):
        arguments = (folder, "--encoder", tiny_elmo_spec, "--store", tmp_path / "store", "--epochs", 1)
        first = run_example(name, *arguments, "--out", tmp_path / "out")
        second = run_example(name, *arguments, "--out", tmp_path / "out")
        n_sentences = len(Store.open(tmp_path / "store"))
        assert f"{n_sentences} sentences encoded" in first.stdout
        assert f" 0 sentences encoded into {tmp_path / 'store'}, {n_sentences} were" in f" {second.stdout}"

    def test_the_model_is_scored_on_the_test_set_and_runs_live(
        self, name, folder, run_example, with_test, exact_store, tiny_elmo_spec, tmp_path
    ):
        store = ("--encoder", tiny_elmo_spec, "--store", exact_store)
        *epochs, last = run_training(run_example, name, with_test(folder), tmp_path / "out", *store)
        # The test file is a copy of dev: the best epoch's score.
        assert " on test " in last
        assert last.split()[-1] == max(line.split()[-1] for line in epochs)
        model = load(tmp_path / "out" / "model.pt", trusted=True)
        expected = predictions(model, folder)
        answers, sure = predictions(to_live(model), folder)
        assert answers == expected[0]
        assert sure == pytest.approx(expected[1], abs=1e-3)
        new = Sentence(["Never", "seen", "before", "."])
        model.predict(new, label_name="found")

    def test_flairs_own_report_is_in_the_log(
        self, name, folder, run_example, exact_store, tiny_elmo_spec, tmp_path
    ):
        # Other tests of this process may have silenced it.
        logging.getLogger("flair").setLevel(logging.INFO)
        store = ("--encoder", tiny_elmo_spec, "--store", exact_store)
        result = run_example(name, folder, *store, "--epochs", 1, "--out", tmp_path / "out")
        assert "EPOCH 1 done" in (tmp_path / "out" / "training.log").read_text()
        assert "EPOCH" not in result.stdout
        assert [path.name for path in (tmp_path / "out").glob("*.pt")] == ["model.pt"]


class TestWordVectors:
    @pytest.fixture
    def vectors(self, tmp_path):
        gensim = pytest.importorskip("gensim.models", reason="needs gensim: pip install gensim")
        words = gensim.KeyedVectors(7)
        words.add_vectors(["the", "in", "Lisbon"], [[float(i)] * 7 for i in range(3)])
        words.save(str(tmp_path / "words.gensim"))
        return tmp_path / "words.gensim"

    def test_are_stacked_saved_and_found_again(
        self, run_example, tagging_folder, vectors, exact_store, tiny_elmo_spec, tmp_path
    ):
        arguments = ("--encoder", tiny_elmo_spec, "--store", exact_store, "--word-vectors", vectors)
        run_training(run_example, "entities", tagging_folder, tmp_path / "out", *arguments)
        vectors.unlink()
        tagger = load(tmp_path / "out" / "model.pt", trusted=True)
        assert tagger.embeddings.embedding_length == 7 + Store.open(exact_store).dim
        assert not any(str(tmp_path) in embedding.name for embedding in tagger.embeddings.embeddings)
        assert len(predictions(tagger, tagging_folder)[1]) > 0

    def test_that_are_none(self, run_example, tagging_folder, vectors, exact_store, tiny_elmo_spec, tmp_path):
        (tmp_path / "none.gensim").write_text("no vectors")
        arguments = ("--encoder", tiny_elmo_spec, "--store", exact_store, "--out", tmp_path / "out")
        result = run_example(
            "entities", tagging_folder, *arguments, "--word-vectors", tmp_path / "none.gensim"
        )
        assert result.exit_code == 2
        assert "none.gensim cannot be read as word vectors" in result.stderr

    def test_without_gensim(
        self, run_example, tagging_folder, exact_store, tiny_elmo_spec, tmp_path, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "gensim.models", None)
        (tmp_path / "words.gensim").touch()
        arguments = ("--encoder", tiny_elmo_spec, "--store", exact_store, "--out", tmp_path / "out")
        result = run_example(
            "entities", tagging_folder, *arguments, "--word-vectors", tmp_path / "words.gensim"
        )
        assert result.exit_code == 2
        assert "error: word vectors are read by gensim: pip install gensim" in result.stderr


class TestWrongLabels:
    def test_no_spans(self, run_example, tagging_folder):
        result = run_example("entities", tagging_folder, "--label", "upos")
        assert result.exit_code == 1
        assert "train.conllu: the label 'upos' has no spans: expected labels such as B-PER" in result.stderr

    def test_one_for_each_token(self, run_example, tagging_folder):
        result = run_example("sentiment", tagging_folder, "--label", "upos")
        assert result.exit_code == 1
        assert "expected one for each sentence" in result.stderr
