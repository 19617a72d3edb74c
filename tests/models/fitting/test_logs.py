"""Logs of trainings, read by others: JSON Lines, CSV, and TensorBoard's own reader of events."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from featurestore.cli.main import main
from featurestore.errors import StoreWriteError, UsageError
from featurestore.models.fitting.logs import EPOCH_FIELDS, STEP_FIELDS, JsonLinesLog
from featurestore.models.training import Logs, train
from tests.kit.places import ROOT
from tests.models.separable import datasets, quick, tagged

KINDS = ("tensorboard", "csv", "jsonl")


def rows(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    return [row for row in lines if row["kind"] == kind]


def table(file: Path) -> list[dict]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def config(**settings):
    return quick("linear-tagger", **{"epochs": 3, "patience": 3, "token_budget": 32, **settings})


def check_agree(folder: Path) -> None:
    """Every log in a folder tells the same of the same steps and epochs, each once."""
    steps, epochs = rows(folder, "step"), rows(folder, "epoch")
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    assert [row["epoch"] for row in epochs] == list(range(1, len(epochs) + 1))
    for name, expected, fields in (("steps", steps, STEP_FIELDS), ("epochs", epochs, EPOCH_FIELDS)):
        found = table(folder / f"{name}.csv")
        assert [[row[field] for field in fields] for row in found] == [
            [str(row[field]) for field in fields] for row in expected
        ]
        for field in ("loss", "lr", "tokens_per_second"):
            at = fields[0]
            events = scalars(folder / name, f"train/{field}")
            assert events == [(row[at], pytest.approx(row[field], rel=1e-6)) for row in expected], (
                name,
                field,
            )
    (metric,) = {row["metric"] for row in epochs}
    assert scalars(folder / "epochs", f"dev/{metric}") == [
        (row["epoch"], pytest.approx(row["score"], rel=1e-6)) for row in epochs
    ]


def test_every_step_and_epoch_is_written_once_and_alike(store, tmp_path):
    data, dev = datasets(store)
    with Logs([(kind, tmp_path) for kind in KINDS]) as logs:
        result = train(data, dev, config(), logs=logs)
    check_agree(tmp_path)
    epochs, steps = rows(tmp_path, "epoch"), rows(tmp_path, "step")
    for row, epoch in zip(epochs, result.history, strict=True):
        assert {name: row[name] for name in vars(epoch)} == vars(epoch)
        assert row["tokens_per_second"] == pytest.approx(data.lengths.sum() / epoch.seconds)
    assert epochs[-1]["step"] == steps[-1]["step"]
    assert {row["epoch"] for row in steps} == {1, 2, 3}
    assert all(row["tokens_per_second"] > 0 for row in steps)
    # Another training into the same folder takes the place of the first.
    with Logs([(kind, tmp_path) for kind in KINDS]) as logs:
        train(data, dev, config(epochs=2), logs=logs)
    check_agree(tmp_path)
    assert len(rows(tmp_path, "epoch")) == 2


def test_a_training_that_goes_on_writes_no_step_twice(store, tmp_path):
    """Broken off after an epoch whose checkpoint is older than what was logged."""
    data, dev = datasets(store)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Logs([("jsonl", whole)]) as logs:
        train(data, dev, config(), logs=logs)

    class BrokenOff(Exception):
        pass

    def break_off(epoch):
        if epoch.epoch == 2:
            raise BrokenOff

    options = {"checkpoint": tmp_path / "checkpoint.h5", "resume": True}
    with pytest.raises(BrokenOff), Logs([(kind, parts) for kind in KINDS]) as logs:
        # Within a second of the last one no checkpoint is written: that of the first epoch is what is left.
        train(data, dev, config(), logs=logs, on_epoch=break_off, **options)
    assert len(rows(parts, "epoch")) == 2
    with open(parts / "training.jsonl", "ab") as file:
        file.write(b'{"kind": "step", "step": 1')  # what a kill leaves of a line
    with Logs([(kind, parts) for kind in KINDS]) as logs:
        train(data, dev, config(), logs=logs, **options)
    check_agree(parts)
    for kind in ("step", "epoch"):
        same = [
            [{key: row[key] for key in ("epoch", "step", "loss", "lr")} for row in rows(folder, kind)]
            for folder in (whole, parts)
        ]
        assert same[0] == same[1]


def test_a_training_that_is_killed_leaves_whole_lines_and_goes_on(store, tmp_path):
    """By the command line: SIGKILL in a step, then --resume."""
    for name, sentences in (("train", tagged(200, 1)[:80]), ("dev", tagged(60, 2))):
        text = "\n".join(
            "".join(f"{token}\t{label}\n" for token, label in zip(one.tokens, one.labels, strict=True))
            for one in sentences
        )
        (tmp_path / f"{name}.conll").write_text(text)
    folder = tmp_path / "log"
    words = [
        "train", "tagger", "--store", store.path, "--label", "1",
        "--train", tmp_path / "train.conll", "--dev", tmp_path / "dev.conll", "--model", "linear",
        "--no-header", "--output", tmp_path / "model.h5", "--token-budget", "8", "--epochs", "3",
        "--checkpoint-every", "0", "--resume", "--json",
        *(word for kind in KINDS for word in ("--log-to", kind, folder)),
    ]  # fmt: skip
    words = [str(word) for word in words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "featurestore", *words], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    file, end = folder / "training.jsonl", time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") > 15):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = rows(folder, "step")  # every line is whole
    assert not (tmp_path / "model.h5").exists()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    check_agree(folder)
    steps, epochs = rows(folder, "step"), rows(folder, "epoch")
    assert len(epochs) == 3
    assert [row for row in steps if row["step"] < killed[-1]["step"]] == killed[:-1]
    assert epochs == sorted(epochs, key=lambda row: row["epoch"])


def test_a_log_that_cannot_be_written_any_more_is_given_up(store, tmp_path, monkeypatch, caplog):
    data, dev = datasets(store)

    def full(self, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(JsonLinesLog, "epoch", full)
    with Logs([("jsonl", tmp_path / "a"), ("csv", tmp_path / "b")]) as logs:
        result = train(data, dev, config(), logs=logs)
    assert len(result.history) == 3
    assert caplog.text.count("ends here, it cannot be written") == 1
    assert len(table(tmp_path / "b" / "epochs.csv")) == 3
    assert {row["epoch"] for row in rows(tmp_path / "a", "step")} == {1}


def test_what_makes_no_log_is_refused_before_the_training(store, tmp_path):
    data, dev = datasets(store)
    with pytest.raises(
        UsageError, match="no log of the kind 'wandb': expected one of tensorboard, csv, jsonl"
    ):
        Logs([("wandb", tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match="file"), Logs([("jsonl", tmp_path / "file")]) as logs:
        train(data, dev, config(), logs=logs)
