"""What users write against: each public name, method and parameter that there was is still there."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

import numpy as np
import pytest

from featurestore import Encoder
from tests.kit.places import ROOT

MODULES = (
    "featurestore",
    "featurestore.errors",
    "featurestore.integrations.flair",
    "featurestore.encoders.flair",
)
RECORD = ROOT / "tests" / "golden" / "public-names.json"
"""What :func:`public_names` returned for the modules at ffad4bc; names are added to it, never taken away."""

GONE = {"Encoder.submit"}
"""No member of the protocol any more, so that ``encode`` is enough; classes that inherit it still have it."""

Parameters = list[list[Any]]


def parameters_of(value: object) -> Parameters | None:
    """Return name, kind and "is it optional?" of each parameter; None of what users do not call."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return None
    return [
        [p.name, p.kind.name, p.default is not p.empty] for p in inspect.signature(value).parameters.values()
    ]


def public_names(module_name: str) -> dict[str, Parameters | None]:
    """Return the public names of a module, and those within its classes, with their parameters."""
    module = importlib.import_module(module_name)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
    names: dict[str, Parameters | None] = {}
    for name in sorted(
        getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]
    ):
        value = getattr(module, name)
        names[name] = parameters_of(value)
        if inspect.isclass(value):
            homes = [c for c in value.__mro__ if c.__module__.startswith("featurestore.")]
            for attribute in sorted({a for home in homes for a in vars(home) if not a.startswith("_")}):
                names[f"{name}.{attribute}"] = parameters_of(inspect.getattr_static(value, attribute)) or (
                    parameters_of(getattr(value, attribute))
                )
    return names


@pytest.mark.parametrize("module", MODULES)
def test_nothing_public_is_gone(module):
    if "flair" in module:
        pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")
    before, now = json.loads(RECORD.read_text())[module], public_names(module)
    assert before
    assert set(before) - set(now) - GONE == set()
    broken = {
        name: (then, now[name])
        for name, then in before.items()
        if name not in GONE and not accepts(now[name], then)
    }
    assert broken == {}


def accepts(now: Parameters | None, then: Parameters | None) -> bool:
    """Say whether every call that was right before is right now."""
    if then is None or now is None:
        return now == then
    optional = {name: is_optional for name, kind, is_optional in now if not kind.startswith("VAR")}
    positional = [name for name, kind, _ in then if kind.startswith("POSITIONAL")]
    known = {name: is_optional for name, kind, is_optional in then if not kind.startswith("VAR")}
    return (
        [name for name, kind, _ in now if kind.startswith("POSITIONAL")][: len(positional)] == positional
        and all(name in optional and optional[name] >= known[name] for name in known)
        and all(optional[name] or name in known for name in optional)
    )


def test_classes_that_inherit_encoder_can_submit():
    class Ones(Encoder):
        spec, recipe, dim, n_layers, device, token_budget = (
            "ones",
            {"kind": "o", "version": 1},
            2,
            1,
            "cpu",
            9,
        )

        def encode(self, sentences):
            return [np.ones((len(tokens), 2), np.float32) for tokens in sentences]

    (vectors,) = Ones().submit([("a", "b")]).result()
    assert vectors.tolist() == [[1, 1], [1, 1]]
