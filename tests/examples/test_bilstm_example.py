"""The BiLSTM example: the right states, the same training cached and live, a model that comes back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from featurestore import FeatureDataset, feature_loader, open_corpus
from featurestore.errors import ModelError
from featurestore.examples.bilstm import BiLSTMClassifier, accuracy
from featurestore.examples.saving import load_module


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BiLSTMClassifier(dim=6, hidden=5, n_labels=3).eval()


@pytest.fixture
def sentences():
    torch.manual_seed(1)
    return [torch.randn(n, 6) for n in (4, 1, 7, 2)]


class TestStates:
    def test_are_those_at_each_sentences_own_ends(self, model, sentences):
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        scores = model(pad_sequence(sentences, batch_first=True), lengths)
        for sentence, row in zip(sentences, scores, strict=True):
            output, _ = model.lstm(sentence[None])
            ends = torch.cat([output[0, -1, :5], output[0, 0, 5:]])
            torch.testing.assert_close(row, model.output(ends))

    def test_do_not_see_the_padding(self, model, sentences):
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        zeros = pad_sequence(sentences, batch_first=True)
        garbage = pad_sequence(sentences, batch_first=True, padding_value=1e6)
        wider = torch.cat([zeros, torch.full((4, 3, 6), -1e6)], dim=1)
        torch.testing.assert_close(model(garbage, lengths), model(zeros, lengths))
        torch.testing.assert_close(model(wider, lengths), model(zeros, lengths))


def run_bilstm(run_example, corpus, out, *arguments):
    result = run_example("bilstm", corpus, "--out", out, "--epochs", 3, *arguments)
    assert result.exit_code == 0, result.output
    return [line.split(", ")[0] for line in result.stdout.splitlines() if "accuracy on" in line]


class TestRuns:
    def test_cached_and_live_are_the_same_training(
        self, run_example, sentiment_folder, exact_store, tiny_elmo_spec, tmp_path
    ):
        pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")
        encoder = ("--encoder", tiny_elmo_spec)
        cached = run_bilstm(
            run_example, sentiment_folder, tmp_path / "a", "--cached", *encoder, "--store", exact_store
        )
        live = run_bilstm(run_example, sentiment_folder, tmp_path / "b", "--live", *encoder)
        assert cached == live
        assert len(cached) == 4
        (about, weights), (live_about, live_weights) = (
            load_module(tmp_path / out / "model.h5") for out in ("a", "b")
        )
        assert about == live_about
        torch.testing.assert_close(weights, live_weights, rtol=1e-3, atol=1e-4)

    def test_the_seed_decides(self, run_example, sentiment_folder, exact_store, tiny_elmo_spec, tmp_path):
        weights = []
        for out, seed in (("a", 0), ("b", 0), ("c", 1)):
            store = ("--encoder", tiny_elmo_spec, "--store", exact_store)
            run_bilstm(run_example, sentiment_folder, tmp_path / out, *store, "--seed", seed)
            weights.append(load_module(tmp_path / out / "model.h5")[1]["output.weight"])
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_the_saved_model_is_the_one_that_was_scored(
        self, run_example, sentiment_folder, with_test, exact_store, tiny_elmo_spec, tmp_path
    ):
        store = ("--encoder", tiny_elmo_spec, "--store", exact_store)
        *epochs, last = run_bilstm(run_example, with_test(sentiment_folder), tmp_path / "out", *store)
        about, weights = load_module(tmp_path / "out" / "model.h5")
        assert about["labels"] == ["neg", "pos"]
        model = BiLSTMClassifier(**about["sizes"])
        model.load_state_dict(weights)
        dev = FeatureDataset(exact_store, open_corpus(sentiment_folder / "dev.tsv", label="label"))
        score = f"{accuracy(model, feature_loader(dev)):.3f}"
        # The test file is a copy of dev: the best epoch's score.
        assert last == f"accuracy on test {score}"
        assert score == max(line.split()[-1] for line in epochs)

    def test_it_learns(self, run_example, sentiment_folder, exact_store, tiny_elmo_spec, tmp_path):
        """Tested on what it was trained on, or the tiny model's random vectors would tell nothing."""
        folder = tmp_path / "corpus"
        folder.mkdir()
        for split in ("train", "dev"):
            (folder / f"{split}.tsv").write_text((sentiment_folder / "train.tsv").read_text())
        store = ("--encoder", tiny_elmo_spec, "--store", exact_store)
        *_, last = run_bilstm(run_example, folder, tmp_path / "out", *store, "--epochs", 60)
        assert float(last.split()[-1]) > 0.8

    def test_cached_it_runs_as_a_module_without_flair(
        self, sentiment_folder, exact_store, tiny_elmo_spec, tmp_path
    ):
        code = (
            "import sys, runpy; sys.modules['flair'] = None; "
            "runpy.run_module('featurestore.examples.bilstm', run_name='__main__', alter_sys=True)"
        )
        arguments = ("--encoder", tiny_elmo_spec, "--store", exact_store, "--epochs", "1")
        done = subprocess.run(
            [sys.executable, "-c", code, sentiment_folder, *arguments, "--out", tmp_path / "out"],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "0 sentences encoded" in done.stdout
        assert (tmp_path / "out" / "model.h5").is_file()


class TestSaving:
    def test_a_file_that_is_no_model(self, tmp_path):
        (tmp_path / "no.h5").write_bytes(b"no model")
        for path in (tmp_path / "no.h5", tmp_path / "none.h5"):
            with pytest.raises(ModelError, match=str(path)):
                load_module(path)
