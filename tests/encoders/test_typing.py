"""An encoder says with its types what the interface asks: encode and six attributes, in any usual form."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from featurestore import Encoder
from tests.kit.places import ROOT

CLASSES = """
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import featurestore
from featurestore import Encoder, Recipe
from featurestore.encoders.checked import CheckedEncoder
from featurestore.encoders.elmo.encoder import ElmoEncoder
from featurestore.testing import check_encoder

RECIPE = Recipe({"kind": "mine", "version": 1})


class Plain:
    def __init__(self) -> None:
        self.spec, self.recipe, self.device = "plain", RECIPE, "cpu"
        self.dim, self.n_layers, self.token_budget = 8, 1, 100

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> list[NDArray[np.float32]]:
        return [np.ones((len(sentence), 8), np.float32) for sentence in sentences]


class Properties:
    spec: Final = "properties"
    n_layers: Final = 1

    @property
    def recipe(self) -> dict[str, str | int]:
        return {"kind": "mine", "version": 1}

    @property
    def dim(self) -> int:
        return 8

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def token_budget(self) -> int:
        return 100

    def encode(self, batch: Sequence[Sequence[str]]) -> Sequence[NDArray[np.floating]]:
        return [np.ones((len(sentence), 8)) for sentence in batch]


@dataclass(frozen=True)
class Frozen:
    spec: str = "frozen"
    recipe: Mapping[str, Any] = field(default_factory=lambda: {"kind": "mine", "version": 1})
    dim: int = 8
    n_layers: int = 1
    device: str = "cpu"
    token_budget: int = 100

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.ones((len(sentence), 8)) for sentence in sentences)


class Inherits(Encoder):
    spec: str
    recipe = RECIPE
    dim, n_layers, device, token_budget = 8, 1, "cpu", 100

    def __init__(self) -> None:
        self.spec = "inherits"

    def encode(self, sentences: Sequence[tuple[str, ...]]) -> list[NDArray[np.float32]]:
        return [np.ones((len(sentence), 8), np.float32) for sentence in sentences]


encoders: list[Encoder] = [Plain(), Properties(), Frozen(), Inherits()]


def takes(ours: ElmoEncoder, checked: CheckedEncoder) -> list[Encoder]:
    return [ours, checked]


def stored(encoder: Encoder) -> None:
    check_encoder(encoder)
    featurestore.extract([["a"]], encoder, "store")
"""


def test_any_usual_form_is_one_at_run_time(tmp_path):
    path = tmp_path / "classes.py"
    path.write_text(CLASSES)
    spec = importlib.util.spec_from_file_location("classes_of_the_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look it up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    namespace = vars(module)
    for encoder in namespace["encoders"]:
        assert isinstance(encoder, Encoder)
        namespace["check_encoder"](encoder)


def test_any_usual_form_is_one_to_a_type_checker(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "classes.py").write_text(CLASSES)
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(ROOT / ".mypy_cache")]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(tmp_path / "classes.py")],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("lacking", ["spec", "recipe", "dim", "n_layers", "device", "token_budget", "encode"])
def test_what_lacks_one_is_none(lacking):
    class Lacks:
        spec = recipe = dim = n_layers = device = token_budget = None

        def encode(self, sentences):
            return []

    assert isinstance(Lacks(), Encoder)
    delattr(Lacks, lacking)
    assert not isinstance(Lacks(), Encoder)
