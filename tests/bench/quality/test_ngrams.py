"""The count-based models of the benchmark are probability distributions and score what they should."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.pretraining.streams import Text
from featurestore.pretraining.vocabulary import Vocabulary
from tests.bench.quality.ngrams import BEGIN, END, Trigram, Unigram, events, perplexity


@pytest.fixture(scope="module")
def text():
    random = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(40)])
    shares = 1 / np.arange(1, 41)
    return Text.of(
        [
            words[random.choice(40, random.integers(1, 9), p=shares / shares.sum())].tolist()
            for _ in range(300)
        ]
    )


@pytest.fixture(scope="module")
def vocabulary(text):
    return Vocabulary.of_counts(text.counts(), min_count=10, max_words=1000)


def test_events_are_the_words_and_the_end_with_two_before_them():
    text = Text.of([["a", "b"], ["b"]])
    vocabulary = Vocabulary(("</S>", "<S>", "<UNK>", "a", "b"))
    forward = np.array(events(text, vocabulary, backward=False)).T.tolist()
    assert forward == [
        [BEGIN, BEGIN, 3], [BEGIN, 3, 4], [3, 4, END], [BEGIN, BEGIN, 4], [BEGIN, 4, END],
    ]  # fmt: skip
    backward = np.array(events(text, vocabulary, backward=True)).T.tolist()
    assert backward == [[END, END, 4], [END, 4, 3], [4, 3, BEGIN], [END, END, 4], [END, 4, BEGIN]]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("model", [Unigram, Trigram])
def test_probabilities_sum_to_one_in_every_context(text, vocabulary, model, backward):
    first = END if backward else BEGIN
    training = events(text, vocabulary, backward=backward)
    fitted = model(training, len(vocabulary), first=first)
    predictable = np.array([c for c in range(len(vocabulary)) if c != first])
    seen = list(zip(*(part[:50] for part in training[:2]), strict=True))
    for before, previous in [*seen, (first, first), (5, 5), (len(vocabulary) - 1, 2)]:
        context = (np.full_like(predictable, before), np.full_like(predictable, previous))
        probabilities = fitted.probabilities((*context, predictable))
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-9)


def test_a_trigram_learns_what_a_unigram_cannot():
    cycle = Text.of([["a", "b", "c", "a", "b", "c", "a", "b", "c"]] * 20)
    vocabulary = Vocabulary.of_counts(cycle.counts(), min_count=1, max_words=10)
    training = events(cycle, vocabulary, backward=False)
    models = [model(training, len(vocabulary), first=BEGIN) for model in (Unigram, Trigram)]
    unigram, trigram = (perplexity(model.probabilities(training)) for model in models)
    assert unigram > 3.5
    assert trigram < 1.5


def test_interpolation_is_the_textbook_formula():
    """With a hand-made corpus: discounts fall back to fixed ones, everything else by hand."""
    text = Text.of([["a", "b"], ["a", "b"], ["a", "c"]])
    vocabulary = Vocabulary(("</S>", "<S>", "<UNK>", "a", "b", "c"))
    training = events(text, vocabulary, backward=False)
    model = Trigram(training, len(vocabulary), first=BEGIN)
    # Continuations: a after <S>; b after a; c after a; </S> after b and c.
    one = (1 - 0.5) / 5 + (3 * 0.5 + 0.75) / 5 / 5
    two = (1 - 0.5) / 2 + (0.5 + 0.5) / 2 * one
    three = (2 - 0.75) / 3 + (0.75 + 0.5) / 3 * two
    found = model.probabilities((np.array([BEGIN]), np.array([3]), np.array([4])))
    assert found[0] == pytest.approx(three)
