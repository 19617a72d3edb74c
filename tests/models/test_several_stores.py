"""Models of several stores: what they learn from each, their files, and which stores they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore import FeatureDataset, Recipe, Store
from featurestore.errors import ModelError, RecipeMismatchError, UsageError
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HEADS, HeadConfig, build_head
from featurestore.models.inference import evaluate, predict
from featurestore.models.inputs.recipes import joined
from featurestore.models.inputs.stores import StoreInput
from featurestore.models.training import train
from tests.models.forged import rewrite_metadata
from tests.models.separable import make_store, quick, sentences, tagged

NOISE_DIM = 5


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Store:
    """Vectors that tell the words apart, in two of three layers."""
    return make_store(tmp_path_factory.mktemp("several") / "words", n_layers=3, version=3)


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Store:
    """Vectors of another dimension and codec that tell nothing; of huge values."""
    path = tmp_path_factory.mktemp("several") / "noise"
    store = Store.create(path, recipe=Recipe({"kind": "noise", "version": 1}), dim=NOISE_DIM, codec="int8")
    random = np.random.default_rng(7)
    with store.write() as session:
        for tokens in sentences(200, 1) + sentences(60, 2):
            session.add(tokens, 1000 + 300 * random.normal(size=(len(tokens), NOISE_DIM)).astype(np.float32))
    return Store.open(path)


def datasets(stores, **options) -> tuple[FeatureDataset, FeatureDataset]:
    dataset = FeatureDataset(stores, tagged(200, 1), **options)
    dev = FeatureDataset(stores, tagged(60, 2), labels=dataset.labels, unseen_labels="keep", **options)
    return dataset, dev


@pytest.fixture(scope="module")
def trained(words, noise, tmp_path_factory) -> TrainedModel:
    path = tmp_path_factory.mktemp("several") / "model.h5"
    both = datasets({"words": words, "noise": noise}, as_dict=True)
    train(*both, quick("linear-tagger", epochs=20)).model.save(path)
    return TrainedModel.load(path)


def test_each_store_is_standardised_mixed_and_weighed_for_itself(trained, words, noise):
    dataset, dev = datasets({"words": words, "noise": noise}, as_dict=True)
    assert evaluate(trained, dev).value == 1.0
    head = trained.head
    vectors = {name: [] for name in dataset.stores}
    for features, _, _ in dataset:
        for name, (standardize, part) in zip(dataset.stores, head.inputs(features), strict=True):
            vectors[name].append(standardize(part))
    for of_store in vectors.values():
        found = torch.cat(of_store).double()
        assert found.mean(0).abs().max() < 1e-3
        changing = found.std(0) > 1e-6
        assert torch.all((found.std(0, correction=0)[changing] - 1).abs() < 1e-3)
    assert list(head.layer_weights) == ["words"]
    assert sum(head.layer_weights["words"]) == pytest.approx(1)
    assert sum(head.store_weights.values()) == pytest.approx(2)
    assert head.store_weights["words"] > head.store_weights["noise"], "which tells nothing"
    assert trained.recipe["stores"][1] == {
        "name": "noise", "fingerprint": noise.recipe.fingerprint, "recipe": noise.recipe.to_dict(),
    }  # fmt: skip
    assert trained.recipes == {"words": words.recipe, "noise": noise.recipe}


@pytest.mark.parametrize("model", HEADS)
def test_one_tensor_and_a_dict_are_read_alike_and_gradients_reach_the_weights(model):
    inputs = (StoreInput("a", 3), StoreInput("b", 4))
    torch.manual_seed(0)
    head = build_head(model, HeadConfig(7, 2, hidden=4, dropout=0.0, inputs=inputs))
    with torch.no_grad():
        for number, (standardize, _) in enumerate(head.inputs(torch.zeros(1, 1, 7))):
            standardize.mean.fill_(number)
            standardize.scale.fill_(2 + number)
        head.mix.weights.copy_(torch.tensor([0.5, -0.5]))
    lengths, together = torch.tensor([3, 2]), torch.randn(2, 3, 7)
    mask = torch.arange(3) < lengths.unsqueeze(1)
    by_name = {"b": together[..., 3:], "a": together[..., :3]}  # whatever the order
    logits = head(together, lengths, mask)
    assert torch.equal(logits, head(by_name, lengths, mask))
    a, b = (weight * torch.softmax(torch.tensor([0.5, -0.5]), 0) for weight in (2, 2))
    expected = torch.cat([together[..., :3] * 2 * a[0], (together[..., 3:] - 1) * 3 * b[1]], -1)
    torch.testing.assert_close(head.mix(together), expected)
    logits[mask if head.label_kind == "token" else ...].square().sum().backward()
    assert head.mix.weights.grad.abs().max() > 0
    assert head.mix.gamma.grad.abs().max() > 0
    for wrong in (
        together[..., :6],
        {"a": by_name["a"]},
        {**by_name, "c": by_name["a"]},
        {"a": by_name["b"], "b": by_name["a"]},
    ):
        with pytest.raises(
            ModelError, match=r"reads features of the stores a \(\.\.\., 3\); b \(\.\.\., 4\)"
        ):
            head(wrong, lengths, mask)


def test_the_stores_may_come_in_another_order_and_under_other_names(trained, words, noise):
    wanted = list(predict(trained, [words, noise], sentences(60, 2)))
    assert wanted == tagged(60, 2)
    assert list(predict(trained, {"x": noise, "y": words}, sentences(60, 2))) == wanted
    _, dev = datasets([noise, words], as_dict=True)
    assert evaluate(trained, dev).value == 1.0
    dataset, _ = datasets([words, noise], as_dict=True)
    result = train(dataset, dev, quick("linear-tagger", epochs=2))
    assert list(result.model.recipes) == ["words", "noise"]


def test_other_stores_are_refused_by_name_and_field(trained, words, noise, store, tmp_path):
    other = make_store(tmp_path / "words", version=9, n_layers=3)
    refusals = [
        ([noise, other], r"the store 'words' in the place of 'words' holds .*\n  version: 9 in the store"),
        ([words, store], r"the store 'one.fs' in the place of 'noise' holds"),
        ([words], "reads the stores words, noise, found one store: noise not given"),
        ([words, noise, other], r"found the stores .*: .* not among them"),
    ]
    for stores, message in refusals:
        with pytest.raises(RecipeMismatchError, match=message):
            predict(trained, stores, sentences(2, 2))
    with pytest.raises(RecipeMismatchError, match=r"'words' of the dev.* in the place of 'words'") as caught:
        train(
            datasets([words, noise], as_dict=True)[0],
            datasets([noise, other], as_dict=True)[1],
            quick("linear-tagger"),
        )
    assert [difference.field for difference in caught.value.differences] == ["version"]


def test_a_model_of_one_store_takes_that_store_alone(store, words, noise):
    dataset, dev = datasets(store)
    model = train(dataset, dev, quick("linear-tagger", epochs=1)).model
    assert model.recipes == {"": store.recipe}
    assert "inputs" not in model.head.config.to_dict()
    by_name = datasets(store, as_dict=True)[1]
    assert evaluate(model, by_name).value == evaluate(model, dev).value
    with pytest.raises(RecipeMismatchError, match="the model reads one store, found the stores"):
        predict(model, [store, noise], sentences(2, 2))
    with pytest.raises(ModelError, match=r"found those of one\.fs, noise"):
        model.head(
            {"one.fs": torch.zeros(1, 1, 12), "noise": torch.zeros(1, 1, 5)},
            torch.ones(1),
            torch.ones(1, 1).bool(),
        )


def test_files_that_say_something_else_of_their_stores_are_refused(trained, tmp_path, words):
    path = tmp_path / "model.h5"

    def wrong_recipe(metadata, recipe):
        metadata.update(recipe=recipe.to_dict(), fingerprint=recipe.fingerprint)

    def stated(**changes):
        stores = trained.recipe.to_dict()["stores"]
        stores[0].update(changes)
        return Recipe({"kind": "several stores", "version": 1, "stores": stores})

    for change, message in (
        (lambda m: m["config"].update(inputs=[["words", 12, 3]]), "of several stores"),
        (lambda m: m["config"].update(inputs=[["words", 12, 3], ["words", 5, 1]]), "different names"),
        (
            lambda m: m["config"].update(inputs=[["words", 12, 3], ["noise", 6, 1]]),
            "one layer of 18, found 1 of 17",
        ),
        (lambda m: m["config"].update(inputs=[["words", 12, 3], ["noise", 5, 0]]), "cannot have 0 layers"),
        (lambda m: m["config"].update(inputs=[["words", 12], "noise"]), "lists of name, dim"),
        (lambda m: m["config"].update(inputs=7), "lists of name, dim"),
        (lambda m: m["config"].update(inputs=[["words", True, 3], ["noise", 16, 1]]), "lists of name, dim"),
        (lambda m: wrong_recipe(m, words.recipe), "lists none"),
        (
            lambda m: wrong_recipe(m, joined({"a": words.recipe, "noise": trained.recipes["noise"]})),
            r"\['a', 'noise'\]",
        ),
        (lambda m: wrong_recipe(m, stated(fingerprint="0" * 64)), "not those of the recipes"),
        (lambda m: wrong_recipe(m, stated(recipe=7)), "plain JSON values only"),
    ):
        trained.save(path)
        rewrite_metadata(path, change)
        with pytest.raises(ModelError, match=message):
            TrainedModel.load(path)


def test_sizes_of_several_stores_must_fit():
    with pytest.raises(UsageError, match="make one layer of 7, found 1 of 8"):
        HeadConfig(8, 2, inputs=(StoreInput("a", 3), StoreInput("b", 4)))
