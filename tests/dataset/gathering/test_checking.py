"""Checksums that the compiled gather compares: their values, and damage found before it is served."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
import torch
import xxhash

from featurestore import FeatureDataset, Store, native
from featurestore.dataset.gathering import compiled
from featurestore.errors import DamagedStoreError
from featurestore.recipe import Recipe
from tests.dataset.batches import CODECS, assert_right, make_store
from tests.kit.damage import flip_bit

pytestmark = pytest.mark.skipif(
    compiled.compiled_gather(1, (1,)) is None, reason="gather.c was not compiled here"
)


def test_the_hash_is_that_of_the_xxhash_package_at_any_length_address_and_cut():
    function = compiled._library().featurestore_hash
    function.restype = ctypes.c_uint64
    function.argtypes = [*[ctypes.c_void_p, ctypes.c_int64] * 2, ctypes.c_int64]
    random = np.random.default_rng(0)
    content = random.integers(0, 256, 1 << 20, dtype=np.uint8)
    address = content.ctypes.data
    for n in [*range(4097), 65_537, 131_072, 1_000_003]:
        first = address + n % 67
        cuts = {0, n, n // 2, max(0, n - 4), int(random.integers(n + 1))}
        # Of two pieces as of one, whole and step by step.
        steps = (0, 1 + n // 3, 64 + n // 5)
        found = {function(first, cut, first + cut, n - cut, step) for cut in cuts for step in steps}
        assert found == {xxhash.xxh3_64_intdigest(content[n % 67 : n % 67 + n].data)}, n


def with_writable_shards(path, codecs, n_layers):
    store, corpus = make_store(path, codecs, n_layers=n_layers, n=12)
    for entry in store.manifest.shards:
        (store.path / "shards" / entry.name).chmod(0o644)
    return store, corpus


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_byte_is_found_before_its_vector_is_served(tmp_path, monkeypatch, codec, n_layers):
    store, corpus = with_writable_shards(tmp_path / "s.fs", [codec], n_layers)
    entry = store.manifest.shards[0]
    shard, reader = store.path / "shards" / entry.name, store.reader(0)
    values = entry.extents["values"]
    row = 2
    bounds = [values.offset + bound * (values.n_bytes // values.shape[0]) for bound in reader.bounds]
    first, last = bounds[row], bounds[row + 1] - 1
    for offset in (first, (first + last) // 2, last):
        flip_bit(shard, offset, bit=6)
        said = set()
        for switch in ("1", "0"):
            monkeypatch.setenv(native.SWITCH, switch)
            for form in ({}, {"packed": True}, {"jagged": True}):
                again = Store.open(store.path)
                dataset = FeatureDataset(again, corpus, remember=False)
                for _ in range(2):
                    with pytest.raises(DamagedStoreError, match=f"sentence {row} .* has checksum") as caught:
                        dataset.gather([0, 3, row, 1], **form)
                    said.add(str(caught.value))
                error = caught.value
                assert (error.path, error.shard, error.row) == (shard, entry.name, row)
                assert again.reader(0).verified[row] == 0
                assert_right(dataset, again, corpus, [0, 3, 1])
        assert len(said) == 1
        flip_bit(shard, offset, bit=6)
    monkeypatch.setenv(native.SWITCH, "1")
    assert_right(
        FeatureDataset(Store.open(store.path), corpus, remember=False), store, corpus, [0, 3, row, 1]
    )


def test_every_sentence_is_compared_once_and_those_of_other_stores_too(tmp_path):
    right, corpus = with_writable_shards(tmp_path / "right", CODECS, 1)
    other = Store.create(tmp_path / "other", recipe=Recipe({"kind": "test", "version": 2}), dim=3)
    with other.write() as session:
        for number, tokens in enumerate(corpus):
            session.add(tokens, np.full((len(tokens), 3), number + 1, np.float32))
    other = other.refreshed()
    dataset = FeatureDataset([right, other], corpus, remember=False)
    dataset.gather(range(20))
    readers = [store.reader(n) for store in (right, other) for n in range(len(store.manifest.shards))]
    assert sum(sum(reader.verified) for reader in readers) == 2 * 20
    shard = right.path / "shards" / right.manifest.shards[0].name
    whole = dataset.gather([0])
    flip_bit(shard, right.manifest.shards[0].extents["values"].offset)
    assert not torch.equal(dataset.gather([0]).features, whole.features)  # it was compared before
    with pytest.raises(DamagedStoreError, match=r"sentence 0 .* has checksum"):
        FeatureDataset([Store.open(right.path), other], corpus, remember=False).gather([5, 0])


def test_a_shard_that_was_cut_is_an_error_where_its_next_sentence_is_read_first(tmp_path):
    store, corpus = with_writable_shards(tmp_path / "s.fs", ["float16"], 1)
    dataset = FeatureDataset(store, corpus, remember=False)
    dataset.gather([0])
    entry = store.manifest.shards[0]
    os.truncate(store.path / "shards" / entry.name, entry.n_bytes - 1)
    with pytest.raises(DamagedStoreError, match=r"bytes now, .* it was cut"):
        dataset.gather([0, 1])
