"""Batches against the store itself: every codec, layers, types, lengths, and ways of reading."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from featurestore import FeatureDataset, Store, native
from featurestore.dataset.gathering import compiled, decoding, gather
from featurestore.errors import DamagedStoreError
from tests.dataset.batches import CODECS, RECIPE, assert_right, expected, make_store, sentences


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def way(request, monkeypatch):
    """Everything holds for the compiled gather and for torch."""
    if request.param == "torch":
        monkeypatch.setenv(native.SWITCH, "0")
    elif compiled.compiled_gather(1, (1,)) is None:
        pytest.skip("gather.c was not compiled here, or not for this processor")
    return request.param


@pytest.mark.parametrize("access", ["mmap", "pread"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("codecs", [["float32"], ["float16"], ["int8"], CODECS], ids="-".join)
def test_batches_are_what_the_store_holds(tmp_path, codecs, n_layers, dtype, access):
    _, corpus = make_store(tmp_path / "s.fs", codecs, n_layers=n_layers)
    store = Store.open(tmp_path / "s.fs", access=access)
    assert len(store.manifest.shards) > len(codecs)
    corpus = [*corpus, ("not", "stored"), ("neither",)]
    dataset = FeatureDataset(store, corpus, on_missing="zeros", dtype=dtype)
    random = np.random.default_rng(0)
    for size in (1, 2, 7, len(corpus)):
        assert_right(dataset, store, corpus, random.permutation(len(corpus))[:size].tolist())
    assert_right(dataset, store, corpus, [len(corpus) - 1, len(corpus) - 2])
    assert_right(dataset, store, corpus, [len(corpus) - 2, 0, 0, 1])


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 5000, 1 << 30])
@pytest.mark.parametrize("codec", CODECS)
def test_batches_do_not_depend_on_how_they_are_cut(tmp_path, codec, chunk_bytes, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk_bytes)
    store, corpus = make_store(tmp_path / "s.fs", [codec])
    assert_right(FeatureDataset(store, corpus), store, corpus, list(range(len(corpus))))


def test_int8_in_half_precision_is_rounded_once(tmp_path):
    store = Store.create(tmp_path / "s.fs", recipe=RECIPE, dim=4, codec="int8")
    tokens, huge = ("a", "b"), np.full((2, 4), 3e-6, np.float32)
    huge[:, 0] = 6e4  # a large norm beside small ones: products on the way would overflow or vanish
    with store.write() as session:
        session.add(tokens, huge)
    store = Store.open(store.path)
    batch = FeatureDataset(store, [tokens], dtype=torch.float16).gather([0])
    assert torch.equal(batch.features[0], expected(store, tokens, torch.float16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(1,), (7,), (21,), (3, 13), (2, 32)], ids=str)
def test_every_width_and_every_kind_of_number(tmp_path, shape, codec, dtype):
    n_layers, dim = (1, *shape)[-2:]
    store = Store.create(tmp_path / "s.fs", recipe=RECIPE, dim=dim, n_layers=n_layers, codec=codec)
    corpus = sentences(40, 9, 0)
    random = np.random.default_rng(1)
    with store.write() as session:
        for tokens in corpus:
            size = (len(tokens), *store.vector_shape(0)[1:])
            # From what even float32 rounds to a subnormal to what is too much for float16 batches. A store
            # refuses what its codec cannot hold: int8 less than 2^-100, float16 what it rounds to nothing.
            low, tall = {"float32": (-45, 8), "float16": (-45, 4), "int8": (-25, 8)}[codec]
            wide = random.standard_normal(size) * 10.0 ** random.integers(low, tall, size)
            session.add(tokens, wide.astype(np.float16 if codec == "float16" else np.float32))
    store = Store.open(store.path)
    dataset = FeatureDataset(store, corpus, dtype=dtype)
    assert_right(dataset, store, corpus, list(range(len(corpus))))
    resident = FeatureDataset(store, corpus, dtype=dtype, resident="cpu")
    assert torch.equal(resident.gather([5, 3]).features, dataset.gather([5, 3]).features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_slice_of_a_wider_batch_is_filled_and_its_neighbours_are_left_alone(
    tmp_path, n_layers, codec, dtype
):
    store, corpus = make_store(tmp_path / "s.fs", [codec], n_layers=n_layers, dim=7, n=20)
    dataset = FeatureDataset(store, [*corpus, ("not", "stored")], on_missing="zeros", dtype=dtype)
    gatherer, indices = gather.Gatherer(store), [3, 20, 0, 0, 11]
    places = [array[indices] for array in (dataset.lengths, *dataset._sources.each[0].places)]
    resident = FeatureDataset(store, [*corpus, ("not", "stored")], on_missing="zeros", resident="cpu")
    padded = dataset.gather(indices)
    into = torch.randperm(int(padded.lengths.sum()), generator=torch.Generator().manual_seed(0))
    end_to_end = padded.features[padded.mask]
    wanted = {
        "padded": padded.features,
        "resident": padded.features,
        "end to end": end_to_end,
        "into rows": torch.empty_like(end_to_end).index_copy_(0, into, end_to_end),
    }
    for how, expected_rows in wanted.items():
        wide = torch.full((*expected_rows.shape[:-1], 2 + 7 + 3), 5, dtype=dtype)
        if n_layers > 1:  # a token's layers together: what a slice of is even
            flat = expected_rows.flatten(-2)
            wide = torch.full((*flat.shape[:-1], 2 + flat.shape[-1] + 3), 5, dtype=dtype)
        out = wide[..., 2:-3].view(expected_rows.shape)
        if how == "resident":
            resident._sources.each[0].resident.gather(padded.indices, padded.mask, out)
        elif how == "padded":
            gatherer.gather_padded(out, *places)
        else:
            gatherer.gather_packed(out, *places, into=into if how == "into rows" else None)
        assert torch.equal(out, expected_rows), how
        assert torch.all(wide[..., :2] == 5)
        assert torch.all(wide[..., -3:] == 5)


def test_checksums_are_compared_before_anything_is_served(tmp_path):
    store, corpus = make_store(tmp_path / "s.fs", ["float16"])
    entry = store.manifest.shards[0]
    path = store.path / "shards" / entry.name
    content = bytearray(path.read_bytes())
    content[entry.extents["values"].offset + 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    dataset = FeatureDataset(Store.open(store.path), corpus)
    for _ in range(2):
        with pytest.raises(DamagedStoreError, match=r"sentence 0 .* has checksum"):
            dataset.gather([1, 0])
        assert_right(dataset, store, corpus, [1, 2])


def test_a_pickled_gatherer_reads_the_same(tmp_path):
    store, corpus = make_store(tmp_path / "s.fs", ["float16"])
    dataset = FeatureDataset(store, corpus)
    dataset.gather([0, 1])
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.gather([3, 5]).features, dataset.gather([3, 5]).features)


def test_the_compiled_gather_writes_only_into_what_is_as_large_as_it_needs(tmp_path, way):
    if way == "torch":
        pytest.skip("is of the compiled gather")
    store, corpus = make_store(tmp_path / "s.fs", ["float32"], dim=4, n=5)
    dataset = FeatureDataset(store, corpus)
    dataset.gather([0, 1])  # opens and verifies
    gatherer = dataset._sources.each[0].gatherer
    shard, row = (array[:2] for array in dataset._sources.each[0].places)
    source = compiled.Source(gatherer.compiled, shard, row)
    lengths, longest = dataset.lengths[:2], int(dataset.lengths[:2].max())
    sound, small = torch.full((2, longest, 4), 5.0), torch.full((1, longest, 4), 5.0)
    assert compiled.gather_together([source], sound, lengths, longest=longest)
    assert not compiled.gather_together([source], small, lengths, longest=longest)
    assert torch.all(small == 5)
    in_pieces = torch.zeros(3, 6, 4)[:, ::2].transpose(0, 1)
    assert not compiled.takes(in_pieces, 4)
    assert compiled.takes(torch.zeros(3, 6, 9)[..., :4], 4)
