"""What benchmarks read: real text cut and drawn as they say."""

from __future__ import annotations

from tests.bench import texts
from tests.bench.encoding.encode_curves import of_length, up_to

SENTENCES = [("a", "b", "c"), ("d",), ("e", "f")]


def test_the_first_sentences_that_hold_enough():
    assert up_to(SENTENCES, 3) == SENTENCES[:1]
    assert up_to(SENTENCES, 4) == SENTENCES[:2]
    assert up_to(SENTENCES, 99) == SENTENCES


def test_sentences_of_one_length_are_distinct():
    assert of_length(SENTENCES, 2, 99) == [("a", "b"), ("c", "d"), ("e", "f")]
    assert of_length([("a", "a", "a", "a")], 2, 99) == [("a", "a")]


def test_sentences_are_distinct_and_end_when_there_are_enough():
    found = texts.sentences(200, sample=True)
    assert len(set(found)) == len(found)
    n_tokens = sum(map(len, found))
    assert n_tokens - len(found[-1]) < 200 <= n_tokens


def test_without_the_shared_corpora_there_are_the_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "CORPORA", tmp_path / "none")
    away = {split: (tmp_path / "none" / small.name, small) for split, (_, small) in texts.TAGGING.items()}
    monkeypatch.setattr(texts, "TAGGING", away)
    assert texts.sentences() == texts.sentences(sample=True)
    assert texts.source() == "the samples in data/"


def test_sentences_are_drawn_again_where_the_text_is_short(monkeypatch):
    monkeypatch.setattr(texts, "sentences", lambda n: list(SENTENCES))
    found = texts.enough_sentences(1000)
    assert found[:3] == SENTENCES
    assert len(set(found)) == len(found)
    assert set(map(len, found)) == {1, 2, 3}
    assert 1000 <= sum(map(len, found)) <= 1002
    assert found == texts.enough_sentences(1000)
