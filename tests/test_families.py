"""The table of encoder families: what it names exists, and nothing else tells families apart."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from featurestore import families
from featurestore.encoders.loading import encoder_recipe, load_encoder, outline_encoder
from featurestore.errors import EncoderError, UnknownEncoderError
from featurestore.families import FAMILIES, OWN, Family, family_of, family_of_recipe
from featurestore.recipe import Recipe
from tests.kit.places import ROOT

FUNCTIONS = [
    (family, role, getattr(family, role))
    for family in (*FAMILIES, OWN)
    for role in ("load", "outline", "recipe", "warm_up")
    if getattr(family, role) is not None
]


@pytest.mark.parametrize(
    ("family", "role", "function"), FUNCTIONS, ids=[f"{f.name or 'own'}-{r}" for f, r, _ in FUNCTIONS]
)
def test_every_function_exists_and_takes_what_it_is_called_with(family, role, function):
    if family.package:
        pytest.importorskip(family.package)
    called = {
        "load": {"device", "layers", "precision", "initial_state"} - family.fixed.keys(),
        "outline": {"layers", "initial_state"},
        "recipe": {"layers", "precision", "initial_state"},
        "warm_up": {"max_tokens", "device", "out", "force", "progress"},
    }[role]
    parameters = inspect.signature(family.resolved(function, "x:y")).parameters.values()
    assert {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} == called


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("elmo:demo", "elmo"), ("flair:glove", "flair"), ("a.b:C.d", ""), ("a:B", ""), ("elmo:", None),
        ("", None),
        ("elmo", None), ("double:", None), ("double:0.1", None), ("./x.py:C", None), ("a b:C", None),
        ("a:b:c", None),
    ],
)  # fmt: skip
def test_a_specification_has_one_family_or_none(spec, name):
    found = family_of(spec)
    assert (found.name if found else None) == name


def test_a_recipe_of_an_unknown_kind_is_of_the_users_own():
    assert family_of_recipe(Recipe({"kind": "flair", "version": 1})).name == "flair"
    assert family_of_recipe(Recipe({"kind": "mine", "version": 1})) is OWN
    assert OWN.runs_code


def test_one_entry_makes_a_family(monkeypatch):
    entry = Family("bag", load="tests.kit.doubles:load_bag", forms=("bag:SIZE",))
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, entry))
    encoder = load_encoder("bag:x", layers="top", device="cpu")
    assert encoder.spec == "bag:x"
    assert outline_encoder("bag:x").dim == encoder.dim
    assert encoder_recipe("bag:x") == encoder.recipe
    with pytest.raises(UnknownEncoderError, match=r"bag:SIZE, or a class"):
        load_encoder("gab:")


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="flair")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(EncoderError, match=r"flair:glove needs Flair.*pip install 'featurestore\[flair\]'"):
        load_encoder("flair:glove")


def test_the_table_loads_neither_torch_nor_flair_nor_a_family():
    code = (
        "import sys, featurestore.encoders.base, featurestore.encoders.loading, featurestore.families\n"
        "from featurestore.encoders.sources import NamedEncoder\n"
        "NamedEncoder('flair:glove').outline_loads\n"
        "loaded = {name for name in sys.modules if name in ('torch', 'flair')\n"
        "          or name.startswith(('featurestore.encoders.elmo', 'featurestore.encoders.flair'))}\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_nothing_else_tells_families_apart():
    told = re.compile(
        r"""\[["']kind["']\]\s*[!=]=|startswith\(["'](flair|elmo):|partition\(":"\)\[0\] [!=]="""
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "featurestore").rglob("*.py")
        for line in path.read_text().splitlines()
        if told.search(line)
    ]
    # Only what is about ELMo itself: Flair's own ElmoEmbeddings, under its old name.
    assert [line for line in found if "integrations/flair_embeddings.py" not in line] == []
