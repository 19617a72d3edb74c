"""A training in memory: it learns, measures what it says, and follows its learning rate."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from featurestore.errors import ModelError, UsageError
from featurestore.pretraining.objective import NextWord
from featurestore.pretraining.settings import PretrainConfig
from featurestore.pretraining.streams import Text
from featurestore.pretraining.trainer import Trainer
from featurestore.pretraining.vocabulary import Vocabulary
from tests.kit.pretraining import QUICK, TINY, drawn_text

CYCLE = [[*"abcdefgh"][i % 8 :] + [*"abcdefgh"][: i % 8] for i in range(24)]
"""Each word tells its neighbours; by their frequencies alone every word is as likely as the others."""


def trainer_of(sentences, config=QUICK, options=TINY, **changed) -> Trainer:
    config = replace(config, **changed)
    text = Text.of(sentences)
    vocabulary = Vocabulary.of_counts(text.counts(), min_count=config.min_count, max_words=config.max_words)
    return Trainer(options, config, text, vocabulary, device=torch.device("cpu"))


def train(trainer: Trainer) -> list[float]:
    return [trainer.advance()[0] for _ in range(trainer.n_steps_in_all)]


@pytest.mark.parametrize(
    ("optimizer", "lr", "epochs", "precision"),
    [("adamw", 0.03, 15, "float32"), ("adagrad", 0.5, 25, "float32"), ("adamw", 0.03, 15, "bfloat16")],
)
def test_learns_what_follows_what(optimizer, lr, epochs, precision):
    trainer = trainer_of(
        CYCLE,
        optimizer=optimizer,
        lr=lr,
        epochs=epochs,
        precision=precision,
        dropout=0.0,
        character_dropout=0.0,
        n_streams=4,
        n_steps=6,
    )
    losses = train(trainer)
    unigram = math.log(8) * 8 / 9 + math.log(9) / 9
    assert losses[0] > unigram - 0.3
    # Only a sentence's first word and its end are hard to foresee.
    assert np.mean(losses[-8:]) < 0.6 * unigram
    found = trainer.perplexity(Text(trainer._text.types, *_part(CYCLE[:8], trainer._text.types)))
    assert max(found.forward, found.backward) < math.exp(0.6 * unigram)
    assert found.mean == pytest.approx(math.sqrt(found.forward * found.backward))


def _part(sentences, types):
    tokens = np.array([types.index(word) for sentence in sentences for word in sentence], np.int32)
    return tokens, np.cumsum([len(sentence) for sentence in sentences])


def test_perplexity_is_that_of_words_read_one_by_one():
    sentences = drawn_text(60, seed=3)
    trainer = trainer_of(sentences, epochs=2, min_count=30)
    train(trainer)
    types = trainer._text.types
    # Few enough for one stream of one chunk, so that every position is known.
    text = Text(types, *_part(sentences[:4], types))
    assert text.n_tokens + 2 * text.n_sentences <= 36

    vocabulary = Vocabulary.of_counts(trainer._text.counts(), min_count=30, max_words=100)
    assert vocabulary.classes(["Pneumonoultramicroscopicsilico", "nowhere"])[1] == 2
    trainer.network.eval()
    log_probabilities: list[list[float]] = [[], []]
    sequences = [
        [w for s in sentences[:4] for w in ["<S>", *s, "</S>"]],
        [w for s in sentences[:4] for w in ["</S>", *s[::-1], "<S>"]],
    ]
    state = trainer.network.initial_state(1)
    with torch.no_grad():
        for position in range(len(sequences[0]) - 1):
            read = np.array([[[types.index(sequence[position])]] for sequence in sequences], np.int32)
            outputs, state = trainer.network(trainer._vectors(read), state)
            table = trainer.objective.softmax.log_prob(outputs[:, 0, 0])
            torch.testing.assert_close(table.exp().sum(1), torch.ones(2))
            for direction, sequence in enumerate(sequences):
                following = sequence[position + 1]
                if following != ("<S>", "</S>")[direction]:
                    (class_,) = vocabulary.classes([following])
                    log_probabilities[direction].append(table[direction, class_].item())
    found = trainer.perplexity(text)
    assert [len(each) for each in log_probabilities] == [text.n_tokens + 4] * 2
    expected = [math.exp(-np.mean(each)) for each in log_probabilities]
    assert [found.forward, found.backward] == pytest.approx(expected, rel=1e-5)
    assert trainer.perplexity(text) == found


def test_a_vector_does_not_depend_on_the_words_beside_it():
    trainer = trainer_of(drawn_text(30))
    trainer.network.eval()
    with torch.no_grad():
        types = np.arange(len(trainer._text.types), dtype=np.int32)
        together = trainer._vectors(types[::-1])
        for row, type_ in enumerate(types[::-1]):
            alone = trainer._vectors(np.array([[type_, type_]]))
            torch.testing.assert_close(alone[0, 1], together[row], rtol=0, atol=1e-6)


def test_the_learning_rate_rises_and_falls_to_nothing():
    trainer = trainer_of(drawn_text(40), epochs=5, warmup=0.1)
    n = trainer.n_steps_in_all
    assert n == 5 * trainer.steps_per_epoch
    rates = []
    for step in range(n + 1):
        trainer.step = step
        rates.append(trainer.learning_rate)
    highest = round(0.1 * n)
    assert max(rates) == rates[highest - 1] == rates[highest] == QUICK.lr
    assert rates[0] == pytest.approx(QUICK.lr / highest)
    assert (np.diff(rates[:highest]) > 0).all()
    assert (np.diff(rates[highest:]) < 0).all()
    assert rates[n - 1] < 0.02 * QUICK.lr
    assert rates[n] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_a_training_of_one_step_has_a_learning_rate(warmup):
    trainer = trainer_of([["a", "b"]], epochs=1, warmup=warmup)
    assert (trainer.n_steps_in_all, trainer.learning_rate) == (1, QUICK.lr)
    assert train(trainer)[0] > 0


def test_steps_and_passes_are_counted():
    trainer = trainer_of(drawn_text(40), epochs=2)
    read = 0
    for step in range(trainer.n_steps_in_all):
        assert (trainer.step, trainer.epoch) == (step, step // trainer.steps_per_epoch)
        read += trainer.advance()[1]
    assert read == trainer.n_steps_in_all * trainer.tokens_per_step
    assert trainer.tokens_per_step == 20


def test_weights_are_the_seed_s():
    def weights(seed):
        trainer = trainer_of(drawn_text(20), seed=seed, epochs=1)
        train(trainer)
        return trainer.tensors()

    one, again, two = weights(1), weights(1), weights(2)
    assert all(np.array_equal(array, again[name]) for name, array in one.items())
    assert not np.array_equal(one["network.projection"], two["network.projection"])


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_restored_trainer_goes_on_to_the_bit(optimizer, precision):
    def made():
        return trainer_of(drawn_text(30), optimizer=optimizer, precision=precision)

    whole = made()
    straight = train(whole)
    for stop in (0, 3, whole.steps_per_epoch, whole.n_steps_in_all):
        first = made()
        losses = [first.advance()[0] for _ in range(stop)]
        second = made()
        second.restore({name: array.copy() for name, array in first.tensors().items()}, first.step)
        losses += [second.advance()[0] for _ in range(whole.n_steps_in_all - stop)]
        assert losses == straight
        for name, array in second.tensors().items():
            assert np.array_equal(array, whole.tensors()[name]), name


@pytest.mark.parametrize("n_streams", [1, 1000])
def test_a_chunk_without_anything_to_predict_is_no_nan(n_streams):
    # One step of one stream may be the boundary of two sentences in both directions.
    trainer = trainer_of([["a"], ["b"], ["a"], ["b"], ["c"]], n_streams=n_streams, n_steps=1, epochs=2)
    losses = train(trainer)
    assert all(math.isfinite(loss) for loss in losses)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.parameters.values())


def test_markers_and_odd_words_in_the_text():
    odd = ["<S>", "</S>", "<unk>", "<UNK>", "a\udc80", "\ud800", "\x00", "é" * 300, "日" * 20, "a\nb"]
    trainer = trainer_of([odd, odd[::-1], ["a", "b"]], epochs=3, n_streams=1)
    assert all(math.isfinite(loss) for loss in train(trainer))
    assert math.isfinite(trainer.perplexity(trainer._text).mean)


@pytest.mark.parametrize("broken", ["parameter", "gradient"])
def test_a_divergence_is_noticed_before_anything_changes(broken, monkeypatch):
    trainer = trainer_of(drawn_text(20))
    trainer.advance()
    if broken == "parameter":
        with torch.no_grad():
            trainer.network.projection[0, 0] = math.nan
    else:
        trainer.network.projection.register_hook(lambda gradient: gradient * math.inf)
    before = {name: array.copy() for name, array in trainer.tensors().items() if "state." not in name}
    with pytest.raises(ModelError, match="diverged in step 2"):
        trainer.advance()
    for name, array in before.items():
        assert np.array_equal(array, trainer.tensors()[name], equal_nan=True), name
    assert trainer.step == 1


@pytest.mark.parametrize(("dim", "n_classes"), [(1, 5), (8, 5), (8, 2_500), (16, 200_000), (3, 50_000)])
def test_every_word_can_be_told_from_others_whatever_the_size(dim, n_classes):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # torch would warn of tails that project to no dimension.
        warnings.filterwarnings("error" if dim >= 4 else "ignore")
        objective = NextWord(dim, n_classes).eval()
        outputs, classes = torch.randn(4, dim), torch.tensor([0, 2, n_classes - 1, n_classes // 2])
        found = objective(outputs, classes)
    table = objective.softmax.log_prob(outputs)
    torch.testing.assert_close(-table.gather(1, classes[:, None])[:, 0], found)
    torch.testing.assert_close(table.double().exp().sum(1), torch.ones(4).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"n_streams": 0}, {"n_steps": -1}, {"min_count": 0}, {"max_words": 1}, {"lr": 0},
        {"lr": math.nan}, {"lr": math.inf}, {"clip": 0}, {"warmup": 1.5}, {"warmup": math.nan},
        {"dropout": 1}, {"character_dropout": 1}, {"weight_decay": -1},
        {"held_out": 0}, {"held_out": 0.6}, {"optimizer": "sgd"},
        {"precision": "int8"}, {"seed": -1}, {"seed": 2**32},
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PretrainConfig(**wrong)
