"""Texts and tables on which reading once went wrong: the right words and labels, or a helpful refusal."""

from pathlib import Path

import pytest

from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.cut_tokens import CutTokens
from featurestore.corpora.observed import ObservedCorpus
from featurestore.errors import CorpusError

TRIALS = Path(__file__).parent / "trials"
SINGS = [(("Anna", "sings"), ("B-PER", "O")), (("Oslo", "sleeps"), ("B-LOC", "O"))]
FILMS = [(("good", "film"), "pos"), (("bad", "film"), "neg")]


def read(name, **options):
    return [(example.tokens, example.labels) for example in open_corpus(TRIALS / name, **options)]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "fasttext.txt",
            {"format": "fasttext", "label": "label"},
            [((*words, "."), label) for words, label in FILMS],
        ),
        ("labels-in-a-cell.tsv", {"label": "label"}, SINGS),
        ("ner.tsv", {"format": "conll", "label": 2}, SINGS),
        (
            "no-header.tsv",
            {"text_column": 4, "label": 2},
            [
                (("Our", "friends", "came", "."), "1"),
                (("Them", "came", "."), "0"),
                (("She", "slept", "."), "1"),
            ],
        ),
        ("semicolons.csv", {"label": "label"}, FILMS),
        ("semicolons.csv", {"text_column": 1, "label": 2}, FILMS),
        (
            "words.txt",
            {"format": "conll", "label": 2},
            [
                (("Anna", "sings", "in", "Oslo", "."), ("B-PER", "O", "O", "B-LOC", "O")),
                (("Berlin", "sleeps", "."), ("B-LOC", "O", "O")),
            ],
        ),
    ],
)  # fmt: skip
def test_read_right(name, options, expected):
    assert read(name, **options) == expected


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fasttext.txt", {}, "line 1: reads as fastText's.*--format fasttext"),
        ("ner.tsv", {}, "line 1: reads as a column file.*--format conll"),
        ("words.txt", {}, "line 1: reads as a column file.*--format conll"),
        ("unsegmented.txt", {"tokenize": True}, "line 1: .*writes no spaces.*--tokenize icu"),
    ],
)
def test_refused(name, options, message):
    with pytest.raises(CorpusError, match=message):
        read(name, **options)


def test_unsegmented_text_is_cut_unless_it_is_parted():
    cut = CutTokens(48)
    cut.see([tokens for tokens, _ in read("unsegmented.txt")])
    assert (cut.n_tokens, cut.n_cut) == (2, 2)
    first, second = (tokens for tokens, _ in read("unsegmented.txt", tokenize="characters"))
    assert (len(first), len(second)) == (30, 26)
    assert first != second


def test_withheld_text_is_warned_of():
    corpus = ObservedCorpus(open_corpus(TRIALS / "text-withheld.conllu"))
    assert [example.tokens for example in corpus] == [("_",) * 3, ("_",) * 2]
    assert [warning.kind for warning in corpus.reading.warnings] == ["withheld-text"]
