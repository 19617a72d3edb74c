"""``train``, ``evaluate``, ``predict`` as a user runs them, on a small real store."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featurestore.cli.main import main
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HeadConfig, build_head
from featurestore.recipe import Recipe
from featurestore.store.store import Store
from tests.cli.commands.small_corpora import QUICK, SPANS, make_place, run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with corpora and stores of the same sentences under two recipes, one of them untrained."""
    return make_place(tmp_path_factory.mktemp("place"))


def train_arguments(place, task="tagger", corpus="pos", label="2", out="model.h5", store="a"):
    extension = "conll" if task == "tagger" else "tsv"
    return [
        "train", task, "--store", place / f"{store}.fs", "--train", place / f"{corpus}.train.{extension}",
        "--dev", place / f"{corpus}.dev.{extension}", "--label", label, "--out", place / out, *QUICK,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def models(place) -> Path:
    for task, corpus, label, model, out in [
        ("tagger", "pos", "2", "bilstm", "tagger.h5"),
        ("tagger", "ner", "2", "bilstm-crf", "ner.h5"),
        ("classifier", "pos", "mood", "bilstm", "classifier.h5"),
    ]:
        arguments = [*train_arguments(place, task, corpus, label, out), "--model", model, "--json"]
        arguments += ["--dropout", "0.2"]  # vectors of eight values bear no more
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 0
    return place


@pytest.mark.parametrize("model", ["linear", "bilstm", "bilstm-crf"])
def test_train_tagger_prints_epochs_the_best_and_where_it_is(place, capsys, model):
    code, out, _ = run(capsys, *train_arguments(place), "--model", model)
    assert code == 0
    lines = out.splitlines()
    assert lines[2].split() == ["epoch", "lr", "loss", "dev", "score", "seconds"]
    assert lines[3].split()[0] == "1"
    assert lines[3].endswith(" *")
    assert "accuracy 1.0000" in out
    assert f"saved to {place / 'model.h5'}" in lines[-1]
    assert "UNTRAINED" not in out


@pytest.mark.parametrize("model", ["meanpool", "bilstm"])
def test_train_classifier_as_json_prints_one_object_and_nothing_else(place, capsys, model):
    arguments = train_arguments(place, "classifier", label="mood")
    code, out, _ = run(capsys, *arguments, "--model", model, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["head"] == f"{model}-classifier"
    assert result["dev"]["value"] > 0.8
    assert result["history"][result["best_epoch"] - 1]["score"] == result["dev"]["value"]
    assert result["history"][0]["lr"] == 0.02
    assert not result["untrained"]


def test_the_same_command_writes_the_same_bytes(place, capsys):
    for out in ("one.h5", "two.h5"):
        assert run(capsys, *train_arguments(place, out=out), "--epochs", "2")[0] == 0
    assert (place / "one.h5").read_bytes() == (place / "two.h5").read_bytes()


def test_untrained_features_are_called_so(place, capsys):
    code, out, _ = run(capsys, *train_arguments(place, store="b"), "--model", "linear")
    assert code == 0
    assert "UNTRAINED encoder (random weights)" in out


def test_several_training_files_and_the_default_place(place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = train_arguments(place)
    del arguments[arguments.index("--out") : arguments.index("--out") + 2]
    code, out, _ = run(capsys, *arguments, "--train", place / "pos.dev.conll", "--epochs", "1", "--json")
    assert code == 0
    n = sum((place / f"pos.{split}.conll").read_text().count("\n\n") + 1 for split in ("train", "dev"))
    assert json.loads(out)["n_sentences"] == n
    assert (tmp_path / "runs" / "tagger-2.h5").is_file()


def test_labels_only_dev_has_give_one_warning_and_count_as_errors(place, capsys, caplog):
    text = (place / "pos.dev.conll").read_text()
    (place / "odd.dev.conll").write_text(text.replace("\tADJ", "\tODD"))
    arguments = train_arguments(place)
    arguments[arguments.index("--dev") + 1] = place / "odd.dev.conll"
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    n = text.count("\t")
    assert json.loads(out)["dev"]["accuracy"] == pytest.approx(1 - text.count("\tADJ") / n)
    assert [record.message.count("ODD") for record in caplog.records] == [1]


def test_evaluate_a_tagger(models, capsys):
    arguments = ["evaluate", models / "tagger.h5", models / "pos.dev.conll", "--store", models / "a.fs"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.startswith("accuracy 1.0000")
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["label", "ADJ", "DET", "NOUN", "VERB"]


def test_evaluate_spans_as_json(models, capsys):
    arguments = ["evaluate", models / "ner.h5", models / "ner.dev.conll", "--store", models / "a.fs"]
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["metric"] == "span_f1"
    assert result["value"] == result["spans"]["f1"] == 1.0
    assert [row["name"] for row in result["spans"]["per_type"]] == ["LOC", "PER"]
    code, out, _ = run(capsys, *arguments, "--json", "--metric", "macro_f1")
    assert json.loads(out)["value"] == json.loads(out)["macro_f1"]
    code, out, _ = run(capsys, *arguments)
    assert "span F1 1.0000 (precision 1.0000, recall 1.0000)" in out


def test_predict_tagger_gives_the_corpus_back(models, capsys):
    arguments = ["predict", models / "tagger.h5", models / "pos.dev.conll", "--store", models / "a.fs"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.rstrip("\n") == (models / "pos.dev.conll").read_text().rstrip("\n")
    assert run(capsys, *arguments, "--output", models / "predicted.conll")[:2] == (0, "")
    assert (models / "predicted.conll").read_text() == out


def test_predict_ends_quietly_where_nobody_reads_it(models):
    arguments = ["predict", models / "tagger.h5", models / "pos.dev.conll", "--store", models / "a.fs"]
    command = [sys.executable, "-m", "featurestore", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0


def test_predict_classifier(models, capsys):
    arguments = ["predict", models / "classifier.h5", models / "pos.dev.tsv", "--store", models / "a.fs"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    gold = (models / "pos.dev.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[1] for line in out.splitlines()] == [line.split("\t")[1] for line in gold]
    assert sum(map(str.__eq__, out.splitlines(), gold)) / len(gold) > 0.9
    code, as_json, _ = run(capsys, *arguments, "--json")
    rows = [json.loads(line) for line in as_json.splitlines()]
    assert [f"{row['label']}\t{' '.join(row['tokens'])}" for row in rows] == out.splitlines()


def test_predictions_named_tsv_are_a_corpus(models, capsys):
    arguments = ["predict", models / "classifier.h5", models / "pos.dev.tsv", "--store", models / "a.fs"]
    rows = run(capsys, *arguments)[1]
    assert run(capsys, *arguments, "--output", models / "predicted.tsv")[0] == 0
    assert (models / "predicted.tsv").read_text() == "mood\ttext\n" + rows
    code, out, _ = run(
        capsys, "evaluate", models / "classifier.h5", models / "predicted.tsv", "--store", models / "a.fs"
    )
    assert code == 0
    assert out.startswith("accuracy 1.0000")


class TestWhatDoesNotFitIntoLines:
    """Is refused with its place, and what is written as JSON Lines instead comes back."""

    @pytest.fixture
    def predict(self, capsys, tmp_path):
        def predict(head: str, label: str, tokens: list[str]) -> tuple[int, str, str]:
            """Predict with a model that knows one label and one sentence; the text, and what it said."""
            head_config = HeadConfig(dim=8, n_labels=1, n_layers=1, hidden=4, dropout=0.0)
            store = Store.create(tmp_path / "s.fs", recipe=Recipe({"kind": "test", "version": 1}), dim=8)
            with store.write() as session:
                session.add(tokens, np.ones((len(tokens), 8), np.float32))
            model = TrainedModel(build_head(head, head_config), (label,), store.recipe)
            model.save(tmp_path / "m.h5")
            (tmp_path / "c.jsonl").write_text(json.dumps({"tokens": tokens}) + "\n")
            command = ["predict", tmp_path / "m.h5", tmp_path / "c.jsonl", "--store", store.path]
            command += ["--text-column", "tokens"]
            code, out, _ = run(capsys, *command, "--json")
            assert code == 0
            assert json.loads(out)["tokens"] == tokens
            return run(capsys, *command)

        return predict

    @pytest.mark.parametrize(
        ("head", "label", "tokens", "named"),
        [
            ("linear-tagger", "a\tb", ["x"], r"the label 'a\tb'"),
            ("linear-tagger", "a\n", ["x"], r"the label 'a\n'"),
            ("linear-tagger", "a\r", ["x"], r"the label 'a\r'"),
            ("linear-tagger", "a", ["x\n"], r"the token 'x\n'"),
            ("meanpool-classifier", "a\tb", ["x"], r"the label 'a\tb'"),
            ("meanpool-classifier", "a", ["x", "1 000"], "the token '1 000'"),
            ("meanpool-classifier", "a", ["x\v"], r"the token 'x\x0b'"),
        ],
    )
    def test_is_refused(self, predict, head, label, tokens, named):
        code, out, err = predict(head, label, tokens)
        assert (code, out) == (2, "")
        assert f"c.jsonl, line 1: {named} does not fit into lines and tabs: use --json" in err

    def test_other_spaces_fit(self, predict):
        assert (
            predict("meanpool-classifier", "a b", ["1\u00a0000", "x\u2028"])[1] == "a b\t1\u00a0000 x\u2028\n"
        )


def test_predict_of_tagger_as_json_has_a_label_per_token(models, capsys):
    arguments = ["predict", models / "ner.h5", models / "ner.dev.tsv", "--store", models / "a.fs", "--json"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    for row in map(json.loads, out.splitlines()):
        assert row["labels"] == [SPANS[token] for token in row["tokens"]]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_store_of_another_recipe_is_exit_4_and_says_which_field(models, capsys, command):
    arguments = [command, models / "tagger.h5", models / "pos.dev.conll", "--store", models / "b.fs"]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (4, "")
    assert "version: 2 in the store" in err
    assert "untrained" in err


def test_what_goes_wrong_has_its_exit_code_and_reason(models, capsys):
    dev, store = models / "pos.dev.conll", models / "a.fs"
    (models / "broken.h5").write_bytes((models / "tagger.h5").read_bytes()[:5000])
    (models / "unknown.conll").write_text("never\tDET\nseen\tNOUN\n")
    cases = [
        (2, "a.fs2", ["evaluate", models / "tagger.h5", dev, "--store", models / "a.fs2"]),
        (1, "broken.h5", ["evaluate", models / "broken.h5", dev, "--store", store]),
        (1, "it is a store", ["evaluate", store, dev, "--store", store]),
        (1, "nothing.h5", ["predict", models / "nothing.h5", dev, "--store", store]),
        (1, "never seen", ["predict", models / "tagger.h5", models / "unknown.conll", "--store", store]),
        (1, "one label per token, the corpus has one label per sentence",
         ["evaluate", models / "tagger.h5", models / "pos.dev.tsv", "--store", store, "--label", "mood"]),
        (1, "needs one label per sentence",
         ["train", "classifier", *train_arguments(models)[2:]]),
        (1, "cannot write", train_arguments(models, out="pos.dev.conll/model.h5")),
        (2, "dropout", [*train_arguments(models), "--dropout", "1.5"]),
        (2, "toaster", [*train_arguments(models), "--device", "toaster"]),
        (2, "--label", ["train", "tagger", "--store", store, "--train", dev, "--dev", dev]),
    ]  # fmt: skip
    for code, message, arguments in cases:
        found, out, err = run(capsys, *arguments)
        assert (found, out) == (code, ""), arguments
        assert message in err


@pytest.fixture(scope="module")
def odd_paths(tmp_path_factory, tiny_elmo_spec) -> Path:
    """A folder with blanks in its paths: a store of an encoder that is here, a model, a raw text."""
    folder = tmp_path_factory.mktemp("my corpora")
    (folder / "labelled.tsv").write_text("label\ttext\nanimal\ta dog\nthing\ta red hat\n")
    (folder / "raw.txt").write_text("Never seen: a cat. Nor this one!\n")
    data, store = folder / "labelled.tsv", folder / "a store"
    train = ["--train", data, "--dev", data, "--label", "label", "--epochs", 1, "--out", folder / "m.h5"]
    for command in (
        ["extract", data, "--store", store, "--encoder", tiny_elmo_spec, "--no-progress"],
        ["train", "classifier", "--store", store, *train],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in command])
        assert stop.value.code == 0
    return folder


class TestMissingSentences:
    """The command in the message adds them: read as they were asked for, whatever their paths hold."""

    def obey(self, capsys, command):
        """Run a command that lacks sentences, then what its message says, then the command again."""
        code, _, err = run(capsys, *command)
        assert code == 1
        (line,) = (line for line in err.splitlines() if line.startswith("Add them: "))
        assert run(capsys, *shlex.split(line)[3:], "--no-progress")[0] == 0
        return run(capsys, *command)

    def test_of_raw_text(self, odd_paths, capsys):
        command = ["predict", odd_paths / "m.h5", odd_paths / "raw.txt", "--store", odd_paths / "a store"]
        code, out, _ = self.obey(capsys, [*command, "--tokenize"])
        assert code == 0
        texts = [line.split("\t")[1] for line in out.splitlines()]
        assert texts == ["Never seen : a cat .", "Nor this one !"]

    @pytest.mark.parametrize("command", ["evaluate", "train"])
    def test_of_a_table(self, odd_paths, capsys, tmp_path, command):
        (corpus := tmp_path / "raw table").write_text(
            f"mood\tsaid so\nanimal\tIt's a {command}.\nthing\tA {command}'s hat.\n"
        )
        options = ["--store", odd_paths / "a store", "--label", "mood"]
        options += ["--format", "tsv", "--text-column", "said so", "--tokenize"]
        if command == "evaluate":
            whole = ["evaluate", odd_paths / "m.h5", corpus, *options]
        else:
            files = ["--train", corpus, "--dev", corpus, "--out", tmp_path / "m.h5", "--epochs", 1]
            whole = ["train", "classifier", *files, *options]
        assert self.obey(capsys, whole)[0] == 0


def test_a_failed_prediction_leaves_no_file(models, capsys):
    (models / "half.conll").write_text((models / "pos.dev.conll").read_text() + "\nnever\tDET\n")
    target = models / "out" / "half.txt"
    target.parent.mkdir()
    arguments = ["predict", models / "tagger.h5", models / "half.conll", "--store", models / "a.fs"]
    assert run(capsys, *arguments, "--output", target)[0] == 1
    assert list(target.parent.iterdir()) == []
    assert run(capsys, *arguments, "--output", target, "--on-missing", "skip")[0] == 0
    assert [path.name for path in target.parent.iterdir()] == ["half.txt"]


class TestOutput:
    """What stands at --output or --out already."""

    @pytest.fixture
    def predict(self, models):
        return ["predict", models / "tagger.h5", models / "pos.dev.conll", "--store", models / "a.fs"]

    def test_a_pipe_is_written_to(self, predict, capsys, tmp_path):
        expected = run(capsys, *predict)[1]
        os.mkfifo(tmp_path / "pipe")
        with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
            assert run(capsys, *predict, "--output", tmp_path / "pipe")[:2] == (0, "")
            assert reader.communicate(timeout=60)[0] == expected
        assert [path.name for path in tmp_path.iterdir()] == ["pipe"]

    def test_an_open_descriptor_is_written_to(self, predict, capsys):
        expected = run(capsys, *predict)[1]
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            # As bash passes >(cat).
            assert run(capsys, *predict, "--output", f"/dev/fd/{reader.stdin.fileno()}")[0] == 0
            assert reader.communicate(timeout=60)[0] == expected

    def test_a_device_stays_one(self, predict, capsys, tmp_path):
        device = tmp_path / "null"
        try:
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            device.write_bytes(b"")
        except PermissionError:
            pytest.skip("needs the right to make a device")
        assert run(capsys, *predict, "--output", device)[:2] == (0, "")
        assert stat.S_ISCHR(device.lstat().st_mode)

    def test_of_a_link_the_target_is_replaced(self, predict, place, capsys, tmp_path):
        links = [tmp_path / "predicted.conll", tmp_path / "model.h5"]
        for link in links:
            (tmp_path / f"old-{link.name}").write_text("stale")
            link.symlink_to(f"old-{link.name}")
        assert run(capsys, *predict, "--output", links[0])[0] == 0
        assert run(capsys, *train_arguments(place, out=links[1]), "--epochs", "1")[0] == 0
        for link in links:
            assert link.is_symlink()
            assert (tmp_path / f"old-{link.name}").stat().st_size > len("stale")
        assert len(list(tmp_path.iterdir())) == 4

    def test_a_model_goes_to_a_regular_file(self, place, capsys, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        code, out, err = run(capsys, *train_arguments(place, out=tmp_path / "pipe"))
        assert (code, out) == (2, "")
        assert f"cannot write {tmp_path / 'pipe'}: it is there, and is no regular file" in err
        assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
        code, out, err = run(capsys, *train_arguments(place, out="/proc/model.h5"))
        assert (code, out, err) == (1, "", "error: cannot write /proc/model.h5: No such file or directory\n")


def test_ctrl_c_saves_the_best_epoch_and_exits_with_130(place, capsys, monkeypatch):
    from featurestore.cli.display.train_output import EpochTable

    def interrupt(self, epoch):
        raise KeyboardInterrupt

    monkeypatch.setattr(EpochTable, "__call__", interrupt)
    code, out, _ = run(capsys, *train_arguments(place, out="interrupted.h5"))
    assert code == 130
    assert "best: epoch 1" in out
    assert (place / "interrupted.h5").is_file()


def test_sigterm_saves_the_best_epoch_and_exits_with_143(place):
    arguments = [*train_arguments(place, out="terminated.h5"), "--epochs", "100000", "--patience", "100000"]
    command = [sys.executable, "-m", "featurestore", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("    1 "):
            assert process.poll() is None, process.stderr.read()
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted: keeping epoch" in err
    assert "best: epoch" in out
    assert TrainedModel.load(place / "terminated.h5").label == "2"


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_a_signal_in_the_first_epoch_says_that_there_is_no_model(
    place, capsys, monkeypatch, tmp_path, number, word, code
):
    monkeypatch.setattr(
        "featurestore.models.training.score_head", lambda *_, **__: signal.raise_signal(number)
    )
    found, out, err = run(capsys, *train_arguments(place, out=tmp_path / "never.h5"))
    assert (found, out) == (code, "")
    assert err.splitlines()[-1] == f"{word} before the first epoch was finished: there is no model to save"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_resume_goes_on_with_an_interrupted_training(place, capsys, monkeypatch, tmp_path):
    arguments = [*train_arguments(place, out=tmp_path / "m.h5"), "--epochs", "2", "--dropout", "0.2"]
    assert run(capsys, *arguments)[0] == 0
    whole = (tmp_path / "m.h5").read_bytes()
    (tmp_path / "m.h5").unlink()
    checkpoint = tmp_path / "m.checkpoint.h5"
    assert not checkpoint.exists()

    def interrupt(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("featurestore.models.training.score_head", interrupt)
        code, _, err = run(capsys, *arguments, "--checkpoint-every", "0")
    assert code == 143
    assert f"the same command with --resume goes on from {checkpoint}" in err
    kept = checkpoint.read_bytes()
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert f"{checkpoint} holds an unfinished training" in err
    code, _, err = run(capsys, *arguments, "--seed", "1", "--resume")
    assert code == 2
    assert "settings.seed: 0 there, 1 asked for" in err
    assert checkpoint.read_bytes() == kept
    code, out, err = run(capsys, *arguments, "--resume")
    assert code == 0
    assert f"going on from {checkpoint}" in err
    assert "saved to" in out
    assert (tmp_path / "m.h5").read_bytes() == whole
    assert not checkpoint.exists()


def test_the_commands_start_without_torch():
    module = "featurestore.cli.commands"
    code = f"import sys, {module}.train, {module}.evaluate, {module}.predict\n"
    code += "sys.exit('torch' in sys.modules or 'h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_defaults_shown_are_those_of_the_library():
    import dataclasses

    from featurestore.cli.commands.evaluate import evaluate
    from featurestore.cli.commands.predict import predict
    from featurestore.cli.commands.train import train
    from featurestore.models.inference import TOKEN_BUDGET
    from featurestore.models.training import TrainConfig

    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for command in train.commands.values():
        shown = {p.name: p.default for p in command.params if p.name in defaults and p.name != "model"}
        assert len(shown) == 13
        unset = dict.fromkeys(("dropout", "anneal_patience", "class_weights"))
        unset |= dict.fromkeys(("epochs", "patience", "lr", "token_budget"))
        assert {name: defaults[name] for name in shown} == {**shown, **unset}
    for command in (evaluate, predict):
        assert {p.name: p.default for p in command.params}["token_budget"] == TOKEN_BUDGET


class TestScoresThatWouldMislead:
    """Say what they are of, or are refused."""

    @pytest.fixture
    def mostly_missing(self, models):
        """A corpus of which 4 sentences in 100 are in the store."""
        known = (models / "pos.dev.conll").read_text().split("\n\n")[:4]
        unknown = [f"unheard{i}\tDET\ndog\tNOUN" for i in range(96)]
        path = models / "missing.conll"
        path.write_text("\n\n".join([*unknown, *known]) + "\n")
        return path

    @pytest.mark.parametrize("on_missing", ["skip", "zeros"])
    def test_of_a_corpus_that_is_mostly_missing(self, models, mostly_missing, capsys, on_missing):
        command = ["evaluate", models / "tagger.h5", mostly_missing, "--store", models / "a.fs"]
        command += ["--on-missing", on_missing]
        code, out, err = run(capsys, *command)
        assert (code, out) == (1, "")
        assert "96 of the 100 sentences" in err
        assert "(96%) are not in the store" in err
        assert "--max-missing 1" in err
        code, out, _ = run(capsys, *command, "--max-missing", 1)
        assert code == 0
        assert "only 4.0% of the corpus has vectors: 96 of 100 sentences" in out
        code, out, _ = run(capsys, *command, "--max-missing", 1, "--json")
        assert json.loads(out)["n_missing"] == 96
        assert json.loads(out)["n_sentences"] == (4 if on_missing == "skip" else 100)

    def test_training_on_what_is_mostly_missing(self, models, mostly_missing, capsys):
        arguments = [*train_arguments(models, out="missing.h5"), "--on-missing", "skip"]
        arguments[arguments.index("--dev") + 1] = mostly_missing
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, "")
        assert "sentences of the development corpus (96%)" in err
        code, out, _ = run(capsys, *arguments, "--max-missing", "0.97", "--json", "--epochs", 1)
        assert (json.loads(out)["n_missing"], json.loads(out)["n_missing_dev"]) == (0, 96)

    def test_of_labels_the_model_knows_none_of(self, models, capsys):
        command = ["evaluate", models / "tagger.h5", models / "ner.dev.conll", "--store", models / "a.fs"]
        code, out, err = run(capsys, *command)
        assert (code, out) == (1, "")
        assert "the corpus has none of the labels of the model's training corpus (label '2')" in err
        assert "'O' (" in err
        assert "'ADJ', 'DET', 'NOUN', 'VERB'" in err

    def test_training_and_development_of_different_labels(self, models, capsys):
        arguments = train_arguments(models, out="never.h5")
        arguments[arguments.index("--dev") + 1] = models / "ner.dev.conll"
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, "")
        assert "the development corpus has none of the labels of the training corpus" in err

    def test_of_some_labels_the_model_does_not_know(self, models, capsys):
        text = (models / "pos.dev.conll").read_text()
        (models / "renamed.conll").write_text(text.replace("\tADJ", "\tODD"))
        command = ["evaluate", models / "tagger.h5", models / "renamed.conll", "--store", models / "a.fs"]
        n, n_odd = text.count("\t"), text.count("\tADJ")
        code, out, _ = run(capsys, *command)
        assert code == 0
        assert f"{n_odd / n:.1%} of the labels are unknown to the model: 'ODD' ({n_odd})" in out
        assert json.loads(run(capsys, *command, "--json")[1])["unknown_labels"] == {"ODD": n_odd}

    def test_the_baseline_and_the_score_that_counts_are_printed(self, models, capsys):
        command = ["evaluate", models / "ner.h5", models / "ner.dev.conll", "--store", models / "a.fs"]
        _, out, _ = run(capsys, *command)
        assert "span F1 (IOB2) counts; 'O' for everything: accuracy 0." in out
        assert "span F1 0.0000" in out
        baseline = json.loads(run(capsys, *command, "--json")[1])["baseline"]
        labels = [
            SPANS[line.split("\t")[0]] for line in (models / "ner.dev.conll").read_text().splitlines() if line
        ]
        assert baseline["label"] == "O"
        assert baseline["accuracy"] == pytest.approx(labels.count("O") / len(labels))

    @pytest.mark.parametrize("trial", ["bilou.conll", "zero-for-outside.conll"])
    @pytest.mark.shared
    def test_span_labels_of_other_schemes(self, capsys, caplog, tmp_path, shared, tiny_elmo_spec, trial):
        corpus = shared(f"trials/{trial}")
        store = tmp_path / "s.fs"
        assert (
            run(capsys, "extract", corpus, "--store", store, "--encoder", tiny_elmo_spec, "--no-progress")[0]
            == 0
        )
        command = ["train", "tagger", "--store", store, "--train", corpus, "--dev", corpus, "--label", "2"]
        command += ["--out", tmp_path / "m.h5", "--json", "--epochs", 3]
        code, out, _ = run(capsys, *command)
        assert code == 0
        scores = json.loads(out)["dev"]
        assert scores["metric"] == "span_f1"
        assert scores["scheme"] == ("BILOU" if trial.startswith("bilou") else "IOB2")
        assert ("read as outside of spans: '0'" in caplog.text) == trial.startswith("zero")

    @pytest.mark.parametrize("model", ["linear", "bilstm", "bilstm-crf"])
    def test_tokens_without_a_label_count_neither_in_training_nor_in_scores(
        self, capsys, tmp_path, tiny_elmo_spec, model
    ):
        word = "{}\t{}\t_\t{}\t{}\t_\t{}\t_\t_\t_\n".format
        first = (
            word(1, "Ach", "INTJ", "_", 3) + word(2, ",", "PUNCT", "$,", 1) + word(3, "gel", "VERB", "VV", 0)
        )
        (corpus := tmp_path / "c.conllu").write_text(f"{first}\n{word(1, 'Ach', 'INTJ', '_', 0)}\n")
        store = tmp_path / "s.fs"
        extracted = run(
            capsys, "extract", corpus, "--store", store, "--encoder", tiny_elmo_spec, "--no-progress"
        )
        assert extracted[0] == 0
        command = ["--store", store, "--label", "xpos"]
        train = ["train", "tagger", "--train", corpus, "--dev", corpus, "--model", model, *command]
        train += ["--out", tmp_path / "m.h5", "--json", "--lr", "0.05", "--epochs", 20]
        assert "has no XPOS" in run(capsys, *train)[2]
        code, out, _ = run(capsys, *train, "--missing-label", "ignore")
        assert code == 0
        assert json.loads(out)["dev"]["n_labels"] == 2
        assert json.loads(out)["dev"]["value"] == 1.0
        evaluate = ["evaluate", tmp_path / "m.h5", corpus, *command, "--missing-label", "ignore", "--json"]
        assert json.loads(run(capsys, *evaluate)[1])["n_labels"] == 2

    def test_what_was_read_is_shown(self, models, capsys):
        arguments = [*train_arguments(models, out="read.h5"), "--epochs", "1"]
        _, _, err = run(capsys, *arguments)
        assert f"{models / 'pos.train.conll'} begins  " in err
        assert f"{models / 'pos.dev.conll'} labels  4: " in err
        readings = json.loads(run(capsys, *arguments, "--json")[1])["reading"]
        assert [reading["n_distinct_labels"] for reading in readings] == [4, 4]

    def test_a_model_that_learned_nothing_is_called_so(self, models, capsys, caplog):
        arguments = [
            *train_arguments(models, corpus="ner", out="nothing.h5"),
            "--lr",
            "1e-7",
            "--epochs",
            "2",
        ]
        code, out, _ = run(capsys, *arguments, "--json")
        assert code == 0
        doubts = json.loads(out)["doubts"]
        assert doubts[0].startswith(("the model has learned nothing", "the model guesses"))
        assert doubts == [record.message for record in caplog.records][-len(doubts) :]

    def test_class_weights(self, models, capsys):
        arguments = [
            *train_arguments(models, out="weights.h5"),
            "--class-weights",
            "balanced",
            "--epochs",
            "1",
        ]
        assert run(capsys, *arguments, "--model", "linear")[0] == 0
        assert TrainedModel.load(models / "weights.h5").training["class_weights"] == "balanced"
        code, _, err = run(capsys, *arguments, "--model", "bilstm-crf")
        assert code == 2
        assert "a CRF scores whole label sequences" in err
