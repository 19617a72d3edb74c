"""Encoders of your own by specification: a class, a function, an object, and what names none of these."""

from __future__ import annotations

import sys

import pytest

from featurestore import Encoder, Store, extract, load_encoder
from featurestore.encoders import own
from featurestore.encoders.loading import encoder_recipe, outline_encoder
from featurestore.errors import (
    DriftError,
    EncoderError,
    RecipeMismatchError,
    UnknownEncoderError,
    UsageError,
)

MODULE = """
import hashlib
import numpy as np

made = []


class Mine:
    spec, recipe = "any name", {"kind": "mine", "version": 1, "precision": "float16", "layers": "top"}
    dim, n_layers, device, token_budget = 8, 1, "cpu", 100
    scale = 1.0

    def __init__(self):
        made.append(self)

    def encode(self, batch):
        return [np.stack([self.vector(token) for token in tokens]) for tokens in batch]

    def vector(self, token):
        return np.frombuffer(hashlib.sha256(token.encode()).digest()[:8], np.uint8) * np.float32(self.scale)

    class Inner:
        @staticmethod
        def make():
            return Mine()


class OnDevice(Mine):
    def __init__(self, device="cpu"):
        self.device = device


class Other(Mine):
    recipe = {"kind": "mine", "version": 2}


class NeedsMore(Mine):
    def __init__(self, path):
        raise AssertionError


def fails():
    raise ValueError("no weights")


def nothing():
    return None


ready, number = Mine(), 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the working directory, which is not where Python looks for modules."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(own, "_last", None)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["Mine", "Mine.Inner.make", "ready", "OnDevice"])
def test_what_makes_an_encoder_or_is_one_is_loaded(module, name):
    spec = f"{module}:{name}"
    encoder = load_encoder(spec)
    assert isinstance(encoder, Encoder)
    assert (encoder.spec, encoder.dim) == (spec, 8)  # by which it is loaded again
    assert encoder.encode([("a", "b")])[0].shape == (2, 8)
    assert encoder_recipe(spec) == encoder.recipe
    assert outline_encoder(spec).dim == 8


def test_it_is_made_once(module):
    spec = f"{module}:Mine"
    outline_encoder(spec)
    encoder_recipe(spec)
    first = load_encoder(spec)
    assert load_encoder(spec) is first
    assert len(sys.modules[module].made) == 2  # with the one at the end of the module


def test_a_device_is_handed_on_or_refused(module):
    assert load_encoder(f"{module}:OnDevice", device="cuda:7").device == "cuda:7"
    assert load_encoder(f"{module}:Mine", device="cpu").device == "cpu"
    with pytest.raises(UsageError, match="runs on cpu, not on cuda: give it a parameter `device`"):
        load_encoder(f"{module}:Mine", device="cuda")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("missing", UnknownEncoderError, r"mine_\w+\.py has no 'missing': expected PACKAGE\.MODULE:CLASS"),
        ("number", UsageError, "is a int: expected an encoder, or a class or function that makes one"),
        ("nothing", UsageError, "a NoneType is no encoder"),
        ("fails", EncoderError, r"fails \(ValueError: no weights\)"),
        ("NeedsMore", EncoderError, "NeedsMore cannot be called without arguments.*'path'"),
        ("", UnknownEncoderError, r"unknown encoder .*PACKAGE\.MODULE:CLASS"),
    ],
)
def test_what_is_none_is_told_why(module, name, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        load_encoder(f"{module}:{name}")


def test_modules_that_are_missing_broken_or_named_by_their_files(module, tmp_path):
    (tmp_path / "needs.py").write_text("import a_package_that_is_nowhere")
    (tmp_path / "broken.py").write_text("1 / 0")
    for spec, error, said in (
        ("nowhere_at_all:X", UnknownEncoderError, "no module 'nowhere_at_all', installed or in "),
        (f"{module}.below:X", UnknownEncoderError, f"no module '{module}.below'"),
        (f"{module}.py:Mine", UnknownEncoderError, f"not its file: {module}:Mine"),
        ("needs:X", EncoderError, "needs a_package_that_is_nowhere, which is not installed"),
        ("broken:X", EncoderError, r"importing broken fails \(ZeroDivisionError"),
    ):
        with pytest.raises(error, match=said):
            load_encoder(spec)


@pytest.mark.parametrize("choice", [{"layers": "all"}, {"precision": "float16"}, {"initial_state": "warm"}])
def test_choices_are_its_own(module, choice):
    with pytest.raises(UsageError, match="an encoder of your own makes its choices itself"):
        load_encoder(f"{module}:Mine", **choice)


class TestItsStore:
    """Made by a specification, which the store records and never runs."""

    @pytest.fixture
    def spec(self, module):
        extract([("a", "b"), ("c",)], f"{module}:Mine", "store", progress=False)
        return f"{module}:Mine"

    def test_names_it(self, spec):
        store = Store.open("store")
        assert store.encoder == spec
        assert store.recipe["kind"] == "mine"

    def test_serves_without_it(self, spec):
        del sys.modules[spec.partition(":")[0]]
        assert extract([("a", "b")], None, "store", progress=False).n_cached == 1
        assert spec.partition(":")[0] not in sys.modules

    def test_runs_it_only_if_it_is_named_again(self, spec):
        del sys.modules[spec.partition(":")[0]]
        with pytest.raises(UsageError, match=r"Loading it runs the code.*name the encoder yourself"):
            extract([("new",)], None, "store", progress=False)
        assert spec.partition(":")[0] not in sys.modules
        assert extract([("new",)], spec, "store", progress=False).n_encoded == 1

    def test_of_another_recipe_is_refused(self, spec):
        with pytest.raises(RecipeMismatchError, match="Name the encoder that filled the store"):
            extract([("a", "b")], spec.replace("Mine", "Other"), "store", progress=False)

    def test_notices_that_its_code_changed_though_nothing_is_new(self, spec):
        assert extract([("a", "b")], spec, "store", progress=False).n_cached == 1
        sys.modules[spec.partition(":")[0]].Mine.scale = 1.5
        for encoder in (spec, sys.modules[spec.partition(":")[0]].Mine()):
            with pytest.raises(DriftError, match="canary"):
                extract([("a", "b")], encoder, "store", progress=False)
        assert extract([("a", "b")], None, "store", progress=False).n_cached == 1  # whoever names none
