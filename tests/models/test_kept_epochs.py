"""When a training stops and what it keeps: patience, halved rates, averages, interrupts, class weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import featurestore.models.inference as inference
import featurestore.models.training as training
from featurestore.corpora.contract.example import Example
from featurestore.errors import UsageError
from featurestore.models.training import TrainConfig, train
from tests.models.separable import datasets, quick, sentences


def scripted(monkeypatch, scores):
    """Let the development scores be these, whatever the head does."""
    real, script = inference.score_head, iter(scores)

    def fake(*arguments, **options):
        found = real(*arguments, **options)
        return type(found)(**{**vars(found), "accuracy": next(script)})

    monkeypatch.setattr(training, "score_head", fake)


def test_early_stopping_keeps_the_best_epoch(store, monkeypatch):
    scripted(monkeypatch, [0.5, 0.7, 0.6, 0.69, 0.1])
    result = train(*datasets(store), quick("linear-tagger", patience=2))
    assert [epoch.score for epoch in result.history] == [0.5, 0.7, 0.6, 0.69]
    assert result.best_epoch == 2
    assert result.scores.value == result.model.scores["value"] == 0.7

    def weights_after(n_epochs):
        scripted(monkeypatch, [0.1 * n for n in range(n_epochs)])
        return train(*datasets(store), quick("linear-tagger", epochs=n_epochs)).model.head.output.weight

    assert torch.equal(result.model.head.output.weight, weights_after(2))
    assert not torch.equal(result.model.head.output.weight, weights_after(4))


@pytest.mark.parametrize(
    ("anneal_patience", "halvings"),
    [(1, [0, 0, 1, 2, 2, 3, 4]), (2, [0, 0, 0, 1, 1, 1, 2]), (4, [0] * 7), (None, [0] * 7)],
)
def test_the_learning_rate_is_halved_when_the_score_gets_no_better(
    store, monkeypatch, anneal_patience, halvings
):
    scripted(monkeypatch, [0.5, 0.4, 0.5, 0.6, 0.6, 0.6, 0.1, 0.1])
    config = quick("linear-tagger", epochs=7, patience=4, anneal_patience=anneal_patience)
    rates = [epoch.lr for epoch in train(*datasets(store), config).history]
    assert rates == [0.02 / 2**n for n in halvings]


def test_a_smaller_learning_rate_learns_less(store, monkeypatch):
    def losses(**settings):
        scripted(monkeypatch, [1.0] + [0.0] * 24)
        history = train(*datasets(store), quick("linear-tagger", epochs=6, lr=1e-3, **settings)).history
        return [epoch.loss for epoch in history]

    constant, annealed = losses(), losses(anneal_patience=1)
    assert annealed[:2] == constant[:2]
    assert annealed[-1] > 1.1 * constant[-1]


def test_the_model_kept_is_the_average_of_the_last_steps(store, monkeypatch):
    def trained(average_steps):
        """Return the model's weights, and those before the first step and after each."""
        seen, step = [], torch.optim.AdamW.step

        def note(optimizer):
            seen.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])

        def recording(optimizer, *arguments, **options):
            if not seen:
                note(optimizer)
            step(optimizer, *arguments, **options)
            note(optimizer)

        scripted(monkeypatch, [0.1, 0.2, 0.3])
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", recording)
            config = quick("linear-tagger", epochs=3, average_steps=average_steps)
            head = train(*datasets(store), config).model.head
        return list(head.parameters()), seen

    last, weights = trained(1)
    assert len(weights) > 10
    assert all(map(torch.equal, last, weights[-1]))
    for steps in (2, 500):
        average, same = trained(steps)
        # Averaging does not meddle with the training itself.
        assert all(torch.equal(a, b) for a, b in zip(weights[-1], same[-1], strict=True))
        expected = weights[0]
        for n, now in enumerate(weights[1:], start=1):
            share = 1 / min(steps, 1 + n / 10)
            expected = [(1 - share) * old + share * new for old, new in zip(expected, now, strict=True)]
        assert all(map(torch.allclose, average, expected))
        assert not torch.allclose(average[0], last[0])


def spotted(n: int, seed: int) -> list[Example]:
    """Sentences in which a dog is a name, and rare."""
    few = [s for s in sentences(n, seed) if s.count("dog") < 2]
    return [Example(s, tuple("B-PET" if word == "dog" else "O" for word in s)) for s in few]


@pytest.mark.parametrize("model", ["linear-tagger", "bilstm-tagger", "bilstm-crf-tagger"])
def test_a_tagger_of_rare_spans_is_not_stopped_before_it_finds_one(store, model):
    """It labels all O for longer than its patience; a first epoch that guesses must not be kept."""
    config = quick(model, lr=5e-4, patience=8, epochs=200, token_budget=400)
    result = train(*datasets(store, spotted), config)
    assert (result.scores.metric, result.scores.baseline.label) == ("span_f1", "O")
    history = [epoch.score for epoch in result.history]
    stuck = next(number for number, score in enumerate(history) if score > max(history[0], 0.1))
    assert stuck > 8 or model == "bilstm-tagger"
    assert result.scores.value > 0.9
    assert result.doubts == ()


def test_a_model_that_has_learned_nothing_is_said_to(store, caplog):
    result = train(*datasets(store, spotted), quick("linear-tagger", lr=1e-3, epochs=3))
    assert not result.scores.above_baseline
    assert [reason.split(":")[0] for reason in result.doubts] == [
        "the model has learned nothing", "the last of the 3 epochs allowed was the best"
    ]  # fmt: skip
    assert [record.message for record in caplog.records] == list(result.doubts)


def test_class_weights_find_the_rare_class(store):
    """Of a class of one in ten, a briefly trained head finds more if it weighs as much as the common one."""

    def rare(n, seed):
        return [Example(s, ("NO", "YES")[{"dog", "cat", "red"} <= set(s)]) for s in sentences(n, seed)]

    def recall(**settings):
        config = quick("meanpool-classifier", epochs=4, lr=3e-3, average_steps=1, **settings)
        result = train(*datasets(store, rare), config)
        return {row.name: row.recall for row in result.scores.per_label}["YES"], result.model.training

    unweighted, _ = recall()
    balanced, settings = recall(class_weights="balanced")
    by_hand, saved = recall(class_weights={"YES": 9})
    assert unweighted < balanced
    assert unweighted < by_hand
    assert settings["class_weights"] == "balanced"
    assert saved["class_weights"] == {"YES": 9.0}


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["a"] * 7 + ["b"] * 2 + ["c"]
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    config = TrainConfig("linear-tagger", class_weights="balanced")
    assert config.weights_of_classes({"a": 7, "b": 2, "c": 1}).tolist() == pytest.approx(expected)
    # A label of the set that the corpus has not changes nothing.
    assert config.weights_of_classes({"a": 7, "b": 2, "c": 1, "d": 0}).tolist() == pytest.approx(
        [*expected, 1.0]
    )
    assert TrainConfig("linear-tagger").weights_of_classes({"a": 1}) is None


@pytest.mark.parametrize(
    ("model", "weights", "says"),
    [
        ("bilstm-crf-tagger", "balanced", "a CRF scores whole label sequences"),
        ("linear-tagger", "even", "class_weights='even': expected 'balanced'"),
        ("linear-tagger", {"NOUN": 0}, "above 0"),
        ("linear-tagger", {"NOUN": float("nan")}, "above 0"),
        ("linear-tagger", {"NUON": 2.0}, "names 'NUON', which the training corpus does not have"),
    ],
)
def test_class_weights_that_make_no_sense_are_refused(store, model, weights, says):
    with pytest.raises(UsageError, match=says):
        train(*datasets(store), quick(model, class_weights=weights))


def test_an_interrupt_keeps_the_best_epoch_so_far(store):
    def interrupt(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    result = train(*datasets(store), quick("linear-tagger"), on_epoch=interrupt)
    assert result.interrupted
    assert len(result.history) == 2
    assert result.model.label_names == ("ADJ", "DET", "NOUN", "VERB")


def test_an_interrupt_before_the_first_epoch_is_an_interrupt(store, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "score_head", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(*datasets(store), quick("linear-tagger"))
