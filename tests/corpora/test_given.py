"""What may be given where corpora are wanted: to extract, to a dataset, to a model."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path

import pytest

from featurestore import Example, open_corpus
from featurestore.corpora.given import as_corpora, read_examples
from featurestore.errors import CorpusError, SentenceError, UsageError


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("a b\nc\n")
    second.write_text("d\n")
    return [first, second]


def everything(given) -> list[tuple[str, ...]]:
    """Return the sentences, read in both ways."""
    made = given if callable(given) else lambda: given
    lazily = list(read_examples(made()))
    assert list(chain.from_iterable(as_corpora(made()))) == lazily
    return [example.tokens for example in lazily]


@pytest.mark.parametrize("make", [str, Path, open_corpus])
def test_a_path_or_a_corpus_alone_or_several(paths, make):
    assert everything(make(paths[0])) == [("a", "b"), ("c",)]
    assert everything([make(paths[0])]) == [("a", "b"), ("c",)]
    assert everything(tuple(map(make, paths))) == [("a", "b"), ("c",), ("d",)]
    assert everything(lambda: map(make, paths)) == [("a", "b"), ("c",), ("d",)]


def test_sentences_in_memory(paths):
    assert everything([["a", "b"], ("c",)]) == [("a", "b"), ("c",)]
    assert everything([Example(("a",), "x"), ["b"]]) == [("a",), ("b",)]
    assert everything(lambda: ([word] for word in "ab")) == [("a",), ("b",)]
    assert everything([]) == []
    assert everything(lambda: iter(())) == []


def test_no_more_is_read_than_is_asked_for():
    read = read_examples([str(number)] for number in count())
    assert [next(read).tokens for _ in range(3)] == [("0",), ("1",), ("2",)]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([["a"], "b c"], SentenceError, r"sentence 1: a sentence is a list of tokens, not one str \('b c'\)"),
        ([["a"], []], SentenceError, r"\(memory\), sentence 1: a sentence needs at least one token"),
        ([["a"], 3], SentenceError, "sentence 1: a sentence is a list or tuple of tokens, not one int"),
        (["The cat sat."], CorpusError, "The cat sat.: no such file: .* give it as a list of tokens"),
        (["The", "cat"], CorpusError, "The: no such file: .* if it is a sentence"),
        ("nowhere.txt", CorpusError, "nowhere.txt: no such file: check the path$"),
        (3, UsageError, r"a int is no corpus: expected a path, open_corpus\(path\), or lists of tokens"),
        (None, UsageError, "a NoneType is no corpus"),
        (Example(("a",)), UsageError, "a Example is no corpus"),
    ],
)  # fmt: skip
def test_what_cannot_be_one_is_told_what_can(given, error, said):
    with pytest.raises(error, match=said):
        as_corpora(given)
    with pytest.raises(error, match=said):
        list(read_examples(given))
