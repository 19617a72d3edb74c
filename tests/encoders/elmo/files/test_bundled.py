"""``elmo:demo``, the model that comes with the package: by a stand-in, and the real one where it is there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featurestore.encoders.base import DEFAULT_ENCODER
from featurestore.encoders.elmo.files import catalog
from featurestore.encoders.elmo.model.options import PRESETS, ElmoOptions
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder, warm_up_encoder
from featurestore.errors import EncoderError, UnknownEncoderError, UsageError
from tests.kit.elmo import GOLDEN_SPEC, golden_sentences

SENTENCES = [tuple(sentence) for sentence in golden_sentences()]


class TestStandIn:
    def test_is_a_model_like_another(self, bundled):
        encoder, golden = load_encoder("elmo:demo"), load_encoder(GOLDEN_SPEC)
        assert encoder.spec == DEFAULT_ENCODER == "elmo:demo"
        assert encoder.recipe == golden.recipe == encoder_recipe("elmo:demo")
        for ours, theirs in zip(encoder.encode(SENTENCES), golden.encode(SENTENCES), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_outline_is_that_of_its_options(self, bundled):
        assert outline_encoder("elmo:demo", layers="all") == outline_encoder(GOLDEN_SPEC, layers="all")

    def test_automatic_initial_state_is_the_constant(self, bundled, monkeypatch):
        assert encoder_recipe("elmo:demo")["initial_state"] == "zero"
        monkeypatch.setattr(catalog, "BUNDLED_INITIAL_STATE", "warm")
        with pytest.raises(EncoderError, match=r"weights\.warm\.hdf5.*warm-up elmo:demo"):
            load_encoder("elmo:demo")
        made = warm_up_encoder("elmo:demo", SENTENCES)
        assert made.path == bundled / "weights.warm.hdf5"
        assert load_encoder("elmo:demo").recipe["initial_state_sha256"] == made.sha256
        assert load_encoder("elmo:demo", initial_state="zero").recipe["initial_state"] == "zero"
        assert encoder_recipe("elmo:demo") == load_encoder("elmo:demo").recipe

    @pytest.mark.parametrize("name", ["options.json", "weights.hdf5"])
    def test_files_that_are_not_there(self, bundled, name):
        (bundled / name).unlink()
        for door in (load_encoder, encoder_recipe, outline_encoder):
            with pytest.raises(EncoderError, match="not in this installation") as caught:
                door("elmo:demo")
            assert str(bundled / name) in str(caught.value)

    def test_takes_no_hash(self):
        with pytest.raises(UsageError, match="without a hash"):
            load_encoder("elmo:demo#sha256=" + "0" * 64)

    @pytest.mark.parametrize("spec", ["elmo:huge", "bert:x"])
    def test_unknown_encoders_are_told_of_it_first(self, spec):
        with pytest.raises(UnknownEncoderError, match=r"expected (elmo:)?demo"):
            load_encoder(spec)


class TestTheRealOne:
    @pytest.fixture(autouse=True)
    def folder(self):
        if not (catalog.BUNDLED_FOLDER / "weights.hdf5").exists():
            pytest.skip(f"needs the bundled model in {catalog.BUNDLED_FOLDER}, which is not here")
        return catalog.BUNDLED_FOLDER

    def test_its_files(self, folder):
        assert {"CARD.md", "options.json", "weights.hdf5", "weights.warm.hdf5"} <= {
            path.name for path in folder.iterdir()
        }
        assert json.loads((folder / "options.json").read_text(encoding="utf-8"))
        assert ElmoOptions.read(folder / "options.json") == PRESETS["demo"]

    @pytest.mark.parametrize("initial_state", ["auto", "zero", "warm"])
    def test_encodes(self, initial_state):
        encoder = load_encoder("elmo:demo", device="cpu", initial_state=initial_state)
        assert encoder.recipe == encoder_recipe("elmo:demo", initial_state=initial_state)
        vectors = encoder.encode([("The", "cat", "sat", "."), ("The", "bank", "of", "the", "river")])
        assert [v.shape for v in vectors] == [(4, encoder.dim), (5, encoder.dim)]
        assert all(np.isfinite(v).all() for v in vectors)

    def test_the_same_word_differs_by_context(self):
        encoder = load_encoder("elmo:demo", device="cpu", layers="top")
        river, money = encoder.encode([("the", "bank", "of", "the", "river"), ("the", "bank", "lent", "it")])
        assert np.linalg.norm(river[1] - money[1]) > 0.1 * np.linalg.norm(money[1])
