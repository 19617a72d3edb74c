"""The examples that help ends with, run as they stand, in a folder with small real data under their names."""

from __future__ import annotations

import gzip
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurestore.cli.epilogs import EXAMPLES
from featurestore.cli.main import COMMANDS
from tests.kit.places import ROOT
from tests.kit.threads import one_thread  # noqa: F401

DATA = ROOT / "data"

OWN_ENCODER = """
import numpy as np

class Mine:
    spec, dim, n_layers, device = "mine", 2, 1, "cpu"
    recipe = {"kind": "mine", "version": 1}
    token_budget = 64

    def encode(self, batch):
        return [np.array([[len(t), sum(t.encode())] for t in s], np.float32) for s in batch]
"""

ORDER = (
    "extract", "plan", "info", "ls", "show", "stats", "why", "diff", "compare", "neighbors", "report",
    "train tagger", "train classifier", "train", "evaluate", "predict", "verify", "repair", "gc", "compact",
    "recode", "copy", "merge", "subset", "layers", "export", "import", "remove", "pretrain", "warm-up",
    "check-encoder", "upgrade", "forget", "completion", "",
)  # fmt: skip
"""Commands whose examples make what those of others need come first."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    lines = (DATA / "tagging" / "train.conllu").read_text(encoding="utf-8").split("\n\n")
    for number, name in enumerate(("train", "dev", "test", "new", "old")):
        part = lines[number * 8 : number * 8 + 16]
        (folder / f"{name}.conllu").write_text("\n\n".join(part) + "\n\n", encoding="utf-8")
    for name in ("train", "dev"):
        shutil.copy(DATA / "sentiment" / f"{name}.tsv", folder)
    text = [" ".join(f"{a} {b} sleeps .".split()) for a in ("It", "She") for b in ("rains", "really")] * 3
    (folder / "news.txt.gz").write_bytes(gzip.compress("\n".join([*text, "It rains ."]).encode()))
    (folder / "forum.txt").write_text("\n".join(text))
    (folder / "lines.txt").write_text("It rains .\nNew York sleeps\n")
    (folder / "reviews.csv").write_text('id,review\n1,"It rains, again."\n2,Good!\n')
    (folder / "sequences.fasta").write_text(">one\nMKV\n>two\nMA\n")
    with h5py.File(folder / "embeddings_file.h5", "w") as file:
        for name, n in (("one", 3), ("two", 2)):
            file.create_dataset(name, data=np.ones((3, n, 4), np.float32)).attrs["original_id"] = name
    with h5py.File(folder / "elmo.hdf5", "w") as file:
        for name, n in (("0", 3), ("1", 3)):
            file.create_dataset(name, data=np.ones((3, n, 4), np.float32))
        file.create_dataset("sentence_to_index", (1,), dtype=h5py.string_dtype())[0] = (
            '{"It rains .": "0", "New York sleeps": "1"}'
        )
    package = folder / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "encoders.py").write_text(OWN_ENCODER)
    return folder


def prepare(run, command: str) -> None:
    """Make what an example presupposes and no other one makes."""
    quick = ("--no-progress",)
    if command == "info":
        # The example for show has a token with a space, as no line of text has.
        Path("york.jsonl").write_text('{"tokens": ["New York", "sleeps"]}\n{"tokens": ["It", "rains", "."]}\n'
                                      '{"tokens": ["New York", "it", "is"]}\n'
                                      '{"tokens": ["on", "the", "river", "bank"]}\n')  # fmt: skip
        files = ("test.conllu", "new.conllu", "york.jsonl")
        assert run("extract", *files, "--store", "features/ewt", *quick)[0] == 0
    if command == "compare":
        for name in ("features/ewt-int8", "features/old", "features/new"):
            code = "int8" if name.endswith("int8") else "float32"
            assert run("extract", "lines.txt", "--store", name, "--codec", code, *quick)[0] == 0
    if command == "import":
        shutil.rmtree("features/old")
    if command == "recode":
        shutil.rmtree("features/ewt-int8")  # of the example of compare
    if command == "train classifier":
        files = ("train.tsv", "dev.tsv")
        assert run("extract", *files, "--text-column", "text", "--store", "features/polarity", *quick)[0] == 0
    if command == "merge":
        for machine in ("machine1", "machine2"):
            shutil.copytree("features/ewt", f"{machine}/ewt")
    if command == "subset":
        Path("berlin.txt").write_text("Berlin is big\n")
        files = ("train.conllu", "old.conllu", "berlin.txt")
        assert run("extract", *files, "--store", "features/all", *quick)[0] == 0
    if command == "layers":
        assert (
            run("extract", "lines.txt", "--store", "features/all-layers", "--layers", "all", *quick)[0] == 0
        )


def test_every_example_runs_as_it_stands(folder, run, monkeypatch):
    assert set(ORDER) == set(EXAMPLES) == {"", "train tagger", "train classifier", *COMMANDS}
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("FEATURESTORE_CACHE", str(folder / "cache"))
    done: set[str] = set()
    for command in ORDER:
        prepare(run, command)
        for example in (example for example in EXAMPLES[command] if example not in done):
            words = shlex.split(example.replace("\\\n", " "))
            words = words[words.index("featurestore") + 1 : words.index(">") if ">" in words else None]
            with gzip.open("news.txt.gz", "rt") as news, monkeypatch.context() as patch:
                patch.setattr("sys.stdin", news)
                code, _, err = run(*words)
            done.add(example)
            # The example of why asks for layers that the store does not have.
            assert code == (4 if command == "why" else 0), f"{example}\n{err}"
    assert len(done) >= len(COMMANDS)
