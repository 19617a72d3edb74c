"""Windowed reading: the same vectors, every sentence once an epoch, few windows at a time, one plan."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from featurestore import Example, FeatureDataset, Store, feature_loader
from featurestore.dataset import loader as loading
from featurestore.dataset.sampling import window_reader as reading_windows
from featurestore.dataset.sampling import windows as windowing
from featurestore.dataset.sampling.window_reader import WindowReader
from featurestore.dataset.sampling.windows import WindowBatchSampler, Windows
from featurestore.errors import DamagedStoreError, UsageError
from tests.dataset.batches import CODECS, expected, make_store

MEMORY = 1 << 20


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of some sentences each, and few in a pool."""
    monkeypatch.setattr(windowing, "_WINDOW_BYTES", 1500)
    monkeypatch.setattr(loading, "_LEAST_MEMORY", 1)


def make_dataset(path, codecs=("float16",), **options) -> FeatureDataset:
    store, corpus = make_store(path / "s.fs", list(codecs), n_layers=options.pop("n_layers", 1))
    return FeatureDataset(store, corpus, **options)


def sampler_of(dataset, memory=12_000, **options) -> WindowBatchSampler:
    return WindowBatchSampler(dataset.lengths, dataset.windows(memory), token_budget=40, **options)


def assert_loads_everything(dataset, loader) -> None:
    seen = []
    for batch in loader:
        for row, n, i in zip(batch.features, batch.lengths.tolist(), batch.indices.tolist(), strict=True):
            seen.append(i)
            tokens = dataset.tokens(i)
            if tokens in dataset.store:
                assert torch.equal(row[:n], expected(dataset.store, tokens, dataset.dtype))
                n_stored = n
            else:
                n_stored = 0
            assert not row[n_stored:].any()
    assert sorted(seen) == list(range(len(dataset)))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("codecs", [*([codec] for codec in CODECS), CODECS], ids="-".join)
def test_windows_give_what_the_store_holds(tmp_path, small_windows, codecs, n_layers, shuffle):
    dataset = make_dataset(tmp_path, codecs, n_layers=n_layers)
    loader = feature_loader(dataset, token_budget=40, shuffle=shuffle, window=6_000)
    assert len(loader.batch_sampler.pools(0)) > 2
    for _ in range(2):
        assert_loads_everything(dataset, loader)


@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_missing_repeated_and_few_sentences_are_served_too(tmp_path, small_windows, access):
    _, corpus = make_store(tmp_path / "s.fs", ["int8"])
    some = [*corpus[::7], ("not", "stored"), *corpus[:9], ("nor", "this", "one")]
    dataset = FeatureDataset(Store.open(tmp_path / "s.fs", access=access), some, on_missing="zeros")
    assert_loads_everything(dataset, feature_loader(dataset, token_budget=40, window=12_000))
    empty = FeatureDataset(dataset.store, [])
    assert list(feature_loader(empty, window=MEMORY)) == []


def test_vectors_come_from_the_windows(tmp_path, small_windows, monkeypatch):
    dataset = make_dataset(tmp_path)
    served = []
    rows = WindowReader.rows

    def remembering(self, *place):
        found = rows(self, *place)
        served.append(found is not None)
        return found

    monkeypatch.setattr(WindowReader, "rows", remembering)
    for _ in feature_loader(dataset, token_budget=40, window=12_000):
        pass
    assert len(served) == len(dataset)
    assert all(served)


def test_the_loader_packs_from_windows(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    options = {"token_budget": 40, "window": 12_000}
    for one, other in zip(
        feature_loader(dataset, **options), feature_loader(dataset, packed=True, **options), strict=True
    ):
        assert torch.equal(one.packed().features.data, other.features.data)


def test_a_window_is_a_stretch_of_one_shard_and_holds_its_sentences(tmp_path, small_windows):
    dataset = make_dataset(tmp_path, ["float16"])
    windows = dataset.windows(12_000)
    assert len(windows.regions) > 8
    assert windows.n_bytes.max() < 1500 + 12 * 24 * 2
    for i, window in enumerate(windows.of.tolist()):
        region = windows.regions[window]
        bounds = dataset.store.reader(region.shard).bounds
        found = dataset.store.locate([dataset.store.reader(region.shard).key(0)])
        assert found.shard[0] == region.shard
        start = bounds[int(dataset._sources.each[0].places.row[i])]
        assert region.shard == dataset._sources.each[0].places.shard[i]
        assert region.first <= start
        assert start + dataset.lengths[i] <= region.stop


def test_what_the_dataset_does_not_use_is_not_read_over(tmp_path, monkeypatch):
    store, corpus = make_store(tmp_path / "s.fs", ["float16"])
    monkeypatch.setattr(windowing, "_GAP_BYTES", 500)
    every, few = Windows(*places(store, corpus), MEMORY), Windows(*places(store, corpus[::20]), MEMORY)
    assert few.n_bytes.sum() < 0.3 * every.n_bytes.sum()


def places(store, corpus):
    dataset = FeatureDataset(store, corpus)
    return store, *dataset._sources.each[0].places, dataset.lengths


def test_batches_are_a_function_of_settings_seed_and_epoch(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    sampler = sampler_of(dataset, seed=3)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert list(sampler_of(dataset, seed=3)) == first
    assert list(sampler_of(dataset, seed=4)) != first
    sampler.set_epoch(1)
    assert (len(sampler), list(sampler)) == (len(second), second)


def test_a_batch_comes_from_one_pool_and_pools_keep_to_their_memory(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    sampler = sampler_of(dataset)
    entered = []
    sampler.on_pool = lambda pool, following: entered.append((tuple(pool), tuple(following)))
    pools = [tuple(pool) for pool in sampler.pools(0)]
    for batch in sampler:
        assert {int(w) for w in sampler.windows.of[batch]} <= set(entered[-1][0])
    next_pass = tuple(sampler.pools(1)[0])
    assert entered == list(itertools.pairwise([*pools, next_pass]))
    assert sorted(itertools.chain(*pools)) == list(range(len(sampler.windows.regions)))
    for pool in pools:
        assert sampler.windows.n_bytes[list(pool)].sum() <= 6000 + sampler.windows.n_bytes.max()


def test_budgets_hold_within_windows(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    for batch in sampler_of(dataset, max_sentences=5):
        assert len(batch) <= 5
        assert len(batch) == 1 or len(batch) * max(dataset.lengths[batch]) <= 40


def test_two_passes_at_once_give_the_right_vectors(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    loader = feature_loader(dataset, token_budget=40, window=12_000)
    for one, other in zip(loader, loader, strict=False):
        for batch in (one, other):
            i, n = int(batch.indices[0]), int(batch.lengths[0])
            assert torch.equal(
                batch.features[0, :n], expected(dataset.store, dataset.tokens(i), torch.float32)
            )


def test_passes_of_several_threads_give_the_right_vectors(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    loader = feature_loader(dataset, token_budget=40, window=12_000)
    start = threading.Barrier(4)

    def load(_) -> None:
        start.wait()
        for _ in range(3):
            assert_loads_everything(dataset, loader)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(load, range(4)))


@pytest.mark.parametrize("n_ranks", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_process_reads_windows_of_its_own(tmp_path, small_windows, n_ranks, shuffle):
    store, corpus = make_store(tmp_path / "s.fs", ["float16"], n=400)
    dataset = FeatureDataset(store, corpus)
    alone = [set(batch) for batch in sampler_of(dataset, memory=24_000, shuffle=shuffle)]
    read, seen, elsewhere = [], [], 0
    for rank in range(n_ranks):
        sampler = sampler_of(dataset, memory=24_000, shuffle=shuffle, num_replicas=n_ranks, rank=rank)
        entered = []
        sampler.on_pool = lambda pool, following, entered=entered: entered.append((pool, following))
        for batch in sampler:
            here = set(sampler.windows.of[batch].tolist())
            elsewhere += not here <= set(entered[-1][0])
            assert any(set(batch) <= whole for whole in alone)
            seen.extend(batch)
        assert [pool for pool, _ in entered[1:]] == [following for _, following in entered[:-1]]
        read.append([window for pool, _ in entered for window in pool])
    pools = sampler.pools(0)
    assert len(pools) > 2 * n_ranks
    assert sorted(seen) == list(range(len(dataset)))
    assert set(itertools.chain(*read)) == set(range(len(sampler.windows.regions)))
    assert elsewhere < 0.3 * len(alone)  # nine batches a pool: of many, it is one in twenty
    for windows in read:
        assert len(windows) == len(set(windows))
        n_pools = sum(set(pool) <= set(windows) for pool in pools)
        assert n_pools == -(-len(pools) // n_ranks)  # the last pools may be fewer than the processes


@pytest.mark.parametrize("n_ranks", [2, 5])
def test_ranks_go_through_the_same_pools(tmp_path, small_windows, n_ranks):
    dataset = make_dataset(tmp_path)
    seen = []
    for rank in range(n_ranks):
        for batch in feature_loader(dataset, token_budget=40, window=12_000, num_replicas=n_ranks, rank=rank):
            seen.extend(batch.indices.tolist())
            i, n = int(batch.indices[0]), int(batch.lengths[0])
            assert torch.equal(
                batch.features[0, :n], expected(dataset.store, dataset.tokens(i), torch.float32)
            )
    assert sorted(seen) == list(range(len(dataset)))


def test_auto_looks_at_the_part_that_is_loaded(example_store, examples, monkeypatch):
    dataset = FeatureDataset(example_store, examples)
    monkeypatch.setattr(loading, "available_bytes", lambda device: dataset.stored_bytes // 2)
    assert isinstance(feature_loader(dataset).batch_sampler, WindowBatchSampler)
    part = feature_loader(Subset(dataset, range(10)))
    assert not isinstance(part.batch_sampler, WindowBatchSampler)
    assert sum(map(len, part)) == 10


@pytest.mark.parametrize("refuses", ["open", "read"])
def test_a_disk_without_direct_reads_is_read_all_the_same(tmp_path, small_windows, monkeypatch, refuses):
    dataset = make_dataset(tmp_path)
    direct, dropped = set(), []
    opening, reading, advising = reading_windows.open_for_reading, os.preadv, os.posix_fadvise

    def open_(path, flags=0):
        if flags and refuses == "open":
            raise OSError(errno.EINVAL, "no direct reads here")
        descriptor = opening(path, 0)
        (direct.add if flags else direct.discard)(descriptor)
        return descriptor

    def read(descriptor, *arguments):
        if descriptor in direct:
            raise OSError(errno.EINVAL, "no direct reads here")
        return reading(descriptor, *arguments)

    def advise(*arguments):
        dropped.append(arguments)
        advising(*arguments)

    monkeypatch.setattr(reading_windows, "open_for_reading", open_)
    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    assert_loads_everything(dataset, feature_loader(dataset, token_budget=40, window=12_000))
    assert dropped


def harm(dataset, change) -> str:
    entry = dataset.store.manifest.shards[1]
    path = dataset.store.path / "shards" / entry.name
    path.chmod(0o644)
    change(path, entry.extents["values"].offset)
    return entry.name


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 0x10
    path.write_bytes(data)


def test_damaged_bytes_in_a_window_stop_the_loader(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    name = harm(dataset, flip)
    with pytest.raises(DamagedStoreError, match=name):
        list(feature_loader(dataset, token_budget=40, window=12_000))


def test_a_shard_that_is_cut_under_the_reader_stops_the_loader(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    name = harm(dataset, lambda path, offset: os.truncate(path, offset + 10))
    with pytest.raises(DamagedStoreError, match=f"{name} (ends before|has)"):
        list(feature_loader(dataset, token_budget=40, window=12_000))


def test_a_shard_that_is_gone_stops_the_loader(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    name = harm(dataset, lambda path, offset: path.unlink())
    with pytest.raises(DamagedStoreError, match=f"{name} cannot be opened"):
        list(feature_loader(dataset, token_budget=40, window=12_000))


def test_auto_reads_in_windows_only_what_does_not_fit(example_store, examples, monkeypatch):
    dataset = FeatureDataset(example_store, examples)
    assert dataset.stored_bytes == dataset.lengths.sum() * dataset.dim * 2
    monkeypatch.setattr(loading, "available_bytes", lambda device: dataset.stored_bytes)
    assert not isinstance(feature_loader(dataset).batch_sampler, WindowBatchSampler)
    monkeypatch.setattr(loading, "available_bytes", lambda device: dataset.stored_bytes - 1)
    assert isinstance(feature_loader(dataset).batch_sampler, WindowBatchSampler)
    for options in ({"window": None}, {"num_workers": 1}, {"collate_fn": list}):
        assert not isinstance(feature_loader(dataset, **options).batch_sampler, WindowBatchSampler)


@pytest.mark.parametrize("window", [0, -1, 100, "big", 1.5])
def test_windows_of_nothing_are_wrong_use(example_store, examples, window):
    with pytest.raises(UsageError, match=r"window=.*expected bytes of memory"):
        feature_loader(FeatureDataset(example_store, examples), window=window)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 1},
        {"collate_fn": list},
        {"resident": "cpu"},
        {"shuffle": "by length"},
        {"weights": "balanced"},
    ],
)
def test_windows_and_what_cannot_use_them_are_wrong_use(example_store, examples, options):
    dataset = FeatureDataset(example_store, examples, resident=options.pop("resident", None))
    with pytest.raises(UsageError, match="leave out"):
        feature_loader(dataset, window=MEMORY, **options)


def test_workers_are_said_to_be_slower(example_store, examples, caplog):
    dataset = FeatureDataset(example_store, examples)
    feature_loader(dataset)
    feature_loader(dataset, num_workers=1, collate_fn=list)
    assert caplog.text == ""
    feature_loader(dataset, num_workers=2)
    assert "num_workers=0 is faster" in caplog.text


def test_labels_come_along(example_store, examples, small_windows):
    dataset = FeatureDataset(example_store, examples)
    for batch in feature_loader(dataset, token_budget=40, window=2000):
        for labels, n, i in zip(batch.labels, batch.lengths.tolist(), batch.indices.tolist(), strict=True):
            assert [dataset.label_names[k] for k in labels[:n]] == list(examples[i].labels)
    assert isinstance(examples[0], Example)


def test_shuffling_mixes_the_whole_store(tmp_path, small_windows):
    dataset = make_dataset(tmp_path)
    position = np.empty(len(dataset))
    place = np.lexsort(dataset._sources.each[0].places[::-1]).argsort()
    drawn = [i for batch in sampler_of(dataset) for i in batch]
    position[drawn] = np.arange(len(dataset))
    displacement = np.abs(position - place).mean() / (len(dataset) / 3)
    assert 0.6 < displacement < 1.4
