"""Fixtures for the tests of the examples: small corpora, a store of the tiny ELMo, a way to run them."""

from __future__ import annotations

import importlib
import shutil

import pytest
from click.testing import CliRunner

from featurestore import extract

N_TRAIN, N_DEV = 40, 16


@pytest.fixture
def run_example():
    """Runs an example in this process; returns click's result."""

    def run(name, *arguments):
        command = importlib.import_module(f"featurestore.examples.{name}").main
        result = CliRunner().invoke(command, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def sentiment_folder(tmp_path_factory):
    """The first sentences of data/sentiment, as train.tsv and dev.tsv."""
    folder = tmp_path_factory.mktemp("sentiment")
    for split, n in (("train", N_TRAIN), ("dev", N_DEV)):
        with open(f"data/sentiment/{split}.tsv", encoding="utf-8") as source:
            lines = source.readlines()[: n + 1]
        (folder / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tagging_folder(tmp_path_factory):
    """The first sentences of data/tagging, as train.conllu and dev.conllu."""
    folder = tmp_path_factory.mktemp("tagging")
    for split, n in (("train", N_TRAIN), ("dev", N_DEV)):
        with open(f"data/tagging/{split}.conllu", encoding="utf-8") as source:
            blocks = source.read().split("\n\n")[:n]
        (folder / f"{split}.conllu").write_text("\n\n".join(blocks) + "\n\n", encoding="utf-8")
    return folder


@pytest.fixture
def with_test(tmp_path):
    """Returns a copy of a corpus's folder that has a test file too."""

    def copied(folder):
        made = shutil.copytree(folder, tmp_path / "corpus")
        (dev,) = made.glob("dev.*")
        shutil.copy(dev, made / dev.name.replace("dev", "test"))
        return made

    return copied


@pytest.fixture(scope="session")
def exact_store(tmp_path_factory, tiny_elmo, sentiment_folder, tagging_folder):
    """A store of both corpora in float32, so that cached and live vectors differ by rounding alone."""
    path = tmp_path_factory.mktemp("examples") / "exact"
    files = sorted([*sentiment_folder.iterdir(), *tagging_folder.iterdir()])
    extract(files, tiny_elmo, path, codec="float32", progress=False)
    return path
