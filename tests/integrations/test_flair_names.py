"""Embeddings of stored vectors as Flair's modules: names, copies, devices, state."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Dictionary, Sentence  # noqa: E402
from flair.embeddings import (  # noqa: E402
    DocumentPoolEmbeddings,
    DocumentRNNEmbeddings,
    FlairEmbeddings,
    OneHotEmbeddings,
    StackedEmbeddings,
    WordEmbeddings,
)
from flair.embeddings.base import EMBEDDING_CLASSES, load_embeddings  # noqa: E402

from featurestore import load_encoder  # noqa: E402
from featurestore.integrations import stored  # noqa: E402
from featurestore.integrations.flair import CachedEmbeddings, ElmoEmbeddings, LiveEmbeddings  # noqa: E402
from tests.integrations.embedded import FILES, close, embedded, on_tokens, sentences_of  # noqa: E402


@pytest.fixture(scope="module")
def words(tagged):
    torch.manual_seed(0)
    dictionary = Dictionary()
    for example in tagged[0]:
        for token in example.tokens:
            dictionary.add_item(token)
    return lambda: OneHotEmbeddings(dictionary, embedding_length=5)


class TestNames:
    def test_stable_unique_and_without_paths(self, full_store, layered_store, tmp_path):
        names = [
            CachedEmbeddings(full_store).name,
            CachedEmbeddings(layered_store).name,
            CachedEmbeddings(layered_store, layers="top").name,
            ElmoEmbeddings(**FILES).name,
            ElmoEmbeddings(**FILES, embedding_mode="top").name,
        ]
        assert len(set(names)) == len(names)
        assert CachedEmbeddings(full_store.path).name == names[0]
        assert not any("/" in name or "store" in name or "tiny" in name for name in names)
        assert CachedEmbeddings(full_store, name="mine").name == "mine"

    def test_two_stores_stack_to_the_declared_length(self, full_store, layered_store, some, expected):
        for overwrite in (True, False):
            members = [CachedEmbeddings(full_store), CachedEmbeddings(layered_store)]
            stack = StackedEmbeddings(members, overwrite_names=overwrite)
            vectors = embedded(stack, some)
            assert vectors.shape[1] == stack.embedding_length == 128

    def test_one_store_twice(self, full_store, some, expected):
        stack = StackedEmbeddings([CachedEmbeddings(full_store), CachedEmbeddings(full_store)])
        vectors = embedded(stack, some)
        assert vectors.shape[1] == stack.embedding_length == 64
        close(vectors, torch.cat([expected, expected], 1))

    def test_beside_other_embeddings_in_the_order_given(self, full_store, some, expected, words, letters):
        stack = StackedEmbeddings(
            [
                FlairEmbeddings(letters),
                CachedEmbeddings(full_store),
                words(),
                WordEmbeddings(None, vocab={"the": 0, "a": 1}, embedding_length=3, name="words"),
            ]
        )
        vectors = embedded(stack, some)
        assert vectors.shape[1] == stack.embedding_length == 6 + 32 + 5 + 3
        close(vectors[:, 6:38], expected)

    def test_names_survive_saving_in_stacks_and_documents(self, full_store, layered_store, some, words):
        stack = StackedEmbeddings([CachedEmbeddings(layered_store), words(), CachedEmbeddings(full_store)])
        for wrapped in (stack, DocumentPoolEmbeddings(stack.embeddings)):
            before = [e.name for e in stack.embeddings]
            again = load_embeddings(wrapped.save_embeddings())
            members = getattr(again, "embeddings", again)
            members = getattr(members, "embeddings", members)
            assert members[0].name.endswith(before[0])
            assert [e.embedding_length for e in members] == [96, 5, 32]
            sentences = sentences_of(some)
            again.embed(sentences)
            assert (sentences[0].get_embedding().numel() or on_tokens(sentences).shape[1]) == 133

    @pytest.mark.parametrize("kind", [DocumentPoolEmbeddings, DocumentRNNEmbeddings])
    def test_in_document_embeddings(self, kind, full_store, some, tiny_elmo):
        pairs = []
        for embedding in (CachedEmbeddings(full_store), LiveEmbeddings(tiny_elmo)):
            torch.manual_seed(0)
            document, sentences = kind([embedding]), sentences_of(some)
            document.eval()
            document.embed(sentences)
            pairs.append(torch.stack([s.get_embedding() for s in sentences]))
        close(*pairs)


class TestModule:
    def test_nothing_to_save_train_or_move(self, full_store, layered_store, layered):
        class Network(torch.nn.Linear):
            """An encoder that is a torch module, as one might well be."""

            spec, recipe, dim, n_layers = layered.spec, layered.recipe, layered.dim, layered.n_layers
            device, token_budget = "cpu", 100

            def encode(self, sentences):
                return layered.encode(sentences)

        network = Network(2, 2)
        for embedding in (
            CachedEmbeddings(layered_store, "compute", network),
            LiveEmbeddings(network),
            ElmoEmbeddings(**FILES),
            ElmoEmbeddings(**FILES, store=layered_store),
        ):
            embedding.embed(Sentence(["new", "words"]))
            embedding.eval()
            assert embedding.state_dict() == {}
            assert list(embedding.parameters()) == []
            assert [type(m) for m in embedding.modules()] == [type(embedding)]
            assert network.training
            assert embedding.static_embeddings

    def test_pickles_and_copies_are_small_and_work(self, full_store, some, expected, tiny_elmo):
        for embedding in (CachedEmbeddings(full_store, "compute", tiny_elmo), LiveEmbeddings(tiny_elmo)):
            embedding.embed(sentences_of(some))
            raw = pickle.dumps(embedding)
            assert len(raw) < 6_000
            close(embedded(pickle.loads(raw), some), expected)
            close(embedded(copy.deepcopy(embedding), some), expected)

    def test_what_flair_saves_is_plain_and_opens_nothing(self, full_store, monkeypatch, some):
        saved = CachedEmbeddings(full_store, "compute", layers="average").save_embeddings(False)
        assert json.loads(json.dumps(saved)) == saved
        assert saved["__cls__"] == "featurestore.CachedEmbeddings"
        monkeypatch.setattr(stored, "Store", None)
        embedding = load_embeddings(saved)
        assert embedding.embedding_length == 32
        assert embedding.source.on_missing == "compute"
        assert embedding.is_cached

    def test_registered_under_names_of_our_own(self):
        for kind in (CachedEmbeddings, LiveEmbeddings, ElmoEmbeddings):
            assert EMBEDDING_CLASSES[f"featurestore.{kind.__name__}"] is kind

    def test_saved_live_embeddings_load_their_model_on_first_use(self, tiny_elmo, some, expected):
        embedding = load_embeddings(LiveEmbeddings(tiny_elmo).save_embeddings())
        assert embedding.source._encoder is None
        close(embedded(embedding, some), expected)
        elmo = load_embeddings(ElmoEmbeddings(**FILES, embedding_mode="top").save_embeddings())
        assert type(elmo) is ElmoEmbeddings
        assert elmo.embedding_length == 32
        layers = load_encoder(tiny_elmo.spec, layers="top", device="cpu").encode([some[0].tokens])
        close(embedded(elmo, some[:1]), torch.from_numpy(layers[0]))
