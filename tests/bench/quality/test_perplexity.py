"""Perplexity from a zero, a warm and a carried state scores the same positions as the trainer does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from featurestore.encoders.elmo.model.network import InitialState
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.pretraining.settings import PretrainConfig
from featurestore.pretraining.streams import Text
from featurestore.pretraining.trainer import Trainer
from featurestore.pretraining.vocabulary import Vocabulary
from tests.bench.quality.perplexity import sentence_perplexity, table

SIZES = (9, 4, 13, 1, 7, 20, 3)
"""With two markers each 71 positions: two whole chunks of the trainer's held-out streams."""


@pytest.fixture(scope="module")
def text():
    random = np.random.default_rng(0)
    return Text.of([[f"w{n}" for n in random.integers(0, 12, size).tolist()] for size in SIZES])


@pytest.fixture(scope="module")
def trainer(text, pytestconfig):
    options = ElmoOptions.read(pytestconfig.rootpath / "tests/golden/elmo-tiny/options.json")
    config = PretrainConfig(epochs=1, n_streams=2, n_steps=5, precision="float32", min_count=1)
    vocabulary = Vocabulary.of_counts(text.counts(), min_count=1, max_words=100)
    return Trainer(options, config, text, vocabulary, device=torch.device("cpu"))


def one(text, i):
    return text.select(np.array([i]))


def same(left, right):
    return [left.forward, left.backward] == pytest.approx([right.forward, right.backward], rel=1e-5)


def test_carried_is_what_the_trainer_measures(trainer, text):
    text = text.select(np.arange(len(SIZES)))
    assert text.n_tokens + 2 * text.n_sentences == 71
    assert same(sentence_perplexity(trainer, text, "carried"), trainer.perplexity(text))


def test_zero_scores_each_sentence_alone(trainer, text):
    alone = [sentence_perplexity(trainer, one(text, i), "carried") for i in range(len(SIZES))]
    weights = np.array(SIZES) + 1
    together = sentence_perplexity(trainer, text, "zero")
    for direction in ("forward", "backward"):
        logs = [math.log(getattr(score, direction)) for score in alone]
        assert math.log(getattr(together, direction)) == pytest.approx(np.average(logs, weights=weights))


def test_a_warm_state_of_zeros_is_zero_and_another_is_not(trainer, text):
    options = trainer.network.options
    zeros = InitialState.zeros(options)
    zero = sentence_perplexity(trainer, text, "zero")
    assert same(sentence_perplexity(trainer, text, "warm", zeros), zero)
    ones = InitialState(zeros.hidden + 1, zeros.memory + 1)
    assert not same(sentence_perplexity(trainer, text, "warm", ones), zero)


def test_table_says_how_far_below_the_unigram_each_is():
    rows = [
        {"model": "unigram", "forward": 900.0, "backward": 900.0},
        {"model": "biLM", "forward": 100.0, "backward": 81.0},
    ]
    assert table(rows).splitlines()[2:] == [
        "| unigram | 900.0 | 900.0 | 900.0 | 1.00 x |",
        "| biLM | 100.0 | 81.0 | 90.0 | 10.00 x |",
    ]
