"""More corpora for a store: by its own recipe, by another codec, or refused field by field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featurestore import Recipe, Store, extract, load_encoder
from featurestore.corpora.given import as_corpora
from featurestore.encoders import sources
from featurestore.encoders.base import DEFAULT_ENCODER
from featurestore.encoders.elmo.files import catalog
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import (
    EncoderError,
    RecipeMismatchError,
    UsageError,
)
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from tests.extraction.shards import BOUND, CODEC_BOUND, assert_near, files_of
from tests.kit.doubles import DoubleEncoder, draw_sentences


def test_another_corpus_is_appended_with_the_stores_own_recipe(tmp_path, tiny_elmo_spec):
    store, sentences = tmp_path / "store", draw_sentences(20)
    extract(sentences[:12], tiny_elmo_spec, store, layers="0,2", codec="float32", progress=False)
    report = extract(sentences[6:], None, store, progress=False)
    assert (report.n_cached, report.n_encoded) == (6, 8)
    opened = Store.open(store)
    assert len(opened) == 20
    assert opened.manifest.codec == "float32"
    encoder = load_encoder(tiny_elmo_spec, layers="0,2", device="cpu")
    assert_near(opened.get(sentences[19]), encoder.encode([sentences[19]])[0], BOUND)


def test_appending_may_use_another_codec(tmp_path, tiny_elmo):
    sentences = draw_sentences(10)
    extract(sentences[:5], tiny_elmo, tmp_path / "store", progress=False)
    extract(sentences[5:], tiny_elmo, tmp_path / "store", codec="int8", progress=False)
    store = Store.open(tmp_path / "store")
    assert [shard.codec for shard in store.manifest.shards] == ["float16", "int8"]
    for sentence in sentences:
        assert_near(store.get(sentence), tiny_elmo.encode([sentence])[0], CODEC_BOUND["int8"])


@pytest.mark.parametrize(
    ("asked", "fragments"),
    [
        ({"spec": "seed=1"}, ["weights_sha256", "untrained.seed: 0 in", "1 asked for"]),
        ({"layers": "top"}, ['layers: "average" in', "[2] asked for"]),
        ({"precision": "bfloat16"}, ['precision: "float32" in', '"bfloat16" asked for']),
    ],
)
def test_another_recipe_is_refused_field_by_field_and_the_store_untouched(
    tmp_path, tiny_elmo_spec, asked, fragments
):
    options = tiny_elmo_spec.removeprefix("elmo:").partition(",")[0]
    spec = f"elmo:untrained:{options}?" + "{}"
    store = tmp_path / "store"
    extract(draw_sentences(5), spec.format("seed=0"), store, device="cpu", progress=False)
    before = files_of(store)
    # Refused whether or not there is something to encode: a silent "all is there" would be a lie.
    for n in (5, 6):
        with pytest.raises(RecipeMismatchError) as caught:
            extract(
                draw_sentences(n), spec.format(asked["spec"]) if "spec" in asked else None, store,
                layers=asked.get("layers"), precision=asked.get("precision"), device="cpu", progress=False,
            )  # fmt: skip
        for fragment in fragments:
            assert fragment in str(caught.value)
        assert files_of(store) == before


class TestNoEncoderNamed:
    def test_a_new_store_is_filled_by_the_bundled_model(self, tmp_path, bundled):
        extract([("a", "b")], None, tmp_path / "store", device="cpu", progress=False)
        store = Store.open(tmp_path / "store")
        assert store.encoder == DEFAULT_ENCODER == "elmo:demo"
        expected = load_encoder(DEFAULT_ENCODER, device="cpu").encode([("a", "b")])[0]
        assert_near(store.get(("a", "b")), expected, CODEC_BOUND["float16"])

    def test_an_existing_store_keeps_its_own(self, tmp_path, bundled, tiny_elmo_spec):
        extract([("a", "b")], tiny_elmo_spec, tmp_path / "store", device="cpu", progress=False)
        extract([("c",)], None, tmp_path / "store", device="cpu", progress=False)
        store = Store.open(tmp_path / "store")
        assert (store.encoder, len(store)) == (tiny_elmo_spec, 2)

    def test_without_the_bundled_files_it_is_said_before_anything_is_made(self, tmp_path, monkeypatch):
        monkeypatch.setattr(catalog, "BUNDLED_FOLDER", tmp_path / "gone")
        with pytest.raises(EncoderError, match=r"not in this installation: .*options\.json"):
            extract([("a",)], None, tmp_path / "store", progress=False)
        assert not (tmp_path / "store").exists()

    def test_a_store_that_names_none_is_a_usage_error(self, tmp_path):
        recipe = Recipe({"kind": "test", "version": 1})
        Store.create(tmp_path / "store", recipe=recipe, dim=8)
        with pytest.raises(UsageError, match=r"does not name its encoder .*pass that object, or name one"):
            extract([("a",)], None, tmp_path / "store", progress=False)

    def test_one_made_by_an_object_without_a_specification_is_extended_by_the_object(self, tmp_path):
        extract([("a",)], DoubleEncoder(spec=""), tmp_path / "store", progress=False)
        with pytest.raises(UsageError, match="does not name its encoder"):
            extract([("b",)], None, tmp_path / "store", progress=False)
        extract([("b",)], DoubleEncoder(spec=""), tmp_path / "store", progress=False)
        assert len(Store.open(tmp_path / "store")) == 2


def test_a_store_that_was_filled_before_is_planned_without_asking_its_encoder(
    monkeypatch, tmp_path, tiny_elmo
):
    sentences = draw_sentences(10)
    extract(sentences[:5], tiny_elmo, tmp_path / "store", progress=False)
    destination = Destination.of(tmp_path / "store")
    expected = Job(as_corpora(sentences), destination).plan(LoadedEncoder.of(tiny_elmo))
    monkeypatch.setattr(sources, "outline_encoder", lambda *_, **__: pytest.fail("the encoder was asked"))
    own = EncoderChoice.for_store(tmp_path / "store", None, None, None)
    plan = Job(as_corpora(sentences), destination).plan(own)
    assert replace(plan, free_bytes=0) == replace(expected, free_bytes=0)
    assert (plan.n_cached, plan.n_new) == (5, 5)


def test_choices_of_the_store_are_not_asked_of_an_encoder_of_another_kind(tmp_path):
    recipe = Recipe({"kind": "elmo", "version": 1, "layers": [0, 2], "initial_state": "warm"})
    Store.create(tmp_path / "store", recipe=recipe, dim=8, encoder="elmo:x")
    other = EncoderChoice.for_store(tmp_path / "store", "flair:glove", None, None)
    assert other == EncoderChoice("flair:glove", "average", "auto", "auto")
    same = EncoderChoice.for_store(tmp_path / "store", "elmo:y", None, None)
    assert same == EncoderChoice("elmo:y", "0,2", "auto", "warm")


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({}, ("average", "auto", "auto")),
        ({"layers": "average", "precision": "float16"}, ("average", "float16", "auto")),
        ({"layers": [0, 2], "initial_state": "warm"}, ("0,2", "auto", "warm")),
        ({"layers": {"lm": [1]}, "precision": 32, "initial_state": None}, ("average", "auto", "auto")),
    ],
    ids=["none", "text", "list", "other things of these names"],
)
def test_what_a_recipe_says_is_asked_of_its_encoder(tmp_path, fields, choices):
    recipe = Recipe({"kind": "elmo", "version": 1, **fields})
    Store.create(tmp_path / "store", recipe=recipe, dim=8, encoder="elmo:x")
    choice = EncoderChoice.for_store(tmp_path / "store", None, None, None)
    assert (choice.layers, choice.precision, choice.initial_state) == choices
    assert choice.spec == "elmo:x"
