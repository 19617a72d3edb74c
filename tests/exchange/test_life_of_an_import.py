"""What an imported store is good for: all that any store is, but for an encoder that adds to it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featurestore.cli.main import main
from featurestore.corpora.contract.example import Example
from featurestore.dataset.features import FeatureDataset
from featurestore.keys import sentence_key
from featurestore.models.training import TrainConfig, train
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.recoding import recode
from featurestore.store.maintenance.replacing import remove
from featurestore.store.maintenance.selection import select
from featurestore.store.maintenance.subset import subset
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.exchange.imports import WORDS, assert_same, imported
from tests.kit.stores import vectors_of
from tests.kit.threads import one_thread  # noqa: F401


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("import")
    np.save(folder / "x.npy", np.concatenate([vectors_of(tokens) for tokens in WORDS]))
    return imported(folder / "x.npy", "npy", folder / "store", WORDS, shard_bytes=600)


def run(capsys, *words: object) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code, capsys.readouterr().out


def test_halves_are_taken_and_merged_again(store, tmp_path):
    for name, some in (("one", WORDS[:6]), ("other", WORDS[6:])):
        subset(store, select(store, keys=map(sentence_key, some)), tmp_path / name)
    merge([tmp_path / "one", tmp_path / "other"], tmp_path / "both")
    both = Store.open(tmp_path / "both")
    assert_same(both, WORDS, 1)
    assert both.recipe == store.recipe
    remove(both, select(both, keys=map(sentence_key, WORDS[:2])))
    assert_same(both.refreshed(), WORDS[2:], 1)
    assert list(verify(both.refreshed())) == []


def test_recoded_it_loses_what_is_stated_and_stays_imported(store, tmp_path):
    done = recode(store, tmp_path / "int8", "int8")
    small = Store.open(tmp_path / "int8")
    assert small.recipe == store.recipe
    wanted = np.concatenate([vectors_of(tokens) for tokens in WORDS]).astype(np.float64)
    found = np.concatenate([small.get(tokens) for tokens in WORDS])
    lost = np.sqrt(((found - wanted) ** 2).sum() / (wanted**2).sum())
    assert 0 < lost <= done.error.relative_l2 * 1.001
    assert list(verify(small)) == []


def test_commands_look_into_it(store, capsys):
    code, out = run(capsys, "why", store.path, " ".join(WORDS[3]), "--json")
    assert (code, json.loads(out)["cached"]) == (0, True)
    code, out = run(capsys, "why", store.path, " ".join(WORDS[3]), "--encoder", "elmo:demo")
    assert code == 4
    assert "kind" in out
    assert run(capsys, "verify", store.path)[0] == 0
    code, out = run(capsys, "info", store.path, "--json")
    assert json.loads(out)["recipe"]["kind"] == "imported"


def test_a_model_trains_on_it(store):
    examples = [Example(tokens, tuple(str(len(token) % 2) for token in tokens)) for tokens in WORDS]
    dataset = FeatureDataset(store, examples)
    dev = FeatureDataset(store, examples, labels=dataset.labels, unseen_labels="keep")
    result = train(dataset, dev, TrainConfig("linear-tagger", epochs=2, patience=2))
    assert result.model.recipe == store.recipe
