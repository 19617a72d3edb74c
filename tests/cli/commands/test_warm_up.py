"""``warm-up`` as a user runs it, and the commands that take ``--initial-state``."""

from __future__ import annotations

import json
import shutil

import pytest

from featurestore import Store
from featurestore.encoders.loading import encoder_recipe

JSON_KEYS = {
    "spec", "path", "in_place", "written", "sha256", "weights_sha256", "n_sentences", "n_tokens", "n_streams",
}  # fmt: skip


@pytest.fixture
def model(tmp_path, tiny_elmo_spec):
    paths = []
    for path in tiny_elmo_spec.removeprefix("elmo:").split(","):
        paths.append(str(shutil.copy(path, tmp_path)))
    return "elmo:" + ",".join(paths)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"The cat number {n} sat on mat {n * n % 7}\n" for n in range(100)))
    return path


def test_says_what_it_did_and_how_to_use_it(run, model, corpus, tmp_path):
    code, out, err = run("warm-up", model, corpus)
    assert (code, err) == (0, "")
    path = tmp_path / "weights.warm.hdf5"
    assert path.exists()
    for fragment in (
        f"model   {model}", "96 sentences, 768 tokens in 8 streams", f"wrote   {path}",
        f"--encoder {model} --initial-state warm",
    ):  # fmt: skip
        assert fragment in out
    code, again, _ = run("warm-up", model, corpus)
    assert code == 0
    assert f"unchanged  {path}" in again


def test_json_is_one_object(run, model, corpus, tmp_path):
    code, out, err = run("warm-up", model, corpus, "--json", "--max-tokens", "400")
    found = json.loads(out)
    assert (code, err, found.keys()) == (0, "", JSON_KEYS)
    assert found["path"] == str(tmp_path / "weights.warm.hdf5")
    assert (found["spec"], found["written"], found["in_place"]) == (model, True, True)
    assert found["n_tokens"] <= 400
    assert found["sha256"] == encoder_recipe(model, initial_state="warm")["initial_state_sha256"]


def test_another_state_is_exit_1_without_force(run, model, corpus, tmp_path):
    assert run("warm-up", model, corpus)[0] == 0
    other = tmp_path / "other.tsv"
    other.write_text("text\n" + "".join(f"other text {n}\n" for n in range(50)))
    code, out, err = run("warm-up", model, other, "--text-column", "text")
    assert (code, out) == (1, "")
    assert "no longer match" in err
    assert "--force" in err
    assert run("warm-up", model, other, "--text-column", "text", "--force")[0] == 0


def test_out_says_where_it_would_be_used(run, model, corpus, tmp_path):
    code, out, _ = run("warm-up", model, corpus, "--out", tmp_path / "mine.hdf5")
    assert code == 0
    assert (tmp_path / "mine.hdf5").exists()
    assert "beside its weights" in out


def test_a_store_is_extracted_resumed_and_explained_with_the_state(run, model, corpus, tmp_path):
    store = tmp_path / "store"
    warm = [corpus, "--store", store, "--encoder", model, "--initial-state", "warm"]
    for command in ("plan", "extract"):
        code, _, err = run(command, *warm)
        assert code == 1
        assert f"featurestore warm-up {model} CORPUS..." in err
    assert not store.exists()
    assert run("warm-up", model, corpus)[0] == 0
    assert run("plan", *warm)[0] == 0
    assert run("extract", *warm)[0] == 0
    opened = Store.open(store)
    assert opened.recipe == encoder_recipe(model, initial_state="warm")
    state = opened.recipe["initial_state_sha256"]
    code, out, _ = run("info", store)
    assert "initial_state: warm" in out
    assert f"initial_state_sha256: {state}" in out

    # The store's own state is the default, as its layers are.
    (tmp_path / "more.txt").write_text("One more sentence\n")
    assert run("extract", tmp_path / "more.txt", "--store", store)[0] == 0
    assert run("extract", tmp_path / "more.txt", "--store", store, "--encoder", model)[0] == 0
    assert len(Store.open(store)) == 101
    code, _, err = run("extract", corpus, "--store", store, "--initial-state", "zero")
    assert code == 4
    assert 'initial_state: "warm" in ' in err

    assert run("why", store, "One more sentence", "--initial-state", "warm")[0] == 0
    code, out, _ = run("why", store, "One more sentence", "--initial-state", "zero")
    assert code == 4
    assert "recipe    initial_state: warm in the store, zero wanted" in out
    assert f"recipe    initial_state_sha256: {state} in the store, (absent) wanted" in out
    assert run("why", store, "One more sentence", "--initial-state", "carry")[0] == 2


def test_without_an_encoder_a_new_store_is_the_bundled_models(run, corpus, tmp_path, bundled):
    assert "elmo:demo" in run("plan", corpus, "--store", tmp_path / "store")[1]
    assert run("extract", corpus, "--store", tmp_path / "store")[0] == 0
    assert Store.open(tmp_path / "store").encoder == "elmo:demo"
