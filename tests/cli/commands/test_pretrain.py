"""``pretrain`` as a user runs it: what it prints, its exit codes, and that a kill costs little."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import click
import pytest

from featurestore import load_encoder
from featurestore.cli.commands.pretrain import pretrain
from featurestore.cli.main import main
from featurestore.encoders.elmo.model.options import PRESETS
from featurestore.pretraining.settings import OPTIMIZERS, PRECISIONS, PretrainConfig

OPTIONS = {
    "lstm": {
        "dim": 12, "projection_dim": 8, "n_layers": 2, "cell_clip": 3, "proj_clip": 3,
        "use_skip_connections": True,
    },
    "char_cnn": {
        "embedding": {"dim": 4}, "filters": [[1, 4], [2, 6], [3, 6]], "n_highway": 1, "activation": "relu",
        "n_characters": 262, "max_characters_per_token": 50,
    },
}  # fmt: skip
JSON_KEYS = {
    "folder", "history", "n_tokens", "n_types", "n_classes", "n_parameters", "weights_sha256", "seconds",
    "status", "best",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    random = Random(1)
    words = ["a", "bee", "sees", "the", "red", "one", "."]
    (folder / "corpus.txt").write_text(
        "".join(" ".join(random.choices(words, k=random.randrange(1, 9))) + "\n" for _ in range(40))
    )
    (folder / "options.json").write_text(json.dumps(OPTIONS))
    return folder


def arguments_of(place: Path, out: Path, *more: object) -> list[str]:
    arguments = [
        "pretrain", place / "corpus.txt", "--out", out, "--options", place / "options.json", "--epochs", 3,
        "--streams", 4, "--steps", 5, "--min-count", 1, "--held-out", 0.1, "--precision", "float32",
        "--device", "cpu", *more,
    ]  # fmt: skip
    return [str(argument) for argument in arguments]


@pytest.fixture
def run(place, capsys):
    def run_main(out: Path, *more: object) -> tuple[int, str, str]:
        return run_arguments(*arguments_of(place, out, *more))

    def run_arguments(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code, *capsys.readouterr()

    run_main.plain = run_arguments
    return run_main


@pytest.fixture(scope="module")
def finished(place) -> Path:
    with pytest.raises(SystemExit) as stop:
        main(arguments_of(place, place / "finished", "--no-progress"))
    assert stop.value.code == 0
    return place / "finished"


def weights(out: Path) -> bytes:
    return (out / "weights.hdf5").read_bytes()


def test_says_what_it_made_and_how_to_use_it(run, tmp_path):
    out = tmp_path / "model"
    code, printed, err = run(out)
    assert code == 0
    for fragment in (
        f"folder      {out}", "words       9 distinct, 10 predictable", "tokens      ",
        "(held out; after pass ", "of 3)", "SHA-256 ",
    ):  # fmt: skip
        assert fragment in printed
    assert "corpus.txt: 40 sentences" in err
    assert err.count("held-out forward") == 3
    encoder = load_encoder(printed.split("--encoder ")[1].strip(), device="cpu")
    assert encoder.encode([("the", "bee")])[0].shape == (2, 16)
    code, printed, err = run(out)
    assert code == 0
    assert "nothing is left to do" in err


def test_json_is_one_object_and_the_card_has_the_command(run, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["featurestore", "pretrain", "a b.txt", "--licence", "public domain"])
    code, printed, err = run(tmp_path / "model", "--json", "--licence", "public domain", "--licence", "CC BY")
    found = json.loads(printed)
    assert (code, err, found.keys(), found["status"]) == (0, "", JSON_KEYS, "complete")
    assert weights(tmp_path / "model") == weights(finished)
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["command"] == "featurestore pretrain 'a b.txt' --licence 'public domain'"
    assert card["licences"] == ["public domain", "CC BY"]
    assert shlex.split(card["command"])[2] == "a b.txt"
    assert found["best"] == card["best"]


def test_the_defaults_are_those_of_the_api():
    parameters = {each.name: each for each in pretrain.params}
    config = PretrainConfig()
    for field in dataclasses.fields(config):
        name = {"n_streams": "streams", "n_steps": "steps"}.get(field.name, field.name)
        assert parameters[name].default == getattr(config, field.name), name
    assert tuple(parameters["optimizer"].type.choices) == OPTIMIZERS
    assert tuple(parameters["precision"].type.choices) == PRECISIONS
    assert isinstance(parameters["max_words"].type, click.IntRange)
    for name in PRESETS:
        assert name in parameters["shape"].help


def test_help_needs_no_torch():
    script = (
        "import sys; from featurestore.cli.main import main\n"
        "try: main(['pretrain', '--help'])\n"
        "except SystemExit as stop: sys.exit(f'torch: {\"torch\" in sys.modules}, {stop.code}')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "torch: False, 0"
    assert "--checkpoint-every" in done.stdout


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--shape", "huge"], 2, "unknown shape 'huge': expected one of demo, small, medium, original"),
        (["--shape", "demo", "--options", "my.json"], 2, "--options my.json and --shape demo both say"),
        (["--options", "nowhere.json"], 1, "nowhere.json"),
        (["nowhere.txt"], 1, "nowhere.txt: no such file"),
        (["--lr", "nan"], 2, "lr must be"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--max-words", "1"], 2, "--max-words"),
        (["--checkpoint-every", "-1"], 2, "--checkpoint-every"),
        (["--held-out", "0.9"], 2, "held_out"),
        (["--optimizer", "sgd"], 2, "--optimizer"),
        (["--device", "tpu"], 2, "tpu"),
        (["--format", "xml"], 2, "xml"),
        (["--text-column", "text"], 2, "no columns"),
        (["--min-count", "10000"], 1, "--min-count"),
    ],
)
def test_wrong_use(run, place, tmp_path, more, code, says):
    out = tmp_path / "model"
    options = [] if more[0] == "--shape" else ["--options", place / "options.json"]
    found, printed, err = run.plain("pretrain", place / "corpus.txt", "--out", out, *options, *more)
    assert (found, printed) == (code, "")
    assert says in err
    assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "says"), [("", "no sentences"), ("one\n", "1 sentence"), ("a a\n" * 9, "1 word")]
)
def test_too_little_text(run, place, tmp_path, text, says):
    (tmp_path / "little.txt").write_text(text)
    arguments = [
        "pretrain",
        tmp_path / "little.txt",
        "--out",
        tmp_path / "m",
        "--options",
        place / "options.json",
    ]
    code, _, err = run.plain(*arguments)
    assert code == 1
    assert says in err


def test_out_that_is_a_file(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = run(tmp_path / "file")
    assert code == 2
    assert "is a file" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_another_training_is_refused(run, finished):
    code, printed, err = run(finished, "--lr", 0.5, "--dropout", 0.3)
    assert (code, printed) == (2, "")
    assert "settings.lr: 0.002 there, 0.5 asked for" in err
    assert "settings.dropout: 0.1 there, 0.3 asked for" in err
    code, _, err = run(finished, "--weights-dtype", "float16")
    assert code == 2
    assert "--weights-dtype float32" in err


def test_a_damaged_checkpoint(run, finished, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "model"))
    (out / "checkpoint.h5").write_bytes((out / "checkpoint.h5").read_bytes()[:-100])
    code, _, err = run(out)
    assert code == 1
    assert f"{out / 'checkpoint.h5'}" in err
    assert weights(out) == weights(finished)


def test_a_full_disk(run, tmpfs):
    code, _, err = run(tmpfs("16k") / "model")
    assert code == 1
    assert "no space left while writing" in err


def test_standard_input(run, place, finished, tmp_path, monkeypatch):
    class Stdin:
        buffer = io.BytesIO((place / "corpus.txt").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin())
    arguments = [
        "-" if a == str(place / "corpus.txt") else a for a in arguments_of(place, tmp_path / "model")
    ]
    code, _, err = run.plain(*arguments)
    assert code == 0
    assert "-: 40 sentences" in err
    assert json.loads((tmp_path / "model" / "card.json").read_text())["corpora"][0]["name"] == "-"
    assert weights(tmp_path / "model") == weights(finished)


@pytest.mark.parametrize(
    ("number", "code", "status"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_stopped_by_a_signal_it_goes_on(
    run, finished, tmp_path, monkeypatch, ctrl_c_interrupts, number, code, status
):
    from featurestore.pretraining.trainer import Trainer

    out, advance = tmp_path / "model", Trainer.advance

    def stopping(trainer):
        if trainer.step == 15:
            os.kill(os.getpid(), number)
        return advance(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", stopping)
        found, printed, _ = run(out, "--json")
    assert found == code
    report = json.loads(printed)
    assert report["status"] == status
    assert len(report["history"]) == 1
    found, printed, err = run(out)
    assert found == 0
    # The update that was under way is in the checkpoint: whole.
    assert f"going on from {out / 'checkpoint.h5'}: step 16 of" in err
    assert weights(out) == weights(finished)


def test_an_interrupted_run_says_that_it_can_go_on(run, tmp_path, monkeypatch, ctrl_c_interrupts):
    from featurestore.pretraining.trainer import Trainer

    monkeypatch.setattr(Trainer, "advance", lambda trainer: os.kill(os.getpid(), signal.SIGINT) or (1.0, 1))
    code, printed, _ = run(tmp_path / "model")
    assert code == 130
    assert "interrupted  a checkpoint is written: the same command goes on from it" in printed
    assert "weights" not in printed


def test_killed_without_warning_it_ends_the_same(run, place, finished, tmp_path):
    out = tmp_path / "model"
    script = "import sys; from featurestore.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, *arguments_of(place, out, "--checkpoint-every", 0)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Killed after some checkpoints, perhaps while one is being written.
    seen: set[int] = set()
    deadline = time.monotonic() + 200
    while len(seen) < 6 and process.poll() is None and time.monotonic() < deadline:
        if (out / "checkpoint.h5").exists():
            seen.add((out / "checkpoint.h5").stat().st_mtime_ns)
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert (out / "checkpoint.h5").exists()
    code, _, _ = run(out)
    assert code == 0
    assert weights(out) == weights(finished)
