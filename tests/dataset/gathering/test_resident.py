"""Resident vectors are those the store holds, need what they say, and are refused where they do not fit."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch

from featurestore import Example, FeatureDataset, Store, feature_loader
from featurestore.dataset.gathering import memory, resident
from featurestore.errors import DamagedStoreError, UsageError
from tests.dataset.batches import CODECS, assert_right, make_store


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_what_the_store_holds(tmp_path, codec, n_layers, dtype):
    store, corpus = make_store(tmp_path / "s.fs", [codec], n_layers=n_layers)
    corpus = [*corpus, ("not", "stored"), *corpus[:5]]
    dataset = FeatureDataset(store, corpus, on_missing="zeros", dtype=dtype, resident="cpu")
    for indices in ([0], [60, 3, 3, 1], list(range(len(corpus))), [-6]):
        assert_right(dataset, store, corpus, [i % len(corpus) for i in indices])


def test_the_loader_gives_the_same_batches_resident_or_not(example_store, examples):
    for packed in (False, True):
        read = feature_loader(FeatureDataset(example_store, examples), token_budget=40, packed=packed)
        held = feature_loader(
            FeatureDataset(example_store, examples, resident="cpu"), token_budget=40, packed=packed
        )
        for one, other in zip(read, held, strict=True):
            features = [b.features.data if packed else b.features for b in (one, other)]
            assert torch.equal(*features)
            for name in ("lengths", "mask", "labels", "indices"):
                assert torch.equal(getattr(one, name), getattr(other, name))


def test_items_are_the_same_too(example_store, examples):
    read, held = (
        FeatureDataset(example_store, examples),
        FeatureDataset(example_store, examples, resident="cpu"),
    )
    for i in (0, 7, -1):
        for one, other in zip(read[i], held[i], strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_repeated_sentences_are_held_once(example_store, examples):
    once = FeatureDataset(example_store, examples, resident="cpu")
    thrice = FeatureDataset(example_store, [*examples] * 3, resident="cpu")
    assert once.resident_bytes == thrice.resident_bytes == (once.lengths.sum() + 1) * once.dim * 2
    assert FeatureDataset(example_store, examples).resident_bytes == 0


def test_what_is_needed_is_said_before(example_store, examples, caplog):
    with caplog.at_level(logging.INFO, "featurestore"):
        dataset = FeatureDataset(example_store, examples, resident="cpu")
    assert f"need {dataset.resident_bytes} bytes on cpu" in caplog.text


def test_what_does_not_fit_is_refused(example_store, examples, monkeypatch):
    monkeypatch.setattr(resident, "available_bytes", lambda device: 1000)
    with pytest.raises(
        UsageError, match=r"need [\d,]+ bytes on cpu, where 1,000 are free: leave resident out"
    ):
        FeatureDataset(example_store, examples, resident="cpu")


def test_free_memory_is_what_the_control_group_leaves(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    everything = memory.available_bytes(cpu)
    assert everything > 0
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\nfile 300000\n")
    assert memory.available_bytes(cpu) == 1_300_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(cpu) > 1_300_000


def test_a_machine_that_does_not_say_what_is_free_says_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    assert memory.available_bytes(torch.device("cpu")) > 0


def test_shards_of_several_codecs_are_refused(tmp_path):
    store, corpus = make_store(tmp_path / "s.fs", ["float16", "int8"])
    with pytest.raises(UsageError, match="several codecs"):
        FeatureDataset(store, corpus, resident="cpu")


@pytest.mark.parametrize("device", ["cuda:77", "tpu", ""])
def test_a_device_that_is_not_here_is_wrong_use(example_store, examples, device):
    with pytest.raises(UsageError, match="device"):
        FeatureDataset(example_store, examples, resident=device)


def test_damage_is_noticed_while_loading(tmp_path):
    store, corpus = make_store(tmp_path / "s.fs", ["float16"])
    entry = store.manifest.shards[1]
    path = store.path / "shards" / entry.name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(DamagedStoreError, match=entry.name):
        FeatureDataset(Store.open(store.path), corpus, resident="cpu")


def test_workers_are_refused_and_pickling_leaves_the_vectors_behind(example_store, examples):
    dataset = FeatureDataset(example_store, examples, resident="cpu")
    with pytest.raises(UsageError, match="num_workers=2"):
        feature_loader(dataset, num_workers=2)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.resident_bytes == 0
    assert torch.equal(again.gather([1, 2]).features, dataset.gather([1, 2]).features)


def test_nothing_stored_is_all_zeros(example_store):
    dataset = FeatureDataset(example_store, [Example(("x", "y"))], on_missing="zeros", resident="cpu")
    assert not dataset.gather([0]).features.any()
