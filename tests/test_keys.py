"""The key of a sentence: the documented rule written out again, and that no two sentences share one."""

from __future__ import annotations

import copy
import hashlib
import pickle
import struct
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import limits
from featurestore.errors import SentenceError
from featurestore.keys import (
    KEY_BYTES,
    ConditionedSentence,
    check_sentence,
    condition_of,
    require_sentence,
    sentence_key,
    sentence_with,
    token_bytes,
)

TOKENS = st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=4)
SENTENCES = st.lists(TOKENS, min_size=1, max_size=5)
CONDITIONS = st.binary(max_size=5)
"""Empty: none."""

unhurried = settings(deadline=None)
"""A busy machine may take a second over anything."""


def key_by_the_rule(tokens: list[str], condition: bytes = b"") -> bytes:
    message = b""
    for token in tokens:
        raw = token.encode("utf-8", "surrogatepass")
        message += struct.pack("<I", len(raw)) + raw
    secret = hashlib.blake2b(condition, digest_size=32).digest() if condition else b""
    return hashlib.blake2b(message, digest_size=16, key=secret).digest()


@pytest.mark.parametrize(
    ("tokens", "digits"),
    [
        (["a"], "8fa1c09e26388b471b7209348e734e43"),
        (["The", "cat", "sat", "."], "26ea80aca8a27d6a595f589a534fa234"),
        (["naïve", "😀"], "8754b2a95fc9922c593501e51914224f"),
        (["\ud800"], "0d905b47f93a9457a00751888c04307d"),
    ],
)
def test_key_of_published_vectors_never_changes(tokens, digits):
    assert sentence_key(tokens).hex() == digits


@pytest.mark.parametrize(
    "tokens",
    [
        ["\ud800", "\udfff"],
        ["👩‍👩‍👧", "🇩🇪"],
        ["\0", "a\0b"],
        ["a/b", "/", "\\"],
        ["x" * 300, "ß" * 150],
        [f"token{i}" for i in range(10_000)],
    ],
    ids=["surrogates", "emoji", "nul", "slash", "300 bytes", "10,000 tokens"],
)
def test_key_of_odd_tokens_follows_the_rule(tokens):
    assert sentence_key(tokens) == key_by_the_rule(tokens)
    assert len(sentence_key(tokens)) == KEY_BYTES


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a b"], ["a", "b"]),
        (["a", "b c"], ["a b", "c"]),
        (["a"], ["a", "a"]),
        (["a", "b"], ["b", "a"]),
        (["The"], ["the"]),
        (["a"], ["a "]),
        (["a\x01\0\0\0b"], ["a", "b"]),
        ([unicodedata.normalize("NFC", "é")], [unicodedata.normalize("NFD", "é")]),
    ],
)
def test_different_sentences_have_different_keys(one, other):
    assert sentence_key(one) != sentence_key(other)


def test_list_and_tuple_of_the_same_tokens_have_one_key():
    assert sentence_key(["a", "b"]) == sentence_key(("a", "b"))


@unhurried
@given(SENTENCES)
def test_key_follows_the_rule_for_any_tokens(tokens):
    assert sentence_key(tokens) == key_by_the_rule(tokens)


@unhurried
@given(SENTENCES, SENTENCES)
def test_keys_are_equal_only_for_equal_tokens(one, other):
    assert (sentence_key(one) == sentence_key(other)) == (one == other)


@unhurried
@given(st.text(st.characters(codec="utf-8"), min_size=2, max_size=12), st.data())
def test_where_a_text_is_split_changes_its_key(text, data):
    splits = st.integers(1, len(text) - 1)
    one, other = data.draw(splits), data.draw(splits)
    same = sentence_key([text[:one], text[one:]]) == sentence_key([text[:other], text[other:]])
    assert same == (one == other)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("a sentence", "not one str.*text.split"),
        (b"bytes", "not one bytes"),
        (7, r"a list or tuple of tokens, not one int \(7\)"),
        (None, "not one NoneType"),
        ({"a", "b"}, "not one set"),
        (iter(["a"]), "not one list_iterator"),
        ([], "at least one token"),
        (["a", "", "b"], "token 1 of 3 is empty"),
        (["a", 7], r"token 1 is a int \(7\)"),
        (["a", None], "token 1 is a NoneType"),
        (["a", ["b"]], r"token 1 is a list \(\['b'\]\)"),
        ([b"a"], "token 0 is a bytes"),
        (["x" * (limits.MAX_TOKEN_BYTES + 1)], "token 0 has 1,048,577 bytes"),
        (["x"] * (limits.MAX_SENTENCE_TOKENS + 1), "1,000,001 tokens exceeds the bound of 1,000,000"),
    ],
    ids=[
        "str",
        "bytes",
        "a number",
        "nothing",
        "a set",
        "an iterator",
        "no tokens",
        "empty token",
        "int",
        "None",
        "list",
        "bytes token",
        "long token",
        "long sentence",
    ],
)
@pytest.mark.parametrize("judge", [sentence_key, token_bytes, check_sentence, require_sentence])
def test_what_is_no_sentence_is_refused_with_the_reason(tokens, message, judge):
    check_sentence(["a", "b", "x"])  # what was checked before is remembered
    with pytest.raises(SentenceError, match=message):
        judge(tokens)


# -- conditions


@pytest.mark.parametrize(
    ("tokens", "condition", "digits"),
    [
        (["a"], b"{}", "3bee336c0893b32d362194bd802d3305"),
        (["The", "cat", "sat", "."], b'{"left":["Look","!"]}', "52f5d7c8bf1f7a1cf81e906ee5eccb39"),
        (["a"], b"\0", "807ce9b6d01bf7b0a8cab7697ed2200b"),
    ],
)
def test_key_of_published_conditions_never_changes(tokens, condition, digits):
    assert sentence_key(ConditionedSentence(tokens, condition)).hex() == digits


@unhurried
@given(SENTENCES, CONDITIONS)
def test_key_with_a_condition_follows_the_rule(tokens, condition):
    assert sentence_key(sentence_with(tokens, condition)) == key_by_the_rule(tokens, condition)


@unhurried
@given(SENTENCES, CONDITIONS, SENTENCES, CONDITIONS)
def test_sentences_are_equal_where_their_keys_are(tokens, condition, other_tokens, other_condition):
    one, other = sentence_with(tokens, condition), sentence_with(other_tokens, other_condition)
    same = (tokens, condition) == (other_tokens, other_condition)
    assert (sentence_key(one) == sentence_key(other)) == same
    assert (one == other) == (other == one) == same
    assert (one != other) == (not same)
    assert len({one, other}) == (1 if same else 2)


@unhurried
@given(SENTENCES)
def test_the_same_tokens_with_another_condition_are_another_sentence(tokens):
    plain, one, other = (sentence_with(tokens, condition) for condition in (b"", b"1", b"2"))
    assert plain == tuple(tokens)
    assert len({plain, one, other}) == len({sentence_key(s) for s in (plain, one, other)}) == 3
    assert tuple(one) == tuple(other) == plain


@pytest.mark.parametrize("again", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])
def test_a_copied_sentence_keeps_its_condition(again):
    sentence = ConditionedSentence(["a", "b"], b"x")
    assert again(sentence) == sentence
    assert (again(sentence).condition, list(again(sentence))) == (b"x", ["a", "b"])


def test_checking_a_sentence_keeps_its_condition():
    sentence = ConditionedSentence(["a", "b"], b"x")
    assert require_sentence(sentence) == sentence
    assert condition_of(require_sentence(sentence)) == b"x"
    assert condition_of(require_sentence(["a", "b"])) == b""
    with pytest.raises(SentenceError, match="token 1 of 2 is empty"):
        require_sentence(ConditionedSentence(["a", ""], b"x"))


def test_a_condition_is_neither_empty_nor_huge():
    ConditionedSentence(["a"], bytes(limits.MAX_CONDITION_BYTES))
    for condition in (b"", bytes(limits.MAX_CONDITION_BYTES + 1)):
        with pytest.raises(SentenceError, match="not between 1 and 1,048,576"):
            ConditionedSentence(["a"], condition)
