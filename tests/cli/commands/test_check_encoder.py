"""``check-encoder`` and ``--encoder PACKAGE.MODULE:CLASS`` as a user runs them, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MODULE = """
import numpy as np

print("loaded")


class Mine:
    spec, recipe = "mine", {"kind": "mine", "version": 1}
    dim, n_layers, device, token_budget = 4, 1, "cpu", 50

    def encode(self, sentences):
        return [np.array([[len(t), ord(t[0]), i, 1.5] for i, t in enumerate(s)], "f4") for s in sentences]


class Sorts(Mine):
    def encode(self, sentences):
        return super().encode(sorted(sentences, key=len))
"""


@pytest.fixture
def run(tmp_path):
    """The installed command in a folder with a module of the user's; it is not on the path of modules."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "a.txt").write_text("a b c\nd e\n")
    (tmp_path / "b.txt").write_text("f\n")
    start = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; from featurestore.cli.main import main; main()"
    )

    def called(*arguments):
        return subprocess.run(
            [sys.executable, "-c", start, *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return called


def test_a_sound_one_and_a_faulty_one(run):
    found = run("check-encoder", "mine:Mine")
    assert found.returncode == 0, found.stderr
    assert "sound: every rule is kept" in found.stdout
    found = run("check-encoder", "mine:Mine", "--json")
    assert json.loads(found.stdout.removeprefix("loaded\n"))["largest"] == 0
    found = run("check-encoder", "mine:Sorts")
    assert (found.returncode, found.stdout) == (1, "loaded\n")
    assert "error: the encoder 'mine:Sorts' returned" in found.stderr
    assert run("check-encoder", "mine:Nothing").returncode == 2


def test_a_store_is_filled_checked_and_asked_by_it_only_where_it_is_named(run):
    store = ("--store", "st")
    assert "to encode  2 sentences" in run("plan", "a.txt", *store, "--encoder", "mine:Mine").stdout
    found = run("extract", "a.txt", *store, "--encoder", "mine:Mine")
    assert found.returncode == 0, found.stderr
    assert "mine:Mine" in run("info", "st").stdout
    for command in (("extract", "b.txt", *store), ("verify", "st", "--encode", "1")):
        found = run(*command)
        assert found.returncode == 2
        assert "name the encoder yourself (--encoder" in found.stderr
        assert "loaded" not in found.stdout
        assert run(*command, "--encoder", "mine:Mine").returncode == 0
    found = run("extract", "a.txt", *store)  # nothing is new
    assert found.returncode == 0
    assert "loaded" not in found.stdout
