"""Vocabulary and streams: what is predicted from what, every token once in each direction."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import CorpusError, UsageError
from featurestore.pretraining.streams import BEGIN_TYPE, END_TYPE, Streams, Text
from featurestore.pretraining.vocabulary import Vocabulary
from tests.kit.pretraining import drawn_text


def sentences_of(text: Text) -> list[list[str]]:
    starts = [0, *text.ends[:-1]]
    return [
        [text.types[t] for t in text.tokens[a:b]] for a, b in zip(starts, text.ends, strict=True)
    ]  # fmt: skip


def test_the_vocabulary_is_ordered_by_count_then_alphabet():
    counts = Counter({"b": 3, "a": 3, "z": 9, "once": 1, "<S>": 50, "</S>": 50, "<unk>": 7, "<UNK>": 5})
    vocabulary = Vocabulary.of_counts(counts, min_count=2, max_words=10)
    assert vocabulary.words == ("</S>", "<S>", "<UNK>", "z", "a", "b")
    assert vocabulary.classes(["a", "once", "<unk>", "<UNK>", "never", "<S>", "</S>", "z"]) == [
        4, 2, 2, 2, 2, 1, 0, 3,
    ]  # fmt: skip
    assert Vocabulary.of_counts(counts, min_count=2, max_words=2).words[3:] == ("z", "a")
    assert Vocabulary.of_counts(counts, min_count=1, max_words=10**9).words[-1] == "once"
    assert len(vocabulary) == 6


@pytest.mark.parametrize("counts", [{"word": 500}, {"a": 1, "b": 1}, {"<S>": 9, "</S>": 9, "a": 5}, {}])
def test_a_vocabulary_of_fewer_than_two_words_is_refused(counts):
    with pytest.raises(CorpusError, match=r"at least two that occur 2.*--min-count"):
        Vocabulary.of_counts(Counter(counts), min_count=2, max_words=100)


def test_a_vocabulary_begins_with_the_special_words():
    with pytest.raises(UsageError, match="found 'a' 'b'"):
        Vocabulary(["a", "b"])


def test_a_text_comes_back_without_empty_sentences():
    text = Text.of([["a", "b"], [], ["b"], ["<S>", "</S>", "a"]])
    assert sentences_of(text) == [["a", "b"], ["b"], ["<S>", "</S>", "a"]]
    assert (text.n_sentences, text.n_tokens) == (3, 6)
    assert text.types[:2] == ["<S>", "</S>"]
    assert text.counts() == Counter({"a": 2, "b": 2, "<S>": 1, "</S>": 1})


@pytest.mark.parametrize("sentences", [[], [[]], [[], []]])
def test_a_text_without_a_sentence_is_refused(sentences):
    with pytest.raises(CorpusError, match="no sentence"):
        Text.of(sentences)


@pytest.mark.parametrize(
    ("n", "share", "n_held_out"), [(100, 0.1, 10), (2, 0.01, 1), (3, 0.5, 2), (40, 0.5, 20)]
)
def test_the_split_is_disjoint_complete_and_the_seed_s(n, share, n_held_out):
    text = Text.of([f"s{i}", "a"] for i in range(n))
    train, held_out = text.split(share, seed=5)
    assert (train.n_sentences, held_out.n_sentences) == (n - n_held_out, n_held_out)
    assert sorted(sentences_of(train) + sentences_of(held_out)) == sorted(sentences_of(text))
    assert train.types == held_out.types == text.types
    again = text.split(share, seed=5)
    assert [sentences_of(part) for part in again] == [sentences_of(train), sentences_of(held_out)]
    if n == 100:
        assert sentences_of(text.split(share, seed=6)[1]) != sentences_of(held_out)


@pytest.mark.parametrize("n", [1])
def test_one_sentence_cannot_be_split(n):
    with pytest.raises(CorpusError, match="too few to hold out"):
        Text.of([["a"]] * n).split(0.1, seed=0)


def unrolled(streams: Streams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All chunks behind one another: (2, steps of a pass, n_streams)."""
    chunks = [streams.chunk(number) for number in range(len(streams))]
    return tuple(
        np.concatenate([getattr(chunk, name) for chunk in chunks], 1)
        for name in ("inputs", "targets", "scored")
    )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    n_streams=st.integers(1, 50),
    n_steps=st.integers(1, 30),
    order_seed=st.none() | st.integers(0, 2**32),
)
def test_every_token_is_a_target_once_in_each_direction(lengths, n_streams, n_steps, order_seed):
    numbers = iter(range(10_000))
    text = Text.of([f"w{next(numbers)}" for _ in range(n)] for n in lengths)
    streams = Streams(text, n_streams=n_streams, n_steps=n_steps, order_seed=order_seed)
    inputs, targets, scored = unrolled(streams)
    assert inputs.shape == (2, len(streams) * streams.n_steps, streams.n_streams)
    assert 1 <= streams.n_streams <= n_streams
    assert 1 <= streams.n_steps <= n_steps
    # A stream's target is its next input.
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    words = text.n_tokens
    for direction in (0, 1):
        found = Counter(targets[direction].ravel().tolist())
        assert all(n == 1 for type_, n in found.items() if type_ > END_TYPE)
        n_seen = sum(n for type_, n in found.items() if type_ > END_TYPE)
        n_rest = words + 2 * len(lengths) - targets[direction].size
        assert words - n_seen <= n_rest
    # Only the marker with which a direction begins a sentence is not scored.
    assert np.array_equal(scored[0], targets[0] != BEGIN_TYPE)
    assert np.array_equal(scored[1], targets[1] != END_TYPE)
    # The whole has the rest too, all but what does not fill a step of every stream.
    whole = np.concatenate([chunk.targets for chunk in streams.whole()], 1)
    assert np.array_equal(whole[:, : targets.shape[1]], targets)
    assert whole.shape[1] - targets.shape[1] < streams.n_steps
    assert 0 <= words + 2 * len(lengths) - 1 - whole[0].size < streams.n_streams
    # The rest is shorter than one more chunk of every stream, and one token that nothing precedes.
    n_positions = words + 2 * len(lengths)
    assert n_positions - targets[0].size <= streams.n_streams * streams.n_steps + streams.n_streams


def test_each_direction_reads_whole_sentences_and_backward_reads_them_reversed():
    text = Text.of(drawn_text(30))
    streams = Streams(text, n_streams=1, n_steps=4, order_seed=11)
    inputs, targets, _ = unrolled(streams)
    read = [np.concatenate([inputs[d, :1, 0], targets[d, :, 0]]) for d in (0, 1)]
    by_direction = []
    for row, (first, last) in zip(read, [(BEGIN_TYPE, END_TYPE), (END_TYPE, BEGIN_TYPE)], strict=True):
        assert row[0] == first
        ends = np.flatnonzero(row == last)
        assert (row[ends[:-1] + 1] == first).all()
        by_direction.append([part[1:-1].tolist() for part in np.split(row, ends + 1)[:-1]])
    assert by_direction[1] == [part[::-1] for part in by_direction[0]]
    known = sentences_of(text)
    found = [[text.types[t] for t in part] for part in by_direction[0]]
    assert len(found) >= len(known) - 1
    assert not Counter(map(tuple, found)) - Counter(map(tuple, known))
    assert found != known[: len(found)]


def test_the_order_is_the_seed_s():
    text = Text.of(drawn_text(30))

    def first(seed):
        return unrolled(Streams(text, n_streams=3, n_steps=4, order_seed=seed))[0]

    assert np.array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))
    streams = Streams(text, n_streams=2, n_steps=100, order_seed=None)
    assert streams.chunk(0).inputs[0, 1:4, 0].tolist() == text.tokens[:3].tolist()


def test_a_single_word_is_enough_for_a_step():
    streams = Streams(Text.of([["a"]]), n_streams=128, n_steps=20, order_seed=0)
    assert (streams.n_streams, streams.n_steps, len(streams)) == (1, 2, 1)
    chunk = streams.chunk(0)
    assert chunk.inputs[:, :, 0].tolist() == [[BEGIN_TYPE, 2], [END_TYPE, 2]]
    assert chunk.targets[:, :, 0].tolist() == [[2, END_TYPE], [2, BEGIN_TYPE]]
    assert chunk.scored.all()
