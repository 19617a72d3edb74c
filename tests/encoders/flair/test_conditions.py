"""Conditions: what besides tokens decides a Flair sentence's vectors, read from it and put into another."""

from __future__ import annotations

import json
import pickle

import pytest

pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Sentence

from featurestore.encoders.flair import (
    Dependence,
    condition_bytes,
    conditioned,
    flair_sentence,
)
from featurestore.encoders.flair.languages import guess_language
from featurestore.errors import SentenceError, UsageError
from featurestore.keys import sentence_with
from featurestore.recipe import Recipe

EVERYTHING = Dependence(context=4, document_boundaries=True, language=True, whitespace=True)


def linked(*texts: str) -> list[Sentence]:
    sentences = [Sentence(text.split()) for text in texts]
    Sentence.set_context_for_sentences(sentences)
    return sentences


def texts(tokens) -> list[str]:
    return [token.text for token in tokens]


def fields(sentence: Sentence, dependence: Dependence) -> dict:
    raw = condition_bytes(sentence, dependence)
    return json.loads(raw) if raw else {}


GERMAN = ["dies", "ist", "ohne", "jeden", "Zweifel", "ein", "deutscher", "Satz", "."]


class TestDependence:
    def test_goes_through_a_recipe(self):
        for dependence in (EVERYTHING, Dependence(language=True), Dependence(context=1)):
            recipe = Recipe({"kind": "flair", "version": 1, "depends_on": dependence.to_dict()})
            assert Dependence.of(recipe) == dependence
            assert dependence

    def test_a_recipe_without_it_depends_on_tokens_alone(self):
        assert Dependence.of(Recipe({"kind": "elmo", "version": 1})) == Dependence()
        assert not Dependence()
        assert Dependence().to_dict() == {}

    @pytest.mark.parametrize(
        "stated", [{"speaker": True}, {"context": True}, {"language": 1}, "context", {"context": "4"}]
    )
    def test_what_a_flair_sentence_cannot_tell_is_refused(self, stated):
        with pytest.raises(UsageError, match="expected some of context, document_boundaries"):
            Dependence.of(Recipe({"kind": "other", "version": 1, "depends_on": stated}))


class TestReading:
    def test_defaults_need_no_condition(self):
        assert condition_bytes(Sentence(["a", "plain", "sentence"]), EVERYTHING) == b""

    def test_nothing_is_looked_at_that_does_not_matter(self):
        left, middle, right = linked("one two", "three four", "five")
        middle.language_code = "xx"
        middle[0].whitespace_after = 0
        assert condition_bytes(middle, Dependence()) == b""
        assert set(fields(middle, EVERYTHING)) == {"left", "right", "language", "whitespace"}
        assert (left.language_code, right.language_code) == (None, None)

    def test_context_is_cut_to_its_length_over_several_sentences(self):
        sentences = linked("a b", "c d e", "f", "g h", "i j k l")
        assert fields(sentences[2], Dependence(context=3)) == {
            "left": ["c", "d", "e"],
            "right": ["g", "h", "i"],
        }
        assert fields(sentences[0], Dependence(context=3)) == {"right": ["c", "d", "e"]}

    def test_document_boundaries_only_where_they_are_respected(self):
        sentences = linked("a b", "-DOCSTART-", "c d", "e")
        sentences[1].is_document_boundary = True
        respecting = Dependence(context=5, document_boundaries=True)
        assert fields(sentences[2], respecting) == {"right": ["e"]}
        assert fields(sentences[2], Dependence(context=5))["left"] == ["a", "b", "-DOCSTART-"]

    def test_the_language_that_would_be_guessed_is_the_default(self):
        sentence = Sentence(GERMAN)
        sentence.language_code = "de"
        assert condition_bytes(sentence, Dependence(language=True)) == b""
        sentence.language_code = "fr"
        assert fields(sentence, Dependence(language=True)) == {"language": "fr"}

    def test_spaces_as_they_are_but_for_the_last_token(self):
        sentence = Sentence("Well, yes.")
        assert fields(sentence, Dependence(whitespace=True)) == {"whitespace": [0, 1, 0]}
        plain = Sentence(["Well", ",", "yes"])
        plain[-1].whitespace_after = 7
        assert condition_bytes(plain, Dependence(whitespace=True)) == b""

    def test_a_sentence_stays_as_it_was(self):
        sentences = linked("a b", "c", "d")
        lone = Sentence(["alone"])
        before = [dict(vars(sentence)) for sentence in (*sentences, lone)]
        for sentence in (*sentences, lone):
            conditioned(sentence, EVERYTHING)
        assert [dict(vars(sentence)) for sentence in (*sentences, lone)] == before

    def test_equal_surroundings_are_one_sentence(self):
        first, other = (linked("x y", "c d", "z")[1] for _ in range(2))
        assert conditioned(first, EVERYTHING) == conditioned(other, EVERYTHING)
        assert conditioned(Sentence(["c", "d"]), EVERYTHING) == ("c", "d")


class TestPrivateSentences:
    def test_hold_exactly_what_the_condition_says(self):
        sentence = linked("one two three", "Well , yes", "four five")[1]
        sentence.language_code = "fr"
        sentence[0].whitespace_after = 0
        wanted = conditioned(sentence, Dependence(context=2, language=True, whitespace=True))
        private = flair_sentence(wanted)
        assert texts(private) == ["Well", ",", "yes"]
        assert texts(private.left_context(64)) == ["two", "three"]
        assert texts(private.right_context(64)) == ["four", "five"]
        assert private.get_language_code() == "fr"
        assert private.to_plain_string() == "Well, yes"

    def test_and_give_the_same_condition_again(self):
        sentence = linked("one two three", "Well , yes", "four five")[1]
        wanted = conditioned(sentence, EVERYTHING)
        assert conditioned(flair_sentence(pickle.loads(pickle.dumps(wanted))), EVERYTHING) == wanted

    def test_no_condition_is_no_context_even_in_a_batch(self):
        private = [flair_sentence(("a", "b")), flair_sentence(("c",))]
        Sentence.set_context_for_sentences(private)
        assert [texts(s.left_context(9)) + texts(s.right_context(9)) for s in private] == [[], []]

    def test_tokens_survive_as_they_are(self):
        tokens = ("zero\u200bwidth", "\u0080", "two words", " ", "\ufe0f", "e\u0301")
        private = flair_sentence(tokens)
        assert tuple(texts(private)) == tokens
        assert [token.whitespace_after for token in private] == [1, 1, 1, 1, 1, 0]

    def test_the_language_is_guessed_from_tokens_the_same_every_time(self):
        guesses = {flair_sentence(("hand", "in", "hand")).get_language_code() for _ in range(10)}
        assert len(guesses) == 1
        assert guess_language(GERMAN) == "de"
        assert guess_language(["1", "2"]) == "en"

    def test_an_empty_token_is_refused(self):
        with pytest.raises(SentenceError, match=r"1 tokens of 2.*drop empty tokens"):
            flair_sentence(("a", ""))

    @pytest.mark.parametrize(
        "condition",
        [b"\xff", b"[]", b"{}", b'{"left": []}', b'{"left": [1]}', b'{"left": [""]}', b'{"up": ["a"]}',
         b'{"language": 3}', b'{"whitespace": [true, 1]}', b'{"whitespace": "11"}'],
    )  # fmt: skip
    def test_foreign_conditions_are_refused(self, condition):
        with pytest.raises(SentenceError, match="not the condition of a Flair sentence"):
            flair_sentence(sentence_with(("a", "b", "c"), condition))

    def test_spaces_of_another_sentence_are_refused(self):
        condition = condition_bytes(Sentence("Well, yes."), Dependence(whitespace=True))
        with pytest.raises(SentenceError, match="3 numbers of blanks does not fit a sentence of 2 tokens"):
            flair_sentence(sentence_with(("a", "b"), condition))
