"""The sources behind the embeddings, without Flair: lookup, layers, misses, read-through, processes."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from featurestore import Example, FeatureDataset, Store, extract, load_encoder
from featurestore.errors import (
    DriftError,
    EncoderOutOfMemory,
    MissingSentencesError,
    NotAStoreError,
    RecipeMismatchError,
    SentenceError,
    StoreWriteError,
    UsageError,
    VectorError,
)
from featurestore.integrations import read_through
from featurestore.integrations.layers import LayerChoice
from featurestore.integrations.live import LiveVectors
from featurestore.integrations.stored import StoredVectors
from featurestore.keys import ConditionedSentence, condition_of
from featurestore.recipe import Recipe
from featurestore.store.canaries import SENTENCES as CANARIES
from featurestore.store.canaries import read_canaries

SENTENCES = [["a", "b", "c"], ["d"], ["e", "f"]]
NEW = [["g", "h"], ["i", "j", "k"]]


@pytest.fixture(scope="module")
def kept_apart(tmp_path_factory, layered):
    path = tmp_path_factory.mktemp("layers") / "store"
    extract(SENTENCES, layered, path, codec="float32", progress=False)
    return Store.open(path)


@pytest.fixture
def store(tmp_path, tiny_elmo):
    extract(SENTENCES, tiny_elmo, tmp_path / "store", codec="float32", progress=False)
    return Store.open(tmp_path / "store")


def source_of(store, on_missing="error", layers="all", **options):
    return StoredVectors.of(store, layers, on_missing=on_missing, **options)


def encoded(encoder, sentences):
    return torch.from_numpy(np.concatenate(encoder.encode([tuple(s) for s in sentences])))


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-5, atol=1e-5)


class TestLookup:
    def test_gives_the_vectors_in_order_repeats_included(self, store, tiny_elmo):
        wanted = [SENTENCES[2], SENTENCES[0], SENTENCES[2]]
        vectors = source_of(store).vectors(wanted)
        assert vectors.dtype == torch.float32
        same(vectors, encoded(tiny_elmo, wanted))

    @pytest.mark.parametrize("codec", ["float16", "int8"])
    def test_float32_comes_out_whatever_lies_on_disk(self, tmp_path, tiny_elmo, codec):
        extract(SENTENCES, tiny_elmo, tmp_path / "s", codec=codec, progress=False)
        opened = Store.open(tmp_path / "s")
        vectors = source_of(opened).vectors(SENTENCES)
        assert vectors.dtype == torch.float32
        assert torch.equal(vectors, torch.from_numpy(np.concatenate(opened.get_many(SENTENCES))))

    def test_batches_do_not_overwrite_each_other(self, store):
        source = source_of(store)
        held = [source.vectors(SENTENCES * 300) for _ in range(8)]
        assert all(torch.equal(h, held[0]) for h in held[1:])

    def test_no_sentences(self, store):
        assert source_of(store).vectors([]).shape == (0, 32)

    @pytest.mark.parametrize("bad", [[], ["a", ""]])
    def test_empty_sentences_and_tokens_are_refused_with_their_place(self, store, bad):
        with pytest.raises(SentenceError, match=r"sentence 1 of 2.*filter_empty_sentences"):
            source_of(store).vectors([["d"], bad])
        with pytest.raises(SentenceError):
            LiveVectors.of(load_encoder(store.encoder, device="cpu"), "all").vectors([["d"], bad])

    def test_damage_is_noticed(self, store):
        reader = store.reader(0)
        raw = bytearray(reader.path.read_bytes())
        raw[-3] ^= 0xFF
        reader.path.unlink()
        reader.path.write_bytes(raw)
        with pytest.raises(Exception, match="damaged"):
            source_of(Store.open(store.path)).vectors(SENTENCES)


class TestLayers:
    @pytest.mark.parametrize(
        ("choice", "picked"),
        [
            ("all", lambda v: v.reshape(-1, 96)),
            ("average", lambda v: v.mean(1)),
            ("top", lambda v: v[:, 2]),
            ("2,0", lambda v: torch.cat([v[:, 2], v[:, 0]], 1)),
            ("1", lambda v: v[:, 1]),
        ],
    )
    def test_a_choice_stored_and_live(self, kept_apart, layered, choice, picked):
        expected = picked(encoded(layered, SENTENCES))
        for source in (source_of(kept_apart, layers=choice), LiveVectors.of(layered, choice)):
            assert source.choice.length == expected.shape[1]
            same(source.vectors(SENTENCES), expected)

    @pytest.mark.parametrize("choice", ["3", "0,0", "", "bottom", "-1"])
    def test_a_choice_that_cannot_be_had(self, kept_apart, choice):
        with pytest.raises(
            UsageError, match=r"expected all, average, top, or some of the layers kept \(0, 1, 2\)"
        ):
            source_of(kept_apart, layers=choice)

    def test_numbers_are_those_of_the_recipe(self):
        recipe = Recipe({"kind": "elmo", "version": 1, "layers": [0, 2]})
        assert LayerChoice.of("2", recipe, dim=4, n_layers=2).positions == (1,)
        with pytest.raises(UsageError, match="0, 2"):
            LayerChoice.of("1", recipe, dim=4, n_layers=2)

    def test_one_layer_is_itself_however_it_is_called(self, store):
        assert {source_of(store, layers=c).choice.positions for c in ("all", "average", "top")} == {(0,)}


class TestMissing:
    def test_error_names_the_first_ones_and_the_command(self, store):
        with pytest.raises(MissingSentencesError) as caught:
            source_of(store).vectors([*SENTENCES, *NEW])
        message = str(caught.value)
        assert "2 of 5 sentences" in message
        assert "\n  g h\n  i j k\n" in message
        assert f"featurestore extract CORPUS --store {store.path}" in message
        assert "zero-width" in message

    def test_zeros_are_counted_and_warned_of_once(self, store, tiny_elmo, caplog):
        source = source_of(store, "zeros")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                vectors = source.vectors([SENTENCES[0], NEW[0]])
        same(vectors[:3], encoded(tiny_elmo, SENTENCES[:1]))
        assert not vectors[3:].any()
        assert (source.n_served, source.n_missing) == (6, 3)
        assert [r.getMessage() for r in caplog.records if "1 of 2 sentences" in r.getMessage()] != []
        assert len(caplog.records) == 1
        assert "3 of 6 missing" in repr(source)

    def test_what_someone_adds_later_is_found(self, store, tiny_elmo):
        source = source_of(store)
        with pytest.raises(MissingSentencesError):
            source.vectors(NEW)
        extract(NEW, tiny_elmo, store.path, progress=False)
        same(source.vectors(NEW), encoded(tiny_elmo, NEW))

    @pytest.mark.parametrize("options", [{"on_missing": "skip"}, {"fallback": "elmo:demo"}])
    def test_options_that_make_no_sense(self, store, options):
        with pytest.raises(UsageError, match="compute"):
            source_of(store, **options)


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
        assert NEW[0] in store.refreshed()
        source.vectors(NEW)
        assert NEW[1] not in store.refreshed()
        dataset = FeatureDataset(str(store.path), NEW)
        same(dataset[1].features, encoded(tiny_elmo, NEW[1:]))

    @pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"])
    def test_a_process_that_is_terminated_commits(self, store, handler):
        script = f"""
import os, signal, sys, time
from featurestore import Store
from featurestore.integrations.stored import StoredVectors
{handler}
source = StoredVectors.of(Store.open(sys.argv[1]), "all", on_missing="compute")
source.vectors({NEW!r}, device="cpu")
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""
        done = subprocess.run([sys.executable, "-c", script, str(store.path)], timeout=120, check=False)
        assert done.returncode == (7 if handler else 143)
        assert all(sentence in store.refreshed() for sentence in NEW)

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


class TestConditions:
    """Sentences whose vectors depend on more than the tokens."""

    TOKENS = ("a", "b")
    ONE, TWO = ConditionedSentence(TOKENS, b"one"), ConditionedSentence(TOKENS, b"two")

    @pytest.fixture
    def around(self, tiny_elmo):
        return Conditional(tiny_elmo)

    @pytest.fixture
    def conditioned(self, tmp_path, around):
        extract(
            [Example(self.ONE), Example(self.TOKENS)], around, tmp_path / "s", codec="float32", progress=False
        )
        return Store.open(tmp_path / "s")

    def test_each_has_its_own_vectors_however_often_asked(self, conditioned, around):
        source = source_of(conditioned)
        for wanted in ([self.ONE, self.TOKENS], [list(self.TOKENS), self.ONE, self.ONE]):
            same(source.vectors(wanted), encoded_as_given(around, wanted))
        assert not torch.equal(source.vectors([self.ONE]), source.vectors([self.TOKENS]))

    def test_a_condition_that_is_not_there_is_missing(self, conditioned):
        with pytest.raises(MissingSentencesError) as caught:
            source_of(conditioned).vectors([self.ONE, self.TWO])
        message = str(caught.value)
        assert "1 of 2 sentences" in message
        assert "depend on more than the tokens (context)" in message
        assert "from_flair(corpus, encoder_or_dependence=encoder)" in message
        assert "set_context(corpus)" in message

    def test_read_through_keeps_it(self, conditioned, around):
        source = source_of(conditioned, "compute", fallback=around)
        wanted = [self.TWO, self.ONE, self.TOKENS]
        same(source.vectors(wanted), encoded_as_given(around, wanted))
        source.flush()
        opened = Store.open(conditioned.path)
        same(source_of(opened).vectors(wanted), encoded_as_given(around, wanted))
        assert (self.TWO in opened, ConditionedSentence(self.TOKENS, b"three") in opened) == (True, False)

    def test_live_vectors_keep_it(self, around):
        wanted = [self.TWO, self.TOKENS, self.ONE]
        same(LiveVectors.of(around, "all").vectors(wanted), encoded_as_given(around, wanted))


class TestMoving:
    def test_pickled_without_store_or_model(self, store, tiny_elmo):
        source = source_of(store, "compute", fallback=tiny_elmo)
        source.vectors([*SENTENCES, *NEW])
        raw = pickle.dumps(source)
        assert len(raw) < 4_000
        same(pickle.loads(raw).vectors([*SENTENCES, *NEW]), encoded(tiny_elmo, [*SENTENCES, *NEW]))

    def test_params_are_plain_and_open_nothing(self, store, tmp_path):
        params = source_of(store, "compute").to_params()
        store.path.rename(tmp_path / "moved")
        source = StoredVectors.from_params(params)
        assert source.choice.length == 32
        with pytest.raises(NotAStoreError, match=r"bind\(model, "):
            source.vectors(SENTENCES)
        source.rebind(Store.open(tmp_path / "moved"))
        assert source.vectors(SENTENCES).shape == (6, 32)

    def test_another_recipe_at_the_path_is_refused_on_first_use(self, store, layered):
        source = StoredVectors.from_params(source_of(store).to_params())
        shutil.rmtree(store.path)
        extract(SENTENCES, layered, store.path, progress=False)
        with pytest.raises(RecipeMismatchError, match="layers"):
            source.vectors(SENTENCES)

    def test_live_params(self, layered):
        source = LiveVectors.from_params(LiveVectors.of(layered, "top").to_params())
        assert source.choice.length == 32
        same(source.vectors(NEW, device="cpu"), encoded(layered, NEW)[:, 2])


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


class Conditional:
    """The tiny ELMo, whose vectors are moved by the sum of the condition's bytes."""

    spec = ""

    def __init__(self, encoder):
        self._encoder = encoder
        self.recipe = Recipe({**encoder.recipe, "kind": "test", "depends_on": {"context": 1}})
        for name in ("dim", "n_layers", "device", "token_budget"):
            setattr(self, name, getattr(encoder, name))

    def encode(self, sentences):
        plain = self._encoder.encode([tuple(sentence) for sentence in sentences])
        return [array + sum(condition_of(s)) for s, array in zip(sentences, plain, strict=True)]

    def submit(self, sentences):
        return Done(self.encode(sentences))


class Done:
    def __init__(self, arrays):
        self.result = lambda: arrays


def encoded_as_given(encoder, sentences):
    return torch.from_numpy(np.concatenate(encoder.encode(sentences)))


def test_without_flair_the_error_says_what_to_install(monkeypatch):
    import importlib

    monkeypatch.setitem(sys.modules, "flair", None)
    monkeypatch.delitem(sys.modules, "featurestore.integrations.flair", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'featurestore\[flair\]'"):
        importlib.import_module("featurestore.integrations.flair")
    with pytest.raises(AttributeError, match="spacy"):
        importlib.import_module("featurestore.integrations").spacy  # noqa: B018
