"""``why``: cached, missing, in another context, or by another encoder."""

from __future__ import annotations

import json

import pytest

from featurestore.encoders.loading import encoder_recipe
from featurestore.keys import sentence_key
from featurestore.store.store import Store
from tests.cli.commands.small_store import (
    LEFT,
    RIGHT,
    SENTENCES,
    make_store,
)

# -- why


def test_why_cached(run, store):
    code, out, _ = run("why", store.path, "the cat sat")
    assert code == 0
    assert "cached: " in out
    assert store.manifest.shards[0].name in out
    found = json.loads(run("why", store.path, "the cat sat", "--json")[1])
    assert (found["cached"], found["in_store"], found["nearest"]) == (True, True, [])
    assert found["key"] == sentence_key(SENTENCES[0]).hex()


def test_why_missing_shows_what_is_like_it(run, store):
    code, out, _ = run("why", store.path, "New York is big")
    assert code == 1
    assert "(4 tokens)" in out
    assert "not cached: no sentence of the store has exactly these tokens" in out
    assert 'like it  ["New York", "is", "big"]' in out
    code, out, _ = run("why", store.path, "New York is big", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["cached"], found["nearest"]) == (False, [["New York", "is", "big"]])


@pytest.mark.parametrize("sign", ["\u00a0", "\u3000", "\u2028", "\x1c"])
def test_a_text_is_split_where_corpora_are(run, tmp_path, sign):
    stored = (f"10{sign}000", "cats")
    path = make_store(tmp_path / "s.fs", [stored, ("10", "000", "cats")]).path
    assert run("why", path, f"10{sign}000 cats", "--json")[0] == 0
    found = json.loads(run("show", path, f"10{sign}000 cats", "--json")[1])
    assert tuple(found["tokens"]) == stored
    # What is like a sentence is shown as it can be given back.
    code, out, _ = run("why", path, f"10{sign}000 CATS")
    listed = [line.split("like it  ")[1] for line in out.splitlines() if "like it" in line]
    assert (code, listed) == (1, [json.dumps(stored), "10 000 cats"])
    assert run("why", path, listed[0], "--tokens")[0] == run("why", path, listed[1])[0] == 0


def test_why_of_json_tokens(run, store):
    assert run("why", store.path, '["New York", "is", "big"]', "--tokens")[0] == 0


ENCODER = "elmo:untrained-small?seed=0"


@pytest.fixture(scope="module")
def elmo_store(tmp_path_factory) -> Store:
    """A store that says it was made by an encoder whose recipe can be worked out here."""
    path = tmp_path_factory.mktemp("inspect") / "elmo.fs"
    return make_store(path, recipe=encoder_recipe(ENCODER, layers="average"), encoder=ENCODER)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--layers", "top"], ["layers"]),
        (["--precision", "bfloat16"], ["precision"]),
        (["--layers", "all", "--precision", "float16"], ["layers", "precision"]),
        (["--encoder", "elmo:untrained-small?seed=1"], ["untrained.seed", "weights_sha256"]),
    ],
    ids=" ".join,
)
def test_why_names_every_field_in_which_the_wanted_encoder_differs(run, elmo_store, options, fields):
    code, out, _ = run("why", elmo_store.path, "the cat sat", *options, "--json")
    found = json.loads(out)
    assert code == 4
    assert (found["cached"], found["in_store"]) == (False, True)
    assert {difference["field"] for difference in found["differences"]} == set(fields)
    code, out, _ = run("why", elmo_store.path, "the cat sat", *options)
    assert code == 4
    assert all(f"recipe    {field}: " in out for field in fields)
    assert "not cached for this encoder" in out


@pytest.mark.parametrize(
    "options", [["--layers", "average"], ["--encoder", ENCODER, "--precision", "float32"]]
)
def test_why_with_the_stores_own_encoder_is_cached(run, elmo_store, options):
    assert run("why", elmo_store.path, "the cat sat", *options)[0] == 0
    assert run("why", elmo_store.path, "absent", *options)[0] == 1


def test_why_of_a_store_of_another_kind_names_the_differences(run, store):
    code, out, _ = run("why", store.path, "the cat sat", "--encoder", ENCODER, "--json")
    fields = {difference["field"] for difference in json.loads(out)["differences"]}
    assert code == 4
    assert {"kind", "weights_sha256", "layers"} <= fields


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_why_of_precision_auto_is_content_with_the_stores(run, tmp_path, precision):
    recipe = encoder_recipe(ENCODER, precision=precision)
    path = make_store(tmp_path / "s.fs", recipe=recipe, encoder=ENCODER).path
    assert run("why", path, "the cat sat", "--precision", "auto")[0] == 0
    code, out, _ = run("why", path, "the cat sat", "--precision", "auto", "--layers", "top", "--json")
    assert (code, [found["field"] for found in json.loads(out)["differences"]]) == (4, ["layers"])


@pytest.mark.parametrize("options", [["--encoder", "bert:large"], ["--layers", "seventh"]])
def test_why_with_an_encoder_that_is_none_exits_with_2(run, elmo_store, options):
    code, out, err = run("why", elmo_store.path, "the cat sat", *options)
    assert (code, out) == (2, "")
    assert options[1] in err


def test_why_tells_of_other_surroundings(run, in_context):
    code, out, _ = run("why", in_context.path, "the cat sat")
    assert code == 1
    assert "not cached without a context; with one the store has it 2 times" in out
    assert sentence_key(LEFT).hex() in out
    found = json.loads(run("why", in_context.path, "the cat sat", "--json")[1])
    assert (found["cached"], found["nearest"]) == (False, [])
    assert [entry["key"] for entry in found["with_conditions"]] == [
        sentence_key(tokens).hex() for tokens in (LEFT, RIGHT)
    ]
    assert found["with_conditions"][0]["condition"] == '{"left":["Look","!"]}'
    assert run("why", in_context.path, "nothing special")[0] == 0
    assert "like it  only here  with " in run("why", in_context.path, "Only here")[1]
