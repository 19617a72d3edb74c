"""Vectors of sentences the store lacks: encoded on the way, kept, and served; without Flair."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from featurestore import FeatureDataset, Store, extract
from featurestore.errors import (
    DriftError,
    EncoderOutOfMemory,
    RecipeMismatchError,
    StoreWriteError,
    UsageError,
    VectorError,
)
from featurestore.integrations import read_through
from featurestore.recipe import Recipe
from featurestore.store.canaries import SENTENCES as CANARIES
from featurestore.store.canaries import read_canaries
from tests.integrations.sources import NEW, SENTENCES, encoded, same, source_of


class TestReadThrough:
    def test_computed_once_served_and_committed(self, store, tiny_elmo):
        counting = Counting(tiny_elmo)
        source = source_of(store, "compute", fallback=counting)
        for _ in range(2):
            same(source.vectors([*NEW, SENTENCES[0], *NEW]), encoded(tiny_elmo, [*NEW, SENTENCES[0], *NEW]))
        assert counting.sentences == [tuple(s) for s in NEW]
        assert NEW[0] not in store.refreshed()
        source.flush()
        same(torch.from_numpy(np.concatenate(Store.open(store.path).get_many(NEW))), encoded(tiny_elmo, NEW))
        same(source.vectors(NEW), encoded(tiny_elmo, NEW))
        assert counting.sentences == [tuple(s) for s in NEW]
        assert source.n_missing == len(NEW)

    @pytest.mark.parametrize("codec", ["float16", "float32"])
    def test_what_is_computed_is_served_as_it_will_be_stored(self, tmp_path, tiny_elmo, codec):
        made = Store.create(tmp_path / "s", recipe=tiny_elmo.recipe, dim=32, codec=codec)
        source = source_of(made, "compute", fallback=tiny_elmo)
        computed, waiting = source.vectors(NEW), source.vectors(NEW)
        source.flush()
        stored = source_of(Store.open(made.path)).vectors(NEW)
        assert torch.equal(computed, stored)
        assert torch.equal(waiting, stored)
        # The shard knows all the same what its codec lost.
        assert (Store.open(made.path).codec_error.max_abs > 0) == (codec == "float16")

    def test_what_the_store_cannot_hold_is_served_as_it_is(self, tmp_path, tiny_elmo, caplog):
        made = Store.create(tmp_path / "s", recipe=tiny_elmo.recipe, dim=32)
        source = source_of(made, "compute", fallback=Counting(tiny_elmo, scale=1e6))
        assert source.vectors(NEW).abs().max() > 65504
        source.flush()
        assert "computed, but not stored" in caplog.text

    def test_the_stores_own_encoder_is_the_default(self, store, tiny_elmo):
        source = source_of(store, "compute")
        assert source._read_through._encoder is None
        same(source.vectors(NEW), encoded(tiny_elmo, NEW))

    def test_a_full_or_old_buffer_is_committed(self, store, tiny_elmo, monkeypatch):
        source = source_of(store, "compute", fallback=tiny_elmo)
        monkeypatch.setattr(read_through, "BUFFER_BYTES", 3 * 32 * 4)
        same(source.vectors(NEW[:1]), encoded(tiny_elmo, NEW[:1]))
        assert NEW[0] not in store.refreshed()
        same(source.vectors(NEW), encoded(tiny_elmo, NEW))
        assert NEW[1] in store.refreshed()
        monkeypatch.setattr(read_through, "BUFFER_SECONDS", -1.0)
        source.vectors([["l"]])
        assert ["l"] in store.refreshed()

    def test_committed_when_the_source_is_dropped(self, store, tiny_elmo):
        source = source_of(store, "compute", fallback=tiny_elmo)
        source.vectors(NEW)
        del source
        assert NEW[0] in store.refreshed()

    def test_what_waits_is_seen_by_all_of_the_process(self, store, tiny_elmo):
        counting = Counting(tiny_elmo)
        source = source_of(store, "compute", fallback=tiny_elmo)
        other = source_of(store, "compute", fallback=counting)
        reading = source_of(store)
        source.vectors(NEW[:1])
        same(other.vectors(NEW[:1]), encoded(tiny_elmo, NEW[:1]))
        assert counting.sentences == []
        same(reading.vectors(NEW[:1]), encoded(tiny_elmo, NEW[:1]))
        source.vectors(NEW)
        assert NEW[1] not in store.refreshed()
        dataset = FeatureDataset(str(store.path), NEW)
        same(dataset[1].features, encoded(tiny_elmo, NEW[1:]))

    def test_another_recipe_is_refused(self, store, layered, tiny_elmo_spec):
        with pytest.raises(RecipeMismatchError, match="layers"):
            source_of(store, "compute", fallback=layered)
        source = source_of(store, "compute", fallback="elmo:untrained-small?seed=0")
        with pytest.raises(RecipeMismatchError, match="weights_sha256"):
            source.vectors(NEW)

    def test_a_store_that_names_no_encoder_needs_one(self, tmp_path, tiny_elmo):
        made = Store.create(tmp_path / "s", recipe=tiny_elmo.recipe, dim=32, codec="float32")
        with pytest.raises(UsageError, match="fallback="):
            source_of(made, "compute")
        same(source_of(made, "compute", fallback=tiny_elmo).vectors(NEW), encoded(tiny_elmo, NEW))

    @pytest.mark.parametrize("field", ["layers", "precision", "initial_state"])
    def test_a_recipe_of_nonsense_is_another_recipe(self, tmp_path, tiny_elmo, field):
        """As a store from elsewhere may have it."""
        recipe = Recipe({**tiny_elmo.recipe.to_dict(), field: 5})
        made = Store.create(tmp_path / "odd", recipe=recipe, dim=tiny_elmo.dim, encoder=tiny_elmo.spec)
        with pytest.raises(RecipeMismatchError, match=f"{field}: 5"):
            source_of(made, "compute").vectors(NEW)

    def test_a_batch_too_large_for_memory_is_halved(self, store, tiny_elmo):
        source = source_of(store, "compute", fallback=Counting(tiny_elmo, most=1))
        same(source.vectors(NEW * 2 + [["m"]]), encoded(tiny_elmo, NEW * 2 + [["m"]]))
        with pytest.raises(EncoderOutOfMemory):
            source_of(store, "compute", fallback=Counting(tiny_elmo, most=0)).vectors([["n"]])

    def test_nan_is_neither_served_nor_stored(self, store, tiny_elmo):
        source = source_of(store, "compute", fallback=Counting(tiny_elmo, nan=True))
        with pytest.raises(VectorError, match="not finite"):
            source.vectors(NEW)
        source.flush()
        assert NEW[0] not in Store.open(store.path)

    def test_a_store_that_cannot_be_written_costs_no_training(self, store, tiny_elmo, monkeypatch, caplog):
        def full(*_args, **_options):
            raise StoreWriteError("the disk is full")

        monkeypatch.setattr(Store, "write", full)
        monkeypatch.setattr(read_through, "BUFFER_BYTES", 1)
        source = source_of(store, "compute", fallback=tiny_elmo)
        for _ in range(3):
            same(source.vectors(NEW), encoded(tiny_elmo, NEW))
        assert sum("no longer stored" in r.getMessage() for r in caplog.records) == 1
        monkeypatch.setattr(read_through, "BUFFER_BYTES", 1 << 20)
        other = source_of(store, "compute", fallback=tiny_elmo)
        other.vectors(NEW)
        with pytest.raises(StoreWriteError):
            other.flush()

    def test_an_encoder_that_gives_other_vectors_by_now_serves_and_stores_none(self, store, tiny_elmo):
        drifted = Counting(tiny_elmo, drift=1.001)
        source = source_of(store, "compute", fallback=drifted)
        same(source.vectors(SENTENCES), encoded(tiny_elmo, SENTENCES))
        for _ in range(2):
            with pytest.raises(DriftError, match=r"relative L2 of 0\.000999, expected at most 0\.0001"):
                source.vectors(NEW)
        source.flush()
        assert drifted.sentences == []
        assert Store.open(store.path).snapshot == store.snapshot

    def test_a_store_without_canaries_gets_them_with_its_first_vectors(self, tmp_path, tiny_elmo):
        made = Store.create(tmp_path / "s", recipe=tiny_elmo.recipe, dim=32)
        source = source_of(made, "compute", fallback=tiny_elmo)
        source.vectors(NEW)
        source.flush()
        assert read_canaries(Store.open(made.path)).sentences == CANARIES
        with pytest.raises(DriftError):
            source_of(made, "compute", fallback=Counting(tiny_elmo, drift=1.1)).vectors(SENTENCES)

    def test_canaries_that_cannot_be_written_cost_no_training(self, tmp_path, tiny_elmo, monkeypatch, caplog):
        made = Store.create(tmp_path / "s", recipe=tiny_elmo.recipe, dim=32, codec="float32")

        def full(*_args, **_options):
            raise StoreWriteError("the disk is full")

        monkeypatch.setattr(read_through, "require_canaries", full)
        source = source_of(made, "compute", fallback=tiny_elmo)
        for _ in range(2):
            same(source.vectors(NEW), encoded(tiny_elmo, NEW))
        source.flush()
        assert sum("no longer stored" in r.getMessage() for r in caplog.records) == 1
        assert len(Store.open(made.path)) == 0

    def test_a_store_replaced_meanwhile_gets_nothing(self, store, tiny_elmo, layered):
        source = source_of(store, "compute", fallback=tiny_elmo)
        source.vectors(NEW)
        shutil.rmtree(store.path)
        extract(SENTENCES, layered, store.path, progress=False)
        with pytest.raises(RecipeMismatchError, match="replaced"):
            source.flush()


class TestProcesses:
    def test_a_forked_worker_commits_its_own_and_not_its_parents(self, store, tiny_elmo):
        source = source_of(store, "compute", fallback=tiny_elmo)
        source.vectors(NEW[:1])
        worker = multiprocessing.get_context("fork").Process(target=source.vectors, args=([NEW[1]],))
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0
        assert [s in store.refreshed() for s in NEW] == [False, True]
        source.flush()
        assert all(s in Store.open(store.path) for s in NEW)

    def test_processes_share_a_store_and_a_killed_one_loses_only_the_uncommitted(self, store, tiny_elmo):
        script = """
import os, signal, sys
import torch
from featurestore import Store
from featurestore.integrations.stored import StoredVectors
path, number, fate = sys.argv[1], int(sys.argv[2]), sys.argv[3]
source = StoredVectors.of(Store.open(path), "all", on_missing="compute")
shared = [[f"both{i}", "x"] for i in range(20)]
source.vectors(shared + [[f"p{number}", f"y{i}"] for i in range(20)], device="cpu")
if fate == "killed":
    source.flush()
    source.vectors([["lost"]], device="cpu")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        runs = [
            subprocess.Popen([sys.executable, "-c", script, str(store.path), str(n), fate])
            for n, fate in enumerate(["ends", "ends", "killed"])
        ]
        assert [run.wait(120) for run in runs] == [0, 0, -signal.SIGKILL]
        opened = Store.open(store.path)
        mine = [[f"p{n}", f"y{i}"] for n in range(3) for i in range(20)]
        added = [[f"both{i}", "x"] for i in range(20)] + mine
        same(torch.from_numpy(np.concatenate(opened.get_many(added))), encoded(tiny_elmo, added))
        assert len(opened) == len(SENTENCES) + len(added)
        assert ["lost"] not in opened

    @pytest.mark.parametrize(
        ("name", "status"), [("SIGTERM", 128 + signal.SIGTERM), ("SIGINT", -signal.SIGINT)]
    )
    @pytest.mark.usefixtures("ctrl_c_interrupts")
    def test_a_terminated_process_stores_what_waits(self, store, name, status):
        script = """
import os, signal, sys, time
from featurestore import Store
from featurestore.integrations.stored import StoredVectors
source = StoredVectors.of(Store.open(sys.argv[1]), "all", on_missing="compute")
source.vectors([["open", "shard"], ["another"]], device="cpu")
os.kill(os.getpid(), getattr(signal, sys.argv[2]))
time.sleep(60)
"""
        run = subprocess.run([sys.executable, "-c", script, str(store.path), name], check=False)
        assert run.returncode == status
        assert ["open", "shard"] in Store.open(store.path)
        assert ["another"] in Store.open(store.path)

    def test_sigterm_where_nothing_waits_ends_the_process_as_ever(self, store):
        script = """
import os, signal, sys, time
from featurestore import Store
from featurestore.integrations.stored import StoredVectors
source = StoredVectors.of(Store.open(sys.argv[1]), "all", on_missing="compute")
source.vectors([["open", "shard"]], device="cpu")
source.flush()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""
        run = subprocess.run([sys.executable, "-c", script, str(store.path)], check=False)
        assert run.returncode == -signal.SIGTERM

    def test_a_handler_of_the_users_own_stays(self, store, tiny_elmo):
        def handler(number, frame):
            raise AssertionError

        before = signal.signal(signal.SIGTERM, handler)
        try:
            source = source_of(store, "compute", fallback=tiny_elmo)
            source.vectors(NEW)
            assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            signal.signal(signal.SIGTERM, before)


class Counting:
    """An encoder that keeps what it was asked for, and can fail."""

    def __init__(self, encoder, *, most=1_000, nan=False, drift=1.0, scale=1.0):
        self._encoder, self._most, self._nan, self._drift = encoder, most, nan, drift
        self._scale = np.float32(scale)
        self.sentences = []
        for name in ("spec", "recipe", "dim", "n_layers", "device", "token_budget"):
            setattr(self, name, getattr(encoder, name))

    def encode(self, sentences):
        if sentences[0] in CANARIES:
            return [array * self._drift for array in self._encoder.encode(sentences)]
        if len(sentences) > self._most:
            raise EncoderOutOfMemory("the device is full")
        self.sentences += sentences
        arrays = [np.array(a) * self._scale for a in self._encoder.encode(sentences)]
        if self._nan:
            arrays[-1][0, 0] = np.nan
        return arrays
