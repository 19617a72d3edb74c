"""Training and inference through a real store: learning, determinism, early stopping, order, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import featurestore.models.inference as inference
import featurestore.models.training as training
from featurestore.corpora.example import Example
from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.labels import LabelSet
from featurestore.errors import MissingSentencesError, ModelError, RecipeMismatchError, UsageError
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HEADS, Head
from featurestore.models.inference import evaluate, predict
from featurestore.models.training import TrainConfig, train
from featurestore.recipe import Recipe
from featurestore.store.store import Store

DIM = 12
WORDS = {"the": "DET", "a": "DET", "dog": "NOUN", "cat": "NOUN", "sees": "VERB", "is": "VERB", "red": "ADJ"}
MOODS = ("bad", "good")


def sentences(n: int, seed: int) -> list[tuple[str, ...]]:
    random = np.random.default_rng(seed)
    drawn = {tuple(random.choice(list(WORDS), random.integers(2, 9))) for _ in range(n)}
    return [tuple(map(str, s)) for s in sorted(drawn)]


def tagged(n: int, seed: int) -> list[Example]:
    return [Example(s, tuple(WORDS[w] for w in s)) for s in sentences(n, seed)]


def judged(n: int, seed: int) -> list[Example]:
    """Good sentences have more dogs than cats, which their mean vector shows."""
    clear = [s for s in sentences(n, seed) if s.count("dog") != s.count("cat")]
    return [Example(s, MOODS[s.count("dog") > s.count("cat")]) for s in clear]


def make_store(path, n_layers=1, version=1, magnitude=1.0):
    """Word vectors, of very different scales per dimension, in every layer but the first."""
    random = np.random.default_rng(5)
    scale = magnitude * 10.0 ** random.uniform(-3, 2, DIM)
    vectors = {word: (random.normal(size=DIM) * scale).astype(np.float32) for word in WORDS}
    store = Store.create(
        path, recipe=Recipe({"kind": "test", "version": version}), dim=DIM, n_layers=n_layers, codec="float32"
    )
    with store.write() as session:
        for tokens in sentences(200, 1) + sentences(60, 2):
            values = np.stack([vectors[word] for word in tokens])
            if n_layers > 1:
                values = np.stack([np.zeros_like(values)] + [values] * (n_layers - 1), axis=1)
            session.add(tokens, values)
    return Store.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "one.fs")


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "three.fs", n_layers=3)


def datasets(store, make=tagged):
    dataset = FeatureDataset(store, make(200, 1))
    return dataset, FeatureDataset(store, make(60, 2), labels=dataset.labels, unseen_labels="keep")


def quick(model, **settings):
    """Short trainings, in the precision that every machine has."""
    defaults = {
        "epochs": 40, "patience": 40, "lr": 0.02, "hidden": 16, "dropout": 0.0, "token_budget": 128,
        "precision": "float32",
    }  # fmt: skip
    return TrainConfig(model, **{**defaults, **settings})


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
    table = TrainConfig.sized.__doc__
    assert all(f"{number:g}" in table for number in expected)


def test_the_settings_used_are_saved(store):
    training = train(*datasets(store), TrainConfig("linear-tagger", epochs=2)).model.training
    assert {name: training[name] for name in ("epochs", "patience", "token_budget", "lr")} == {
        "epochs": 2, "patience": 15, "token_budget": 256, "lr": 1e-2
    }  # fmt: skip


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


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> TrainedModel:
    path = tmp_path_factory.mktemp("models") / "tagger.h5"
    train(*datasets(store), quick("bilstm-tagger", epochs=3)).model.save(path)
    return TrainedModel.load(path)


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
