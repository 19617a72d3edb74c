"""Models of Flair's own embeddings, cached and live again."""

from __future__ import annotations

import logging

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Sentence  # noqa: E402
from flair.embeddings import (  # noqa: E402
    StackedEmbeddings,
    TransformerWordEmbeddings,
)

from featurestore import Store, extract  # noqa: E402
from featurestore.encoders.flair import FlairEncoder, fix_separator  # noqa: E402
from featurestore.errors import (  # noqa: E402
    FeaturestoreError,
    MissingSentencesError,
    RecipeMismatchError,
    UsageError,
)
from featurestore.integrations.flair import (  # noqa: E402
    CachedEmbeddings,
    LiveEmbeddings,
    bind,
    from_flair,
    load,
    to_cached,
    to_live,
)

logging.getLogger("flair").setLevel(logging.ERROR)
from tests.integrations.flair_models import close, new_tagger, scores, tags, train, words_of  # noqa: E402


class TestFlairsOwn:
    """Models that were trained with an embedding of Flair's itself."""

    @pytest.fixture(scope="class")
    @classmethod
    def live(cls, tagging, tiny_bert, tmp_path_factory):
        """A tagger trained with word vectors of its own and a transformer, and the folder with its file."""
        folder = tmp_path_factory.mktemp("live")
        bert = TransformerWordEmbeddings(str(tiny_bert), fine_tune=False)
        stack = StackedEmbeddings([words_of(tagging), bert])
        return train(new_tagger(stack, tagging), tagging, folder, epochs=1), folder

    @pytest.fixture
    def tagger(self, live):
        # Flair's transformers cannot be copied.
        return load(live[1] / "model.pt", trusted=True)

    @staticmethod
    def stored(embedding, tagging, path, **options):
        encoder = FlairEncoder(embedding, **options)
        extract(from_flair(tagging), encoder, path, codec="float32", progress=False)
        return path

    def test_a_transformer_is_replaced_by_its_vectors(self, live, tagger, tagging, tagged, tmp_path):
        expected, found = scores(tagger, tagged[1]), tags(tagger, tagged[1])
        names = [e.name for e in tagger.embeddings.embeddings]
        store = self.stored(tagger.embeddings.embeddings[1], tagging, tmp_path / "store")
        cached = to_cached(tagger, store)
        assert isinstance(cached.embeddings.embeddings[1], CachedEmbeddings)
        assert [e.name for e in cached.embeddings.embeddings] == names
        close(scores(cached, tagged[1]), expected)
        cached.save(tmp_path / "cached.pt")
        assert (tmp_path / "cached.pt").stat().st_size < (live[1] / "model.pt").stat().st_size / 2
        assert tags(load(tmp_path / "cached.pt", trusted=True), tagged[1]) == found
        with pytest.raises(MissingSentencesError):
            cached.predict([Sentence(["never", "seen"])])

    def test_it_is_its_own_fallback(self, live, tagger, tagging, tmp_path):
        store = self.stored(tagger.embeddings.embeddings[1], tagging, tmp_path / "store")
        cached = to_cached(tagger, store, on_missing="compute")
        pair = [Sentence(["never", "seen"]) for _ in range(2)]
        cached.embeddings.embed(pair[0])
        live[0].embeddings.embed(pair[1])
        close(*(torch.stack([token.get_embedding() for token in sentence]) for sentence in pair))
        assert cached.embeddings.embeddings[1].n_missing == 1

    def test_a_whole_stack_as_it_is_after_training(self, tagger, tagging, tagged, tmp_path):
        expected = scores(tagger, tagged[1])
        store = self.stored(tagger.embeddings, tagging, tmp_path / "store", allow_trainable=True)
        cached = to_cached(tagger, store)
        assert isinstance(cached.embeddings, CachedEmbeddings)
        close(scores(cached, tagged[1]), expected)

    def test_a_store_of_other_weights_is_refused(self, tagger, tagging, tiny_bert, tmp_path):
        other = TransformerWordEmbeddings(str(tiny_bert), fine_tune=False)
        next(other.model.encoder.parameters()).data += 1
        with pytest.raises(RecipeMismatchError, match="weights_sha256"):
            to_cached(tagger.embeddings.embeddings[1], self.stored(other, tagging, tmp_path / "store"))

    def test_the_nearest_of_a_stack_is_compared(self, live, tagger, tagging, tiny_bert, tmp_path):
        other = TransformerWordEmbeddings(str(tiny_bert), fine_tune=False, layers="0")
        store = self.stored(other, tagging, tmp_path / "store")
        with pytest.raises(RecipeMismatchError) as refused:
            to_cached(tagger, store)
        assert "embeddings.0.options.layers: [0] in" in str(refused.value)
        assert "vocabulary" not in str(refused.value)
        assert "fix_separator" not in str(refused.value)

    def test_of_a_separator_drawn_at_random_it_says_what_to_do(self, tiny_bert, tmp_path):
        def make():
            return TransformerWordEmbeddings(str(tiny_bert), fine_tune=False, use_context=4)

        drawn, fixed, again = make(), make(), make()
        fix_separator(fixed)
        extract([["a", "b"]], FlairEncoder(fixed), tmp_path / "store", codec="float32", progress=False)
        live = LiveEmbeddings(FlairEncoder(fixed))
        for compared in (
            lambda: to_cached(drawn, tmp_path / "store"),
            lambda: to_live(live, FlairEncoder(drawn)),
            lambda: CachedEmbeddings(tmp_path / "store", "compute", FlairEncoder(drawn)),
        ):
            with pytest.raises(
                RecipeMismatchError, match=r"separator_sha256.*\n.*fix_separator\(embedding\)"
            ):
                compared()
        fix_separator(again)
        cached = to_cached(again, tmp_path / "store")
        found = []
        for embedding in (cached, live):
            sentence = Sentence(["a", "b"])
            embedding.embed(sentence)
            found.append(torch.stack([token.get_embedding() for token in sentence]))
        close(*found)

    def test_live_vectors_are_those_of_evaluation_whatever_the_mode(self, tagger, tagged):
        embedding = LiveEmbeddings(FlairEncoder(tagger.embeddings.embeddings[1]))
        found = []
        for training in (True, False):
            sentences = [Sentence(list(e.tokens)) for e in tagged[1][:3]]
            embedding.train(training).embed(sentences)
            found.append(torch.stack([token.get_embedding() for s in sentences for token in s]))
        torch.testing.assert_close(*found)


class TestFlairBySpecification:
    """``flair:...`` stands wherever an encoder does, if it was not only the store that named it."""

    @pytest.fixture
    def store(self, tiny_bert, tagging, tmp_path):
        extract(from_flair(tagging), f"flair:{tiny_bert}", tmp_path / "s", codec="float32", progress=False)
        return Store.open(tmp_path / "s")

    def test_missing_sentences_and_shipping_without_the_store(self, store, tagging, tagged, tmp_path):
        cached = CachedEmbeddings(store, "compute", store.encoder)
        tagger = train(new_tagger(cached, tagging), tagging, tmp_path, epochs=1)
        expected, found = scores(tagger, tagged[1]), tags(tagger, tagged[1])
        tagger.predict([Sentence(["never", "seen"])])
        tagger.embeddings.flush()
        assert ("never", "seen") in Store.open(store.path)
        live = to_live(load(tmp_path / "model.pt", trusted=True), store.encoder)
        assert isinstance(live.embeddings, LiveEmbeddings)
        close(scores(live, tagged[1]), expected)
        live.save(tmp_path / "live.pt")
        store.path.rename(tmp_path / "away")
        assert tags(load(tmp_path / "live.pt", trusted=True), tagged[1]) == found

    def test_code_that_only_a_store_names_is_not_run(self, store, tagging):
        with pytest.raises(UsageError, match="if you trust this one, name the encoder yourself") as refused:
            CachedEmbeddings(store, "compute")
        assert "--encoder 'flair" not in str(refused.value)  # nothing of a stranger's to paste into a shell
        with pytest.raises(MissingSentencesError, match=r"--store \S+ --encoder flair:\.\.\."):
            CachedEmbeddings(store).embed(Sentence(["never", "seen"]))
        with pytest.raises(UsageError, match="if you trust this one"):
            to_live(CachedEmbeddings(store))
        with pytest.raises(UsageError, match="if you trust this one"):
            extract([("never", "seen")], None, store.path, progress=False)
        assert ("never", "seen") not in store.refreshed()

    def test_a_fallback_is_loaded_when_something_is_missing(self, store, full_store, tagged, tmp_path):
        absent = f"flair:TransformerWordEmbeddings={tmp_path}/absent"
        cached = CachedEmbeddings(store, "compute", absent)
        cached.embed([Sentence(list(tagged[0][0].tokens))])
        with pytest.raises(FeaturestoreError, match="absent"):
            cached.embed(Sentence(["never", "seen"]))
        with pytest.raises(RecipeMismatchError, match="kind 'elmo'"):
            CachedEmbeddings(full_store, "compute", absent)
        with pytest.raises(RecipeMismatchError, match="kind"):
            CachedEmbeddings(store, "compute", full_store.encoder)

    def test_an_object_that_nothing_names_is_asked_for(self, store, tiny_bert, caplog):
        bert = TransformerWordEmbeddings(str(tiny_bert), fine_tune=False)
        saved = LiveEmbeddings(FlairEncoder(bert)).save_embeddings(False)
        loaded = LiveEmbeddings.load_embedding(saved)
        with pytest.raises(UsageError, match=r"no encoder is named: .*to_live\(model, ENCODER\).*fallback="):
            loaded.embed(Sentence(["x"]))
        sentence = Sentence(["x"])
        to_live(loaded, FlairEncoder(bert)).embed(sentence)
        assert "a saved copy of this model cannot load it: call to_live(model, ENCODER)" in caplog.text
        caplog.clear()
        to_live(CachedEmbeddings(store), store.encoder)
        assert caplog.text == ""
        assert sentence[0].get_embedding().shape == (16,)


def test_an_embedding_of_flairs_is_no_encoder_and_says_how_it_becomes_one(full_store, tiny_bert):
    bert = TransformerWordEmbeddings(str(tiny_bert), fine_tune=False)
    for mistaken in (
        lambda: LiveEmbeddings(bert),
        lambda: CachedEmbeddings(full_store, "compute", bert),
        lambda: to_live(CachedEmbeddings(full_store), bert),
        lambda: from_flair([], encoder_or_dependence=bert),
    ):
        with pytest.raises(UsageError, match=r"a TransformerWordEmbeddings.*FlairEncoder\(embedding\)"):
            mistaken()


def test_a_model_without_vectors_to_store(full_store):
    with pytest.raises(UsageError, match="nothing to change"):
        to_cached(torch.nn.Linear(1, 1), full_store)


def test_an_embedding_is_a_model_of_its_own(full_store, tiny_elmo):
    live = to_live(CachedEmbeddings(full_store, name="x"), tiny_elmo)
    assert (type(live), live.name) == (LiveEmbeddings, "x")
    assert type(to_cached(live, full_store)) is CachedEmbeddings


def test_one_of_two_stores_is_bound(full_store, layered_store, tmp_path, tiny_elmo):
    stack = StackedEmbeddings([CachedEmbeddings(layered_store), CachedEmbeddings(full_store)])
    extract([["x"]], tiny_elmo, tmp_path / "new", progress=False)
    bind(stack, tmp_path / "new")
    assert [e.source.path for e in stack.embeddings] == [layered_store.path, tmp_path / "new"]
