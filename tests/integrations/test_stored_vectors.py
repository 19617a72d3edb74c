"""The sources behind the embeddings, without Flair: lookup, layers, misses, read-through, processes."""

from __future__ import annotations

import logging
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch

from featurestore import Example, Store, extract, load_encoder
from featurestore.errors import (
    MissingSentencesError,
    NotAStoreError,
    RecipeMismatchError,
    SentenceError,
    UsageError,
)
from featurestore.integrations.layers import LayerChoice
from featurestore.integrations.live import LiveVectors
from featurestore.integrations.stored import StoredVectors
from featurestore.keys import ConditionedSentence, condition_of
from featurestore.recipe import Recipe
from tests.integrations.sources import NEW, SENTENCES, encoded, same, source_of


@pytest.fixture(scope="module")
def kept_apart(tmp_path_factory, layered):
    path = tmp_path_factory.mktemp("layers") / "store"
    extract(SENTENCES, layered, path, codec="float32", progress=False)
    return Store.open(path)


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
        assert "on_missing='compute', fallback=ENCODER" in message

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
