"""``import`` on the command line: what it says, its JSON, and the errors of users."""

from __future__ import annotations

import json

import h5py
import pytest

from featurestore import Store
from featurestore.cli.main import main
from tests.kit.stores import vectors_of

LINES = ["the cat sat", "a b", "the cat sat"]


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def files(tmp_path):
    (tmp_path / "x.txt").write_text("\n".join(LINES))
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for number, line in enumerate(LINES):
            file[str(number)] = (1 + number) * vectors_of(tuple(line.split()))
    return tmp_path


def test_import_says_what_it_did(files, capsys):
    words = ("import", files / "x.hdf5", "--from", "bilm-tf", "--tokens", files / "x.txt")
    words += ("--recipe-note", "tiny", "--store", files / "store")
    assert run(*words) == 1
    assert "line 3: 1 of 1 repeats" in capsys.readouterr().err
    assert run(*words, "--duplicates", "last") == 0
    out = capsys.readouterr().out
    assert "imported 2 sentences, 5 tokens of 8 values" in out
    assert "1 repeat of sentences, 1 with other vectors" in out
    assert "relative L2 of 2 on average, 2 at most; taken: last" in out
    assert Store.open(files / "store").recipe["note"] == "tiny"
    assert run(*words, "--duplicates", "last") == 2
    assert "already a store" in capsys.readouterr().err


def test_import_json(files, capsys):
    words = (
        "import",
        files / "x.hdf5",
        "--from",
        "bilm-tf",
        "--corpus",
        files / "x.txt",
        "--recipe-note",
        "x",
    )
    words += ("--store", files / "store", "--duplicates", "mean", "--codec", "float16", "--json")
    assert run(*words) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_sentences"], said["n_differing"], said["codec"], said["duplicates"]) == (
        2,
        1,
        "float16",
        "mean",
    )
    assert said["fingerprint"] == Store.open(files / "store").fingerprint
