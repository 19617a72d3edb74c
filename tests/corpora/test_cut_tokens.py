"""Counting tokens whose end an encoder does not see."""

import pytest

from featurestore.corpora.cut_tokens import CutTokens
from featurestore.encoders.elmo.model.characters import character_ids


def counted(*sentences, bound=48):
    cut = CutTokens(bound)
    cut.see(sentences)
    return cut.n_tokens, cut.n_cut, cut.n_bytes, cut.n_unseen_bytes


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (("a", "b" * 48), (2, 0, 49, 0)),
        (("a", "b" * 49), (2, 1, 50, 1)),
        (("今" * 16,), (1, 0, 48, 0)),
        (("今" * 17,), (1, 1, 51, 3)),
        (("ä" * 24, "ä" * 25, "x" * 100), (3, 2, 198, 54)),
        (("\ud800" * 100,), (1, 0, 0, 0)),
        (tuple("word" for _ in range(100)), (100, 0, 400, 0)),
    ],
)
def test_tokens_beyond_the_bound_are_counted_in_bytes(sentence, expected):
    assert counted(sentence) == expected


def test_what_is_cut_is_what_an_elmo_does_not_see():
    # ELMo has 50 positions a token; the begin and the end of the word take two.
    for token in ("今天下午市政府在新闻发布会上宣布", "x" * 48, "é" * 24, "😀" * 12):
        for longer, n_cut in ((token, 0), (token + "a", 1), (token + "b", 1)):
            assert counted((longer,))[1] == n_cut
        one, other = (character_ids([token + end], 50)[0] for end in "ab")
        assert (one == other).all()


def test_sums_over_sentences_and_the_first_one_cut():
    cut = CutTokens(4)
    cut.see([("a", "bcdef"), ("ghijkl",)])
    cut.see([("mnopq" * 20,)])
    assert (cut.n_tokens, cut.n_cut, cut.n_bytes, cut.n_unseen_bytes) == (4, 3, 112, 99)
    assert cut.first == "bcdef"
