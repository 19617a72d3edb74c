"""Training and inference through a real store: learning, determinism, early stopping, order, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import featurestore.models.inference as inference
from featurestore.corpora.contract.example import Example
from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.labels import LabelSet
from featurestore.errors import MissingSentencesError, ModelError, RecipeMismatchError, UsageError
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HEADS, Head
from featurestore.models.inference import evaluate, predict
from featurestore.models.training import TrainConfig, train
from tests.models.separable import DIM, datasets, make_store, quick, sentences, tagged

MOODS = ("bad", "good")


def judged(n: int, seed: int) -> list[Example]:
    """Good sentences have more dogs than cats, which their mean vector shows."""
    clear = [s for s in sentences(n, seed) if s.count("dog") != s.count("cat")]
    return [Example(s, MOODS[s.count("dog") > s.count("cat")]) for s in clear]


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "three.fs", n_layers=3)


@pytest.mark.parametrize("layers", ["store", "layered"])
@pytest.mark.parametrize("model", HEADS)
def test_every_head_learns_a_separable_problem(request, model, layers):
    make = tagged if HEADS[model].label_kind == "token" else judged
    result = train(*datasets(request.getfixturevalue(layers), make), quick(model))
    assert result.scores.value == 1.0
    assert result.history[-1].loss < result.history[0].loss
    weights = result.model.head.layer_weights
    if layers == "store":
        assert weights is None
    else:
        assert sum(weights) == pytest.approx(1)
        assert weights[0] == min(weights), "the first layer holds nothing"


def test_the_same_seed_gives_the_same_file_and_another_seed_another(store):
    def run(seed):
        torch.rand(3)  # the caller's own random numbers must not matter
        return train(*datasets(store), quick("bilstm-tagger", epochs=2, seed=seed)).model.to_bytes()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_training_leaves_the_callers_random_numbers_alone(store):
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(4), np.random.rand(4)
    torch.manual_seed(3)
    np.random.seed(3)
    train(*datasets(store), quick("linear-tagger", epochs=1))
    assert torch.equal(torch.rand(4), expected[0])
    assert (np.random.rand(4) == expected[1]).all()


@pytest.mark.parametrize("wanted", [True, False])
def test_inputs_are_standardised_by_the_training_vectors(store, wanted):
    dataset, dev = datasets(store)
    head = train(dataset, dev, quick("linear-tagger", epochs=1, standardize=wanted)).model.head
    vectors = torch.cat([dataset[i].features for i in range(len(dataset))])
    result = head.standardize(vectors)
    if wanted:
        torch.testing.assert_close(result.mean(dim=0), torch.zeros(DIM), atol=1e-4, rtol=0)
        torch.testing.assert_close(result.std(dim=0, correction=0), torch.ones(DIM), atol=1e-4, rtol=0)
    else:
        assert torch.equal(result, vectors)


def test_dropout_is_on_while_learning_and_off_while_scoring(store, monkeypatch):
    modes = {"loss": set(), "decode": set()}
    for name, seen in modes.items():
        real = getattr(Head, name)

        def spy(self, *arguments, real=real, seen=seen):
            seen.add(self.training)
            return real(self, *arguments)

        monkeypatch.setattr(Head, name, spy)
    dataset, dev = datasets(store)
    model = train(dataset, dev, quick("linear-tagger", epochs=2)).model
    evaluate(model, dev)
    model.head.train()
    evaluate(model, dev)
    assert modes == {"loss": {True}, "decode": {False}}


def test_gradients_are_clipped(store):
    """Clipped to far below AdamW's epsilon, they move nothing; AdamW undoes any lesser scaling."""
    dataset, dev = datasets(store)
    still = train(dataset, dev, quick("linear-tagger", epochs=2, clip=1e-20)).history
    assert still[1].loss == pytest.approx(still[0].loss, rel=0.02)
    moving = train(dataset, dev, quick("linear-tagger", epochs=2)).history
    assert moving[1].loss < 0.9 * moving[0].loss


@pytest.mark.parametrize("model", ["meanpool-classifier", "linear-tagger"])
def test_labels_that_are_all_the_same_are_refused(store, model):
    kind = HEADS[model].label_kind
    same = [Example(s, "good" if kind == "sentence" else ("good",) * len(s)) for s in sentences(50, 1)]
    with pytest.raises(ModelError, match=f"every {kind} of the training corpus has the label 'good'"):
        train(FeatureDataset(store, same), FeatureDataset(store, same), quick(model))


@pytest.mark.parametrize("model", ["bilstm-tagger", "bilstm-crf-tagger", "bilstm-classifier"])
def test_a_model_that_learned_in_bfloat16_is_a_float32_model(store, tmp_path, model):
    make = tagged if HEADS[model].label_kind == "token" else judged
    dataset, dev = datasets(store, make)
    result = train(dataset, dev, quick(model, precision="bfloat16"))
    assert result.scores.value == 1.0
    assert result.model.training["precision"] == "bfloat16"
    assert {tensor.dtype for tensor in result.model.head.state_dict().values()} == {torch.float32}
    result.model.save(tmp_path / "model.h5")
    loaded = TrainedModel.load(tmp_path / "model.h5")
    assert evaluate(loaded, dev).summary() == result.model.scores
    # In evaluation nothing is rounded to bfloat16, whatever the training did.
    inputs = dataset[0].features.unsqueeze(0), torch.tensor([dataset.lengths[0]])
    mask = torch.ones(1, dataset.lengths[0], dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(result.model.head.eval()(*inputs, mask), loaded.head(*inputs, mask))


def test_precision_decides_the_model_and_the_same_one_gives_the_same_file(store):
    def run(precision):
        config = quick("bilstm-tagger", epochs=2, precision=precision)
        return train(*datasets(store), config).model.to_bytes()

    lowered = run("bfloat16")
    assert run("bfloat16") == lowered
    assert run("float32") != lowered
    assert run("auto") in (lowered, run("float32"))


def test_labels_only_the_development_corpus_has_count_as_errors(store, caplog):
    dataset = FeatureDataset(store, tagged(200, 1))
    renamed = [
        Example(e.tokens, tuple(name.replace("ADJ", "NEW") for name in e.labels)) for e in tagged(60, 2)
    ]
    dev = FeatureDataset(store, renamed, labels=dataset.labels, unseen_labels="keep")
    result = train(dataset, dev, quick("linear-tagger"))
    share = sum(e.tokens.count("red") for e in renamed) / sum(len(e.tokens) for e in renamed)
    assert result.scores.value == pytest.approx(1 - share)
    assert [r.message for r in caplog.records if "NEW" in r.message] == [
        "labels that are not in the training corpus count as errors; 1: NEW"
    ]
    caplog.clear()
    assert evaluate(result.model, dev).value == result.scores.value
    assert ["NEW" in r.message for r in caplog.records] == [True]


@pytest.mark.parametrize(
    ("model", "labels", "kind"),
    [
        ("linear-tagger", lambda tokens: ("X",) * len(tokens), "token"),
        ("meanpool-classifier", lambda _: "X", "sentence"),
    ],
)
def test_one_class_is_nothing_to_learn(store, model, labels, kind):
    same = [Example(tokens, labels(tokens)) for tokens in sentences(30, 1)]
    dataset = FeatureDataset(store, same)
    with pytest.raises(ModelError, match=f"every {kind} of the training corpus has the label 'X'"):
        train(dataset, FeatureDataset(store, same[:5], labels=dataset.labels), quick(model))


def test_what_cannot_be_trained_on_is_refused(store, tmp_path):
    dataset, dev = datasets(store)
    with pytest.raises(ModelError, match="one label per sentence, the training corpus has one label per tok"):
        train(dataset, dev, quick("meanpool-classifier"))
    bare = FeatureDataset(store, sentences(60, 2))
    with pytest.raises(ModelError, match="the development corpus has no labels"):
        train(dataset, bare, quick("linear-tagger"))
    with pytest.raises(ModelError, match="no sentences"):
        train(FeatureDataset(store, []), dev, quick("linear-tagger"))
    other = make_store(tmp_path / "other.fs", version=2)
    with pytest.raises(RecipeMismatchError, match="version"):
        train(dataset, FeatureDataset(other, tagged(60, 2)), quick("linear-tagger"))


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do(tmp_path):
    huge = make_store(tmp_path / "huge.fs", magnitude=1e36)
    with pytest.raises(ModelError, match=r"epoch 1: try a smaller --lr"):
        train(*datasets(huge), quick("linear-tagger", lr=100.0, standardize=False))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("patience", 0),
        ("lr", float("nan")),
        ("clip", 0.0),
        ("weight_decay", -1.0),
        ("seed", -1),
        ("anneal_patience", 0),
        ("precision", "float16"),
        ("model", "gpt"),
    ],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(UsageError, match=field):
        TrainConfig(**{"model": "linear-tagger", field: value})


def test_a_saved_model_scores_as_it_did_in_training(store, trained):
    dev = FeatureDataset(store, tagged(60, 2), labels=LabelSet(trained.label_names), unseen_labels="keep")
    scores = evaluate(trained, dev)
    assert scores.summary() == trained.scores
    assert evaluate(trained, dev, token_budget=8).value == pytest.approx(scores.value)


def test_prediction_keeps_the_order_and_the_examples(store, trained, monkeypatch):
    monkeypatch.setattr(inference, "_CHUNK_SENTENCES", 7)
    examples = tagged(60, 2)
    wanted = [Example(e.tokens, None, "file", line) for line, e in enumerate(examples, 1)]
    found = list(predict(trained, store, iter(wanted)))
    assert [(e.tokens, e.path, e.line) for e in found] == [(e.tokens, e.path, e.line) for e in wanted]
    dev = FeatureDataset(store, examples)
    gold = [label for example in examples for label in example.labels]
    predicted = [label for example in found for label in example.labels]
    assert sum(map(str.__eq__, gold, predicted)) / len(gold) == evaluate(trained, dev).accuracy


def test_prediction_is_lazy_and_ignores_labels(store, trained):
    def endless():
        while True:
            yield from (Example(e.tokens, "a label of another kind") for e in tagged(60, 2))

    labelled = predict(trained, store, endless())
    assert len([next(labelled) for _ in range(5000)]) == 5000


def test_missing_sentences(store, trained):
    examples = [*tagged(60, 2)[:3], Example(("unheard", "of"))]
    with pytest.raises(MissingSentencesError, match="unheard of"):
        list(predict(trained, store, examples))
    assert [e.tokens for e in predict(trained, store, examples[::-1], on_missing="skip")] == [
        e.tokens for e in examples[2::-1]
    ]
    zeros = list(predict(trained, store, examples, on_missing="zeros"))
    assert len(zeros) == 4
    assert len(zeros[-1].labels) == 2


def test_another_store_is_refused_before_anything_is_read(trained, tmp_path):
    other = make_store(tmp_path / "other.fs", version=2)

    def untouchable():
        raise AssertionError("read")
        yield

    with pytest.raises(RecipeMismatchError, match="version: 2 in the store"):
        predict(trained, other, untouchable())
    with pytest.raises(RecipeMismatchError, match="version"):
        evaluate(trained, FeatureDataset(other, tagged(60, 2)))


def test_a_corpus_with_labels_of_another_kind_is_refused(store, trained):
    with pytest.raises(ModelError, match="one label per token, the corpus has one label per sentence"):
        evaluate(trained, FeatureDataset(store, judged(60, 2)))


@pytest.mark.parametrize(
    ("n_tokens", "model", "expected"),
    [
        (1_600, "linear-tagger", (100, 15, 256, 1e-2)),
        (1_600, "bilstm-tagger", (100, 15, 256, 3e-3)),
        (16_000, "bilstm-crf-tagger", (40, 6, 512, 3e-3)),
        (16_000, "linear-tagger", (40, 6, 512, 3e-3)),
        (160_000, "linear-tagger", (30, 4, 2048, 1e-3)),
        (180_000, "meanpool-classifier", (30, 4, 2048, 1e-3)),
    ],
)
def test_settings_left_open_are_those_that_suit_the_size(n_tokens, model, expected):
    sized = TrainConfig(model, hidden=7).sized(n_tokens)
    assert (sized.epochs, sized.patience, sized.token_budget, sized.lr) == expected
    assert sized.hidden == 7
    given = TrainConfig(model, epochs=3, patience=2, lr=0.5, token_budget=99).sized(n_tokens)
    assert (given.epochs, given.patience, given.token_budget, given.lr) == (3, 2, 99, 0.5)
    assert all(f"{number:g}" in TrainConfig.sized.__doc__ for number in expected)


def test_the_settings_used_are_saved(store):
    training = train(*datasets(store), TrainConfig("linear-tagger", epochs=2)).model.training
    assert {name: training[name] for name in ("epochs", "patience", "token_budget", "lr")} == {
        "epochs": 2, "patience": 15, "token_budget": 256, "lr": 1e-2
    }  # fmt: skip
