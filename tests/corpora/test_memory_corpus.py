"""Corpora of sentences that are in memory already."""

import pytest

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.errors import SentenceError


def test_lists_and_examples():
    labelled = Example(("c",), "pos", "x.tsv", 3)
    corpus = corpus_from_sentences([["a", "b"], labelled], name="mine")
    assert isinstance(corpus, Corpus)
    assert (corpus.path, corpus.format, corpus.n_bytes, corpus.bytes_read) == ("mine", "memory", None, 0)
    assert list(corpus) == list(corpus) == [Example(("a", "b")), labelled]
    corpus.check_unchanged()


def test_a_generator_is_read_once_and_kept():
    corpus = corpus_from_sentences([word] for word in "ab")
    assert list(corpus) == list(corpus) == [Example(("a",)), Example(("b",))]


def test_later_changes_to_the_lists_do_not_matter():
    sentence = ["a"]
    corpus = corpus_from_sentences([sentence])
    sentence.append("b")
    assert list(corpus) == [Example(("a",))]


def test_no_sentences_is_an_empty_corpus():
    assert list(corpus_from_sentences([])) == []


@pytest.mark.parametrize("bad", ["a b", [], ["a", ""], ["a", 1], Example(())])
def test_what_is_no_sentence_is_named(bad):
    with pytest.raises(SentenceError, match="mine, sentence 1: "):
        corpus_from_sentences([["a"], bad], name="mine")
