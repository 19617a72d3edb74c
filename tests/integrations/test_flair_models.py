"""Flair models trained on stored vectors: saved, moved, bound, made live, resumed; what loading refuses."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Corpus, Dictionary, Sentence  # noqa: E402
from flair.datasets import FlairDatapointDataset  # noqa: E402
from flair.embeddings import (  # noqa: E402
    DocumentPoolEmbeddings,
    DocumentRNNEmbeddings,
    OneHotEmbeddings,
    StackedEmbeddings,
    TransformerWordEmbeddings,
)
from flair.file_utils import load_torch_state  # noqa: E402
from flair.models import SequenceTagger, TextClassifier  # noqa: E402
from flair.trainers import ModelTrainer  # noqa: E402

from featurestore import Store, extract  # noqa: E402
from featurestore.encoders.flair import FlairEncoder, fix_separator  # noqa: E402
from featurestore.errors import (  # noqa: E402
    FeaturestoreError,
    MissingSentencesError,
    ModelError,
    NotAStoreError,
    RecipeMismatchError,
    UsageError,
)
from featurestore.integrations.flair import (  # noqa: E402
    CachedEmbeddings,
    ElmoEmbeddings,
    LiveEmbeddings,
    bind,
    from_flair,
    load,
    to_cached,
    to_live,
)

N_EPOCHS = 2

logging.getLogger("flair").setLevel(logging.ERROR)


def tagging_corpus(tagged):
    def read(examples):
        sentences = []
        for example in examples:
            sentence = Sentence(list(example.tokens))
            for token, label in zip(sentence, example.labels, strict=True):
                token.add_label("upos", label)
            sentences.append(sentence)
        return FlairDatapointDataset(sentences)

    return Corpus(train=read(tagged[0]), dev=read(tagged[1]), sample_missing_splits=False)


def judged_corpus(judged):
    def read(examples):
        sentences = [Sentence(list(example.tokens)) for example in examples]
        for sentence, example in zip(sentences, examples, strict=True):
            sentence.add_label("mood", example.labels)
        return FlairDatapointDataset(sentences)

    return Corpus(train=read(judged[0]), dev=read(judged[1]), sample_missing_splits=False)


def train(model, corpus, path, mode="none", epochs=N_EPOCHS):
    flair.set_seed(1)
    trainer = ModelTrainer(model, corpus)
    options = {"create_file_logs": False, "create_loss_file": False, "embeddings_storage_mode": mode}
    trainer.train(path, learning_rate=0.5, mini_batch_size=8, max_epochs=epochs, **options)
    # The trainer's final-model.pt is the last epoch's; in memory it leaves the best one's weights.
    model.eval().save(path / "model.pt")
    return model


def words_of(corpus):
    dictionary = Dictionary()
    for sentence in corpus.train:
        for token in sentence:
            dictionary.add_item(token.text)
    return OneHotEmbeddings(dictionary, embedding_length=4)


def new_tagger(embeddings, corpus):
    flair.set_seed(0)
    return SequenceTagger(
        embeddings=embeddings, tag_dictionary=corpus.make_label_dictionary("upos"), tag_type="upos",
        hidden_size=8, use_crf=True,
    )  # fmt: skip


def new_classifier(document, corpus):
    return TextClassifier(document, label_type="mood", label_dictionary=corpus.make_label_dictionary("mood"))


def tags(model, examples):
    sentences = [Sentence(list(example.tokens)) for example in examples]
    model.predict(sentences, label_name="found", mini_batch_size=5)
    return [[(label.data_point.text, label.value) for label in s.get_labels("found")] for s in sentences]


def scores(model, examples):
    """Numbers, which tell more than labels do."""
    sentences = [Sentence(list(example.tokens)) for example in examples]
    with torch.no_grad():
        if isinstance(model, TextClassifier):
            model.embeddings.embed(sentences)
            return model.decoder(
                torch.stack([s.get_embedding(model.embeddings.get_names()) for s in sentences])
            )
        tensor, lengths = model._prepare_tensors(sorted(sentences, key=len, reverse=True))
        return model.forward(tensor, lengths)


def close(ours, theirs):
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (ours, theirs)), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def tagging(tagged):
    return tagging_corpus(tagged)


@pytest.fixture
def own_store(full_store, tmp_path):
    """A copy of the store of all examples, to move and to remove."""
    shutil.copytree(full_store.path, tmp_path / "own")
    return Store.open(tmp_path / "own")


@pytest.fixture(scope="module")
def trained(full_store, tagging, tagged, tmp_path_factory):
    """A stacked tagger with a CRF, its file, and what it gives."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(full_store.path, folder / "store")
    # The other one first: it does not save the name that keeps it there.
    stack = StackedEmbeddings([words_of(tagging), CachedEmbeddings(folder / "store")])
    tagger = train(new_tagger(stack, tagging), tagging, folder)
    return folder, tagger, scores(tagger, tagged[1]), tags(tagger, tagged[1])


@pytest.fixture
def model_file(trained, tmp_path):
    """A copy of its file and of its store, neither at its old place; the old store is gone meanwhile."""
    folder = trained[0]
    shutil.copy(folder / "model.pt", tmp_path / "model.pt")
    shutil.copytree(folder / "store", tmp_path / "moved")
    (folder / "store").rename(folder / "away")
    yield tmp_path / "model.pt"
    (folder / "away").rename(folder / "store")


class TestTagger:
    def test_loaded_gives_the_same_whatever_the_order_of_the_stack(self, trained, tagged):
        folder, _, expected, found = trained
        tagger = load(folder / "model.pt", trusted=True)
        close(scores(tagger, tagged[1]), expected)
        assert tags(tagger, tagged[1]) == found
        assert sum(map(len, found)) == sum(len(e.tokens) for e in tagged[1])

    def test_predict_leaves_empty_sentences_out(self, trained, tagged):
        sentences = [Sentence(""), Sentence(list(tagged[1][0].tokens)), Sentence("")]
        trained[1].predict(sentences, label_name="found")
        assert [len(s.get_labels("found")) for s in sentences] == [0, len(tagged[1][0].tokens), 0]

    def test_only_what_was_learned_is_saved(self, trained):
        folder, tagger, *_ = trained
        assert not [name for name in tagger.state_dict() if "1" in name and name.startswith("embeddings.")]
        assert (folder / "model.pt").stat().st_size < 200_000
        assert str(folder) not in tagger.embeddings.embeddings[1].name

    def test_loads_without_its_store_and_says_so_on_first_use(self, model_file, tagged):
        tagger = load(model_file, trusted=True)
        assert tagger.embeddings.embedding_length == 36
        with pytest.raises(NotAStoreError, match=r"bind\(model, "):
            tags(tagger, tagged[1])

    def test_bound_where_the_store_is_now(self, model_file, trained, tagged):
        tagger = bind(load(model_file, trusted=True), model_file.parent / "moved")
        close(scores(tagger, tagged[1]), trained[2])
        assert tags(tagger, tagged[1]) == trained[3]

    def test_bound_to_another_recipe_or_nothing_to_bind(self, trained, layered_store, tagging):
        tagger = copy.deepcopy(trained[1])
        with pytest.raises(RecipeMismatchError, match="layers"):
            bind(tagger, layered_store)
        with pytest.raises(UsageError, match="nothing to bind"):
            bind(words_of(tagging), layered_store)

    def test_live_needs_no_store_and_there_is_a_way_back(
        self, model_file, trained, tagged, tiny_elmo, tmp_path
    ):
        tagger = to_live(load(model_file, trusted=True), tiny_elmo.spec)
        keys = list(tagger.state_dict())
        assert keys == list(trained[1].state_dict())
        assert isinstance(tagger.embeddings.embeddings[1], LiveEmbeddings)
        close(scores(tagger, tagged[1]), trained[2])
        unseen = [Sentence(["never", "seen"])]
        tagger.predict(unseen)
        tagger.save(tmp_path / "live.pt")
        shipped = load(tmp_path / "live.pt", trusted=True)
        assert tags(shipped, tagged[1]) == trained[3]
        back = to_cached(shipped, tmp_path / "moved")
        assert isinstance(back.embeddings.embeddings[1], CachedEmbeddings)
        close(scores(back, tagged[1]), trained[2])
        with pytest.raises(MissingSentencesError, match="never seen"):
            back.predict([Sentence(["never", "seen"])])

    def test_live_with_another_recipe_is_refused(self, trained, layered, layered_store):
        with pytest.raises(RecipeMismatchError, match="layers"):
            to_live(copy.deepcopy(trained[1]), layered)
        with pytest.raises(UsageError, match="nothing to change"):
            to_live(torch.nn.Linear(1, 1))
        with pytest.raises(RecipeMismatchError, match="layers"):
            to_cached(to_live(copy.deepcopy(trained[1])), layered_store)

    def test_resumed(self, trained, tagging, tagged, tmp_path):
        tagger = load(trained[0] / "model.pt", trusted=True)
        train(tagger, tagging, tmp_path, epochs=1)
        assert tags(load(tmp_path / "model.pt", trusted=True), tagged[1]) == tags(tagger, tagged[1])

    @pytest.mark.parametrize("mode", ["none", "cpu"])
    def test_cached_training_is_live_training(self, full_store, tiny_elmo, tagging, tagged, tmp_path, mode):
        results = []
        for embedding in (CachedEmbeddings(full_store), LiveEmbeddings(tiny_elmo)):
            for split in (tagging.train, tagging.dev):
                for sentence in split:
                    sentence.clear_embeddings()
            tagger = train(new_tagger(embedding, tagging), tagging, tmp_path, mode, epochs=1)
            results.append(scores(tagger, tagged[1]))
        close(*results)

    def test_elmo_through_an_empty_store_fills_it(self, tiny_elmo, tagging, tagged, tmp_path):
        files = tiny_elmo.spec.removeprefix("elmo:").split(",")
        elmo = ElmoEmbeddings("tiny", *files, store=tmp_path / "filled")
        tagger = train(new_tagger(elmo, tagging), tagging, tmp_path, epochs=1)
        found = tags(tagger, tagged[1])
        elmo.flush()
        assert len(Store.open(tmp_path / "filled")) == len({e.tokens for part in tagged for e in part})
        bind(tagger, tmp_path / "filled")
        to_live(tagger)
        assert type(tagger.embeddings) is ElmoEmbeddings
        assert not tagger.embeddings.is_cached
        assert tags(tagger, tagged[1]) == found


class TestClassifier:
    @pytest.mark.parametrize("mode", ["none", "cpu"])
    @pytest.mark.parametrize("kind", [DocumentPoolEmbeddings, DocumentRNNEmbeddings])
    def test_trained_saved_moved_bound_live(self, kind, mode, own_store, judged, tmp_path):
        corpus = judged_corpus(judged)
        document = kind([CachedEmbeddings(own_store), words_of(corpus)])
        model = train(new_classifier(document, corpus), corpus, tmp_path, mode)
        expected = scores(model, judged[1])
        own_store.path.rename(tmp_path / "moved")
        again = load(tmp_path / "model.pt", trusted=True)
        close(scores(bind(again, tmp_path / "moved"), judged[1]), expected)
        close(scores(to_live(again), judged[1]), expected)


class TestLoading:
    def test_needs_a_word_of_trust(self, trained):
        path = trained[0] / "model.pt"
        for trusted in ({}, {"trusted": False}, {"trusted": "yes"}):
            with pytest.raises(UsageError, match=r"can run any code.*trusted=True"):
                load(path, **trusted)

    def test_no_file_no_network(self, tmp_path):
        with pytest.raises(ModelError, match="no Flair model at"):
            load("ner", trusted=True)

    def test_no_model(self, tmp_path):
        (tmp_path / "no.pt").write_bytes(b"not a model")
        torch.save({"a": 1}, tmp_path / "other.pt")
        torch.save(torch.ones(1), tmp_path / "tensor.pt")
        for name, reason in (
            ("no.pt", r"cannot be read as a Flair model \(UnpicklingError: .*damaged or cut short"),
            ("other.pt", r"holds no Flair model \(but keys a\)"),
            ("tensor.pt", r"holds no Flair model \(but Tensor\)"),
        ):
            with pytest.raises(ModelError, match=rf"{name} {reason}"):
                load(tmp_path / name, trusted=True)

    def test_a_damaged_model_is_called_so(self, trained, tmp_path, caplog):
        whole = (trained[0] / "model.pt").read_bytes()
        for n_bytes in (0, 100, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut.pt").write_bytes(whole[:n_bytes])
            with pytest.raises(ModelError, match=r"cut\.pt cannot be read as a Flair model .*damaged"):
                load(tmp_path / "cut.pt", trusted=True)
        assert "ModelHub" not in caplog.text

    def test_a_state_that_makes_no_model(self, trained, tmp_path):
        for changes, reason in (
            (
                {"__cls__": "Elsewhere"},
                r"is a model of the class 'Elsewhere', which Flair does not know here",
            ),
            ({"hidden_size": 3}, r"cannot be loaded as a Flair SequenceTagger \(RuntimeError: "),
            (
                {"__cls__": None},
                r"cannot be loaded as a Flair model \(no model class of Flair here takes it\)",
            ),
        ):
            state = load_torch_state(str(trained[0] / "model.pt"))
            if changes == {"__cls__": None}:
                state = {"state_dict": {}}
            torch.save({**state, **changes}, tmp_path / "odd.pt")
            with pytest.raises(ModelError, match=rf"odd\.pt {reason}"):
                load(tmp_path / "odd.pt", trusted=True)

    def test_a_class_that_is_not_registered(self, trained, monkeypatch):
        from flair.embeddings.base import EMBEDDING_CLASSES

        monkeypatch.delitem(EMBEDDING_CLASSES, "featurestore.CachedEmbeddings")
        with pytest.raises(ModelError, match=r"no 'featurestore\.CachedEmbeddings'.*import the module"):
            load(trained[0] / "model.pt", trusted=True)

    def test_a_whole_model_can_be_pickled_for_workers(self, trained, tagged):
        assert tags(pickle.loads(pickle.dumps(trained[1])), tagged[1]) == trained[3]


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
