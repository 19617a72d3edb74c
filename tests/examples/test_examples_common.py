"""What the examples share: finding a corpus's files, reading labels of one kind, errors in one message."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featurestore.errors import CorpusError, LabelError, UsageError
from featurestore.examples.common import labelled, split_files


class TestFiles:
    def test_by_split_whatever_their_format(self, tmp_path):
        for name in ("train.tsv", "dev.conllu.gz", "README.md", "training.txt"):
            (tmp_path / name).touch()
        assert split_files(tmp_path) == {"train": tmp_path / "train.tsv", "dev": tmp_path / "dev.conllu.gz"}
        (tmp_path / "test.txt").touch()
        assert split_files(tmp_path)["test"] == tmp_path / "test.txt"

    def test_one_missing_or_two_of_a_kind(self, tmp_path):
        (tmp_path / "train.tsv").touch()
        with pytest.raises(UsageError, match=r"no file for dev: expected one such as dev\.tsv"):
            split_files(tmp_path)
        (tmp_path / "train.csv").touch()
        with pytest.raises(UsageError, match=r"2 files for train, expected one: train\.csv, train\.tsv"):
            split_files(tmp_path)


class TestLabels:
    def test_of_sentences(self, sentiment_folder):
        examples = labelled(sentiment_folder / "dev.tsv", "label", "sentence")
        assert {example.labels for example in examples} == {"pos", "neg"}
        with pytest.raises(LabelError, match=r"dev\.tsv, line 2: .*one for each sentence: expected .*token"):
            labelled(sentiment_folder / "dev.tsv", "label", "token")

    def test_of_tokens(self, tagging_folder):
        examples = labelled(tagging_folder / "dev.conllu", "misc.NER", "token")
        assert all(len(example.labels) == len(example.tokens) for example in examples)
        with pytest.raises(
            LabelError, match=r"dev\.conllu, line .*each token: expected one for each sentence"
        ):
            labelled(tagging_folder / "dev.conllu", "upos", "sentence")

    def test_that_are_not_there(self, sentiment_folder):
        with pytest.raises(CorpusError, match="mood"):
            labelled(sentiment_folder / "dev.tsv", "mood", "sentence")


class TestErrors:
    """One message on standard error, the exit code of the error's kind, no traceback."""

    def one_message(self, result, code, *parts):
        assert result.exit_code == code, result.output
        assert result.stderr.startswith("error: ")
        for part in parts:
            assert part in result.stderr

    def test_wrong_use(self, run_example, sentiment_folder, tmp_path):
        self.one_message(run_example("bilstm", tmp_path), 2, "no file for train")
        unknown = run_example(
            "bilstm", sentiment_folder, "--encoder", "elmo:nothing", "--store", tmp_path / "s"
        )
        self.one_message(unknown, 2, "unknown ELMo model 'nothing'")
        for arguments in ((tmp_path / "none",), (sentiment_folder, "--epochs", 0), ()):
            result = run_example("bilstm", *arguments)
            assert result.exit_code == 2
            assert "Error: " in result.stderr

    def test_labels_of_the_wrong_kind(self, run_example, tagging_folder):
        self.one_message(run_example("bilstm", tagging_folder, "--label", "upos"), 1, "each sentence")

    def test_labels_of_the_wrong_kind_for_a_tagger(self, run_example, sentiment_folder, exact_store):
        splits = ("--train", sentiment_folder / "train.tsv", "--dev", sentiment_folder / "dev.tsv")
        result = run_example("training_loop", "--store", exact_store, *splits, "--label", "label")
        self.one_message(result, 1, "train.tsv, line 2", "expected one for each token")

    def test_no_epochs(self, run_example, tagging_folder, exact_store):
        splits = ("--train", tagging_folder / "train.conllu", "--dev", tagging_folder / "dev.conllu")
        result = run_example("training_loop", "--store", exact_store, *splits, "--epochs", 0)
        assert result.exit_code == 2
        assert "--epochs" in result.stderr

    @pytest.mark.parametrize("name", ["sentiment", "entities", "bilstm"])
    def test_a_place_for_no_model_shows_before_the_work(self, run_example, name, sentiment_folder, tmp_path):
        store = tmp_path / "store"
        for out in ("/proc/new", sentiment_folder / "dev.tsv" / "new"):
            result = run_example(name, sentiment_folder, "--store", store, "--out", out)
            self.one_message(result, 1, f"cannot write {out}")
        assert not store.exists()

    def test_a_store_of_another_model(self, run_example, sentiment_folder, exact_store):
        other = ("--encoder", "elmo:untrained-small?seed=0", "--store", exact_store)
        self.one_message(run_example("bilstm", sentiment_folder, *other), 4, "weights")

    def test_no_store(self, run_example, tagging_folder, tmp_path):
        splits = ("--train", tagging_folder / "train.conllu", "--dev", tagging_folder / "dev.conllu")
        result = run_example("training_loop", "--store", tmp_path / "none", *splits)
        self.one_message(result, 2, "none")

    @pytest.mark.parametrize("name", ["sentiment", "entities", "bilstm"])
    def test_without_flair(self, name, sentiment_folder, tmp_path):
        code = (
            "import sys, runpy; sys.modules['flair'] = None; "
            f"runpy.run_module('featurestore.examples.{name}', run_name='__main__', alter_sys=True)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, sentiment_folder, "--live"],
            capture_output=True, text=True, timeout=240, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr == "error: this needs Flair: pip install 'featurestore[flair]'\n"


def test_the_training_loop_learns(run_example, tagging_folder, exact_store):
    train = tagging_folder / "train.conllu"
    result = run_example(
        "training_loop", "--store", exact_store, "--train", train, "--dev", train, "--epochs", 15
    )
    assert result.exit_code == 0, result.output
    scores = [float(line.split()[-1]) for line in result.stdout.splitlines()]
    assert len(scores) == 15
    assert scores[-1] > scores[0] + 0.1
