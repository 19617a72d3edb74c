"""Memory is reused only when nobody holds it: whatever of a batch is kept, its values stay."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
import torch

from featurestore import FeatureDataset, Recipe, Store, feature_loader
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
