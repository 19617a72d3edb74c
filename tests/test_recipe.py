"""Recipes: one text and one fingerprint for equal fields, and differences named field by field."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import limits
from featurestore.errors import RecipeMismatchError, UsageError
from featurestore.recipe import Recipe, canonical_json
from featurestore.store.store import Store

FIELDS = {
    "kind": "elmo",
    "version": 1,
    "layers": [0, 1, 2],
    "weights": {"sha256": "abababab", "scale": 0.5},
    "note": "ü",
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_fingerprint_of_a_fixed_recipe_never_changes():
    assert Recipe(FIELDS).fingerprint == "550ea75b083d11f8fbe517ac07283d3a0f559b15a5af763fbd1a4ce5882331b8"
    assert Recipe(FIELDS).fingerprint == hashlib.sha256(Recipe(FIELDS).canonical).hexdigest()


def test_canonical_json_is_sorted_ascii_without_blanks():
    assert (
        canonical_json({"b": [1, 2.5, None], "a": {"ü": True}}) == b'{"a":{"\\u00fc":true},"b":[1,2.5,null]}'
    )


def test_order_of_fields_does_not_matter():
    backwards = {name: FIELDS[name] for name in reversed(FIELDS)}
    backwards["weights"] = {"scale": 0.5, "sha256": "abababab"}
    assert Recipe(backwards) == Recipe(FIELDS)
    assert hash(Recipe(backwards)) == hash(Recipe(FIELDS))
    assert Recipe(backwards).fingerprint == Recipe(FIELDS).fingerprint
    assert Recipe(backwards).diff(Recipe(FIELDS)) == []


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_recipe_survives_its_own_json(extra):
    recipe = Recipe({**extra, "kind": "k", "version": 1})
    again = Recipe(json.loads(recipe.canonical))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint
    assert recipe.diff(again) == []


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(), max_size=3), st.text("abc", min_size=1))
def test_any_changed_field_changes_the_fingerprint(extra, name):
    recipe = Recipe({**extra, "kind": "k", "version": 1})
    changed = Recipe({**recipe.to_dict(), name: "changed"})
    assert changed.fingerprint != recipe.fingerprint
    assert [difference.field for difference in recipe.diff(changed)] == [name]


def test_diff_names_nested_and_absent_fields_in_order():
    other = {**FIELDS, "layers": [2], "weights": {"sha256": "cdcdcdcd", "scale": 0.5}, "precision": "bf16"}
    del other["note"]
    found = [(d.field, d.ours, d.theirs) for d in Recipe(FIELDS).diff(Recipe(other))]
    assert found == [
        ("layers", [0, 1, 2], [2]),
        ("note", "ü", "(absent)"),
        ("precision", "(absent)", "bf16"),
        ("weights.sha256", "abababab", "cdcdcdcd"),
    ]
    assert str(Recipe(FIELDS).diff(Recipe(other))[0]) == "layers: [0, 1, 2] here, [2] there"


def test_values_that_differ_only_in_type_are_a_difference():
    one, other = Recipe({"kind": "k", "version": 1}), Recipe({"kind": "k", "version": 1.0})
    assert one != other
    assert [d.field for d in one.diff(other)] == ["version"]


def test_require_equal_names_every_field_with_both_values_and_the_remedy():
    other = Recipe({**FIELDS, "layers": "top", "weights": {"sha256": "cdcdcdcd", "scale": 0.5}})
    with pytest.raises(RecipeMismatchError) as caught:
        Recipe(FIELDS).require_equal(other, where="store x.fs", remedy="Use another --store.")
    message = str(caught.value)
    assert message.startswith("store x.fs holds vectors of another recipe:")
    assert 'layers: [0, 1, 2] in store x.fs, "top" asked for' in message
    assert 'weights.sha256: "abababab" in store x.fs, "cdcdcdcd" asked for' in message
    assert "note" not in message
    assert message.endswith("Use another --store.")
    assert caught.value.exit_code == 4


def test_field_name_with_a_dot_is_not_a_nested_field():
    flat = Recipe({"kind": "k", "version": 1, "a.b": 2})
    nested = Recipe({"kind": "k", "version": 1, "a": {"b": 2}})
    with pytest.raises(RecipeMismatchError):
        flat.require_equal(nested, where="here", remedy="none")


def test_require_equal_is_silent_for_an_equal_recipe():
    Recipe(FIELDS).require_equal(Recipe(dict(FIELDS)), where="here", remedy="none")


@pytest.mark.parametrize(
    "fields",
    [{"x": float("nan")}, {"x": float("inf")}, {"x": {1, 2}}, {"x": b"raw"}, {"x": object()}],
    ids=["nan", "inf", "set", "bytes", "object"],
)
def test_what_is_not_json_is_refused(fields):
    with pytest.raises(UsageError, match="plain JSON values only"):
        Recipe({"kind": "k", "version": 1, **fields})


@pytest.mark.parametrize("missing", ["kind", "version"])
def test_recipe_without_kind_or_version_is_refused(missing):
    fields = {"kind": "k", "version": 1}
    del fields[missing]
    with pytest.raises(UsageError, match=f"needs the field '{missing}'"):
        Recipe(fields)


def test_enormous_recipe_is_refused():
    with pytest.raises(UsageError, match="exceeds"):
        Recipe({"kind": "k", "version": 1, "x": "y" * limits.MAX_RECIPE_BYTES})


def test_recipe_keeps_its_own_copy_of_the_fields():
    given_fields = {"kind": "k", "version": 1, "layers": [1]}
    recipe = Recipe(given_fields)
    fingerprint = recipe.fingerprint
    given_fields["layers"].append(2)
    recipe.to_dict()["layers"].append(3)
    recipe.to_dict()["kind"] = "changed"
    assert recipe.to_dict() == {"kind": "k", "version": 1, "layers": [1]}
    assert recipe.fingerprint == fingerprint
    with pytest.raises(TypeError):
        recipe["kind"] = "changed"


def test_recipe_reads_as_a_mapping():
    recipe = Recipe(FIELDS)
    assert recipe["layers"] == [0, 1, 2]
    assert set(recipe) == set(FIELDS)
    assert len(recipe) == len(FIELDS)
    assert recipe.get("absent") is None


def test_a_mapping_is_taken_for_a_recipe(tmp_path):
    fields = {"kind": "mine", "version": 1}
    recipe = Recipe(fields)
    assert Recipe.of(recipe) is recipe
    assert Recipe.of(fields) == recipe
    store = Store.create(tmp_path / "store", recipe=fields, dim=3)
    assert Store.open(store.path).recipe == recipe
    for wrong, said in (({"kind": "x"}, "version"), ("elmo", "found a str"), (None, "found a NoneType")):
        with pytest.raises(UsageError, match=said):
            Store.create(tmp_path / "other", recipe=wrong, dim=3)
    assert not (tmp_path / "other").exists()


def test_of_another_kind_the_other_fields_are_counted():
    ours = Recipe({"kind": "imported", "version": 1, **{f"field{i}": i for i in range(20)}})
    with pytest.raises(RecipeMismatchError) as caught:
        ours.require_equal(
            Recipe({"kind": "elmo", "version": 1, "layers": "average"}), where="it", remedy="Look."
        )
    assert str(caught.value) == (
        'it holds vectors of another recipe:\n  kind: "imported" in it, "elmo" asked for\n'
        "  and 21 fields that go with the kind\nLook."
    )
    assert len(caught.value.differences) == 22
