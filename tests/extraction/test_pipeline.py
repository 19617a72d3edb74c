"""Batches of several shards under way at once: the device has work, shards keep their order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from featurestore import Store, extract
from featurestore.errors import EncoderOutOfMemory
from featurestore.store.verification import verify
from tests.kit.doubles import DoubleEncoder, draw_sentences, vectors_of

pytestmark = pytest.mark.usefixtures("ctrl_c_interrupts")

SHARD_BYTES = 40 * 8 * 2
"""Forty tokens."""


class Device(DoubleEncoder):
    """A GPU that loses some batches, and counts what is under way when it is given the next."""

    def __init__(self, lost=(), **options) -> None:
        super().__init__(device="cuda:0", **options)
        self.lost, self.n_lost, self.under_way, self.seen = set(lost), 0, 0, []

    def submit(self, sentences):
        number = len(self.batches)
        pending = super().submit(sentences)
        self.seen.append(self.under_way)
        self.under_way += 1
        arrive = pending.result

        def result():
            self.under_way -= 1
            vectors = arrive()
            if number in self.lost:
                self.n_lost += 1
                raise EncoderOutOfMemory("the device is full")
            return vectors

        pending.result = result
        return pending


def shards_of(path) -> list[str]:
    store = Store.open(path)
    assert list(verify(store)) == []
    for tokens, vectors in store:
        assert np.allclose(vectors, vectors_of(tokens), atol=0.01)
    return [shard.name for shard in store.manifest.shards]


def test_a_device_has_a_batch_to_work_on_while_the_next_shard_is_read(tmp_path):
    device = Device(token_budget=1000)  # each shard is a batch
    extract(draw_sentences(60), device, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    assert len(device.batches) == len(shards_of(tmp_path / "store")) > 5
    assert device.seen == [0] + [1] * (len(device.batches) - 1)
    assert device.under_way == 0


@pytest.mark.parametrize("seed", range(20))
def test_lost_batches_change_neither_shards_nor_their_order(tmp_path, seed):
    draw = random.Random(seed)
    sentences = draw_sentences(80, seed=seed)
    extract(sentences, DoubleEncoder(), tmp_path / "calm", shard_bytes=SHARD_BYTES, progress=False)
    lost = [draw.randrange(12), *draw.sample(range(18, 60, 6), 4)]
    device = Device(lost, token_budget=draw.choice([12, 40, 1000]))
    report = extract(sentences, device, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    assert report.too_large == []
    assert device.n_lost > 0
    assert device.under_way == 0
    assert shards_of(tmp_path / "store") == shards_of(tmp_path / "calm")


@pytest.mark.parametrize("token_budget", [10, 25, 1000])
@pytest.mark.parametrize("number", range(1, 9, 2))
def test_interrupted_with_batches_of_two_shards_under_way(tmp_path, number, token_budget):
    sentences = draw_sentences(60)

    def interrupt(batch):
        if batch == number:
            raise KeyboardInterrupt

    device = Device(token_budget=token_budget, before_batch=interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(sentences, device, tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    shards_of(tmp_path / "store")
    report = extract(sentences, Device(), tmp_path / "store", shard_bytes=SHARD_BYTES, progress=False)
    assert report.n_cached + report.n_encoded == len(sentences)
    assert shards_of(tmp_path / "store")
    assert {tokens for tokens, _ in Store.open(tmp_path / "store")} == set(sentences)
