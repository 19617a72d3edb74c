"""Flair models trained on stored vectors: saved, moved, bound, made live, resumed; what loading refuses."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Corpus, Sentence  # noqa: E402
from flair.datasets import FlairDatapointDataset  # noqa: E402
from flair.embeddings import (  # noqa: E402
    DocumentPoolEmbeddings,
    DocumentRNNEmbeddings,
    StackedEmbeddings,
)
from flair.file_utils import load_torch_state  # noqa: E402
from flair.models import TextClassifier  # noqa: E402

from featurestore import Store  # noqa: E402
from featurestore.errors import (  # noqa: E402
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
    load,
    to_cached,
    to_live,
)

logging.getLogger("flair").setLevel(logging.ERROR)
from tests.integrations.flair_models import close, new_tagger, scores, tags, train, words_of  # noqa: E402


def judged_corpus(judged):
    def read(examples):
        sentences = [Sentence(list(example.tokens)) for example in examples]
        for sentence, example in zip(sentences, examples, strict=True):
            sentence.add_label("mood", example.labels)
        return FlairDatapointDataset(sentences)

    return Corpus(train=read(judged[0]), dev=read(judged[1]), sample_missing_splits=False)


def new_classifier(document, corpus):
    return TextClassifier(document, label_type="mood", label_dictionary=corpus.make_label_dictionary("mood"))


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
