"""The options that say how corpora are read, as commands get them."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from featurestore.cli.options import Reading, reading_options
from featurestore.errors import UsageError


def read(*words: str) -> tuple[Reading, tuple[str, ...]]:
    found = []

    @click.command()
    @click.argument("corpora", nargs=-1)
    @reading_options
    def command(corpora: tuple[str, ...], reading: Reading) -> None:
        found.append((reading, corpora))

    CliRunner().invoke(command, words, catch_exceptions=False)
    return found[0]


@pytest.mark.parametrize(
    ("words", "tokenize", "corpora"),
    [
        (("a.txt",), None, ("a.txt",)),
        (("--tokenize", "a.txt"), "rules", ("a.txt",)),
        (("a.txt", "--tokenize"), "rules", ("a.txt",)),
        (("--tokenize", "-"), "rules", ("-",)),
        (("--tokenize", "--header", "a.txt"), "rules", ("a.txt",)),
        (("--tokenize", "characters", "a.txt"), "characters", ("a.txt",)),
        (("a.txt", "--tokenize", "icu"), "icu", ("a.txt",)),
        (("--tokenize=icu", "a.txt", "b.txt"), "icu", ("a.txt", "b.txt")),
        (("--tokenize", "rules", "a.txt"), "rules", ("a.txt",)),
    ],
)
def test_the_tokeniser_may_be_left_out(words, tokenize, corpora):
    reading, given = read(*words)
    assert (reading.tokenize, given) == (tokenize, corpora)


def test_a_tokeniser_that_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (("--tokenize", "chars"), ("--tokenize=chars", "a.txt")):
        with pytest.raises(UsageError, match="no tokeniser or file 'chars': expected rules, icu, characters"):
            read(*words)
    (tmp_path / "chars").write_text("a")
    assert read("--tokenize", "chars") == (Reading(tokenize="rules"), ("chars",))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--format", "tsv", "--text-column", "2", "--quotes", "text", "--separator", "pipe", "--no-header"],
        ["--tokenize"],
        ["--tokenize", "icu", "--header", "--no-comments"],
        ["--empty-token", "skip", "--boundaries", "punctuation,80"],
    ],
)
def test_the_words_that_mean_the_same(words):
    reading, _ = read(*words)
    assert read(*reading.arguments()) == (reading, ())


def test_labels_get_names(tmp_path):
    (tmp_path / "a.csv").write_text("text,y\na b,1\n")
    reading, _ = read("--label-names", "O,X")
    assert [example.labels for example in reading.open(str(tmp_path / "a.csv"), "y")] == ["X"]
