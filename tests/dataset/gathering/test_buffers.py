"""Memory is reused only when nobody holds it: whatever of a batch is kept, its values stay."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
import torch

from featurestore import FeatureDataset, Recipe, Store, feature_loader
from featurestore.dataset.collating import Collating
from featurestore.dataset.gathering.buffers import BufferPool

DIM = 64
SHAPE = (40, 16, DIM)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    store = Store.create(
        tmp_path_factory.mktemp("buffers") / "store", recipe=Recipe({"kind": "test", "version": 1}), dim=DIM
    )
    random = np.random.default_rng(0)
    sentences = [tuple(f"{i}.{j}" for j in range(random.integers(1, 30))) for i in range(1500)]
    with store.write() as session:
        for tokens in sentences:
            session.add(tokens, random.standard_normal((len(tokens), DIM)))
    return FeatureDataset(store.path, sentences)


def assert_batch_is_what_the_store_holds(dataset, batch) -> None:
    for row, index in enumerate(batch.indices.tolist()):
        n = int(batch.lengths[row])
        np.testing.assert_array_equal(
            batch.features[row, :n].numpy(), dataset.store.get(dataset.tokens(index))
        )
        assert not batch.features[row, n:].any()


def test_all_batches_of_an_epoch_can_be_kept(dataset):
    for batch in list(feature_loader(dataset)):
        assert_batch_is_what_the_store_holds(dataset, batch)


@pytest.mark.parametrize(
    "keep",
    [
        lambda f: f[0, :1],
        lambda f: f.numpy()[0, :1],
        lambda f: f.transpose(0, 1)[0:1, 0],
        lambda f: f.detach()[0, :1],
    ],
    ids=["slice", "numpy", "transpose", "detach"],
)
def test_a_view_keeps_the_memory(dataset, keep):
    kept = [(batch.indices[0].item(), keep(batch.features)) for batch in feature_loader(dataset)]
    for index, view in kept:
        np.testing.assert_array_equal(np.asarray(view), dataset.store.get(dataset.tokens(index))[:1])


def test_what_autograd_saved_keeps_the_memory(dataset):
    weight = torch.ones(DIM, requires_grad=True)
    losses, expected = [], torch.zeros(DIM)
    for batch in feature_loader(dataset):
        losses.append((batch.features @ weight).sum())
        expected += batch.features.sum((0, 1))
        del batch
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-2)


def test_memory_of_dropped_tensors_is_used_again():
    pool, places = BufferPool(), set()
    for _ in range(20):
        places.add(pool.empty(SHAPE, torch.float32).data_ptr())
    assert len(places) == 1


@pytest.mark.parametrize("n_held", [1, 2, 3, 4, 7])
def test_tensors_that_are_held_never_share_memory(n_held):
    pool = BufferPool()
    for _ in range(5):
        held = [pool.empty(SHAPE, torch.float32).fill_(i) for i in range(n_held)]
        assert [float(tensor.mean()) for tensor in held] == list(range(n_held))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shape_and_type_are_as_asked_for_also_when_batches_grow(dtype):
    pool = BufferPool()
    for n in (1, 40, 30, 400, 80, 400):
        tensor = pool.empty((n, 16, DIM), dtype)
        assert tensor.shape == (n, 16, DIM)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()


def test_threads_do_not_get_the_same_memory():
    pool, wrong = BufferPool(), []

    def work(number: int) -> None:
        for _ in range(200):
            tensor = pool.empty(SHAPE, torch.float32).fill_(number)
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_pickled_pool_is_small_and_works():
    pool = BufferPool()
    pool.empty(SHAPE, torch.float32)
    raw = pickle.dumps(pool)
    assert len(raw) < 1000
    assert pickle.loads(raw).empty(SHAPE, torch.float32).shape == SHAPE


@pytest.mark.parametrize("options", [{}, {"packed": True}, {"jagged": True}])
@pytest.mark.parametrize("kind", ["plain", "resident", "several", "by name", "windows"])
def test_batches_are_gathered_into_memory_that_is_given(dataset, tmp_path, kind, options):
    if kind == "resident":
        dataset = FeatureDataset(dataset.store, [dataset.tokens(i) for i in range(200)], resident="cpu")
    if kind in ("several", "by name"):
        tokens = [dataset.tokens(i) for i in range(200)]
        second = Store.create(tmp_path / "b", recipe=Recipe({"kind": "b", "version": 1}), dim=3)
        with second.write() as session:
            for sentence in tokens:
                session.add(sentence, np.full((len(sentence), 3), 0.5 + len(sentence)))
        stores = {"a": dataset.store, "b": tmp_path / "b"}
        dataset = FeatureDataset(stores, tokens, as_dict=kind == "by name")
    given, pool = [], BufferPool()

    def empty(shape, dtype):
        memory = pool.empty(shape, dtype)
        memory.fill_(torch.nan)
        given.append((memory.data_ptr(), memory.numel()))
        return memory

    gathering = {}
    window = None
    if kind == "windows":
        window = 1 << 20
    loader = feature_loader(dataset, token_budget=300, window=window, **options)
    plain = feature_loader(dataset, token_budget=300, window=window, **options)
    if kind == "windows":
        reader = loader.sampler.on_pool.__self__
        gathering = {"reader": reader, "stores": dataset.stores.values()}
    loader.collate_fn = Collating(empty=empty, **gathering, **options)

    def parts(batch):
        features = batch.features if isinstance(batch.features, dict) else {"all": batch.features}
        for one in features.values():
            yield one.values() if options.get("jagged") else one.data if options.get("packed") else one

    kept, n_features = [], 0
    for number, (one, other) in enumerate(zip(loader, plain, strict=True)):
        for found, expected in zip(parts(one), parts(other), strict=True):
            n_features += 1
            assert torch.equal(found, expected)
            if kind != "resident" or not options:
                assert (found.data_ptr(), found.numel()) in given
        if number == 1:
            kept.append((one, [expected.clone() for expected in parts(other)]))
    assert len(given) == n_features
    assert len({place for place, _ in given}) < n_features or n_features < 6  # used again when it is free
    for batch, expected in kept:  # and only then
        assert all(map(torch.equal, parts(batch), expected))
