"""The rule tokeniser, through its two functions and through text files."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.readers.tokenizer import split_sentences, tokenize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", "Hello | , | world | !"),
        ("I don't think it's Ann's.", "I | do | n't | think | it | 's | Ann | 's | ."),
        ("We'll say they’ve won’t", "We | 'll | say | they | ’ve | wo | n’t"),
        ("I shouldn't've, CANNOT", "I | should | n't | 've | , | CAN | NOT"),
        ("rock'n'roll O'Brien dogs' n't", "rock'n'roll | O'Brien | dogs | ' | n't"),
        ("well-known 20-year-old", "well-known | 20-year-old"),
        ("$1,000.50 and 5.2% at 10:30am", "$ | 1,000.50 | and | 5.2 | % | at | 10:30am"),
        ("on 3/4/2021, 60cm, 5th.", "on | 3/4/2021 | , | 60cm | , | 5th | ."),
        ("the U.S. vs. Mr. J. R. Smith", "the | U.S. | vs. | Mr. | J. | R. | Smith"),
        ("e.g. tea etc.", "e.g. | tea | etc."),
        ("(see https://x.org/a_(b)?q=1.)", "( | see | https://x.org/a_(b)?q=1 | . | )"),
        ("www.x.com, me.you@x-y.org; @bob #fun", "www.x.com | , | me.you@x-y.org | ; | @bob | #fun"),
        ("wait... what?! -- no!!", "wait | ... | what | ?! | -- | no | !!"),
        ("nice :) sad ;-( (a):b", "nice | :) | sad | ;-( | ( | a | ) | : | b"),
        ("cafe\u0301 हिन्दी Straße «naïve»", "cafe\u0301 | हिन्दी | Straße | « | naïve | »"),
        ("👍🏽👨\u200d👩\u200d👧🇩🇪🇫🇷1\ufe0f\u20e3", "👍🏽 | 👨\u200d👩\u200d👧 | 🇩🇪 | 🇫🇷 | 1\ufe0f\u20e3"),
        ("a\u00a0b\u2003c", "a | b | c"),
        ("C# x/y", "C | # | x | / | y"),
        ("", ""),
        (" \t ", ""),
    ],
)
def test_tokens(text, expected):
    assert tokenize(text) == tuple(expected.split(" | ") if expected else ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One .", "Two !", "Three ?"]),
        ('He said "stop." She left.', ['He said " stop . "', "She left ."]),
        ("(It rained.) Then sun.", ["( It rained . )", "Then sun ."]),
        ("Mr. Smith of the U.S. Senate spoke. Fine.", ["Mr. Smith of the U.S. Senate spoke .", "Fine ."]),
        ("Well... maybe. So do I. Then", ["Well ... maybe .", "So do I .", "Then"]),
        ("It cost 3.50. 20 came.", ["It cost 3.50 .", "20 came ."]),
        ("no.Space here", ["no . Space here"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert [" ".join(sentence) for sentence in split_sentences(text)] == expected


def test_a_line_of_a_text_file_may_hold_several_sentences(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_text("One. Two.\n\nIt's three.\n", encoding="utf-8")
    found = [(" ".join(example.tokens), example.line) for example in open_corpus(path, tokenize=True)]
    assert found == [("One .", 1), ("Two .", 1), ("It 's three .", 3)]


def test_an_initial_is_one_by_what_follows_not_by_how_it_was_met_before():
    for _ in range(2):
        assert tokenize("by J. Smith") == ("by", "J.", "Smith")
        assert tokenize("vitamin J. was") == ("vitamin", "J", ".", "was")
        assert tokenize("A. J. K. and J.") == ("A.", "J.", "K", ".", "and", "J", ".")
        assert tokenize("vitamin J.\nSmith") == ("vitamin", "J.", "Smith")


def test_many_other_words_change_no_tokens():
    text = "Mr. J. Smith can't see https://x.org/a, " + "x" * 100 + "'s."
    before = tokenize(text)
    for i in range(100):
        tokenize(" ".join(f"w{i}x{j}." for j in range(1000)))
    assert tokenize(text) == before == (
        "Mr.", "J.", "Smith", "ca", "n't", "see", "https://x.org/a", ",", "x" * 100, "'s", "."
    )  # fmt: skip


@given(st.text())
def test_nothing_is_lost_or_changed(text):
    kept = re.sub(r"\s", "", text)
    assert "".join(tokenize(text)) == kept
    assert "".join(token for sentence in split_sentences(text) for token in sentence) == kept
    assert "" not in tokenize(text)
    assert () not in split_sentences(text)


@pytest.mark.parametrize(
    "piece", ["a.a+", "a@", "'s", "www.)", "A. ", "http://a.", "a-", "n't", ":", "\u0301", "#"]
)
def test_no_text_takes_more_than_linear_time(piece):
    start = time.perf_counter()
    tokenize(piece * 50_000)
    assert time.perf_counter() - start < 10
