"""CachedEmbeddings, LiveEmbeddings and ElmoEmbeddings as Flair token embeddings, in Flair's own hands."""

from __future__ import annotations

import copy
import json
import pickle

import h5py
import numpy as np
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
from flair.models import LanguageModel  # noqa: E402
from flair.training_utils import store_embeddings  # noqa: E402

from featurestore import Store, extract, load_encoder  # noqa: E402
from featurestore.encoders.flair.encoder import FlairEncoder  # noqa: E402
from featurestore.errors import (  # noqa: E402
    MissingSentencesError,
    RecipeMismatchError,
    SentenceError,
    UnknownEncoderError,
    UsageError,
)
from featurestore.integrations import flair_embeddings, stored  # noqa: E402
from featurestore.integrations.flair import CachedEmbeddings, ElmoEmbeddings, LiveEmbeddings, from_flair  # noqa: E402
from tests.kit.places import TINY_ELMO  # noqa: E402

OPTIONS, WEIGHTS = TINY_ELMO / "options.json", TINY_ELMO / "weights.hdf5"
FILES = {"options_file": OPTIONS, "weight_file": WEIGHTS}


def sentences_of(examples):
    return [Sentence(list(example.tokens)) for example in examples]


def on_tokens(sentences):
    """What Flair concatenates for each token, one row per token."""
    return torch.stack([token.get_embedding() for sentence in sentences for token in sentence])


def embedded(embedding, examples):
    sentences = sentences_of(examples)
    embedding.embed(sentences)
    return on_tokens(sentences)


def close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=atol)


@pytest.fixture(scope="module")
def some(tagged):
    return tagged[0][:6]


@pytest.fixture(scope="module")
def expected(tiny_elmo, some):
    return torch.from_numpy(np.concatenate(tiny_elmo.encode([e.tokens for e in some])))


@pytest.fixture(scope="module")
def words(tagged):
    torch.manual_seed(0)
    dictionary = Dictionary()
    for example in tagged[0]:
        for token in example.tokens:
            dictionary.add_item(token)
    return lambda: OneHotEmbeddings(dictionary, embedding_length=5)


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """The file of a character model with random weights."""
    torch.manual_seed(0)
    dictionary = Dictionary()
    for letter in "abcdefghijklmnopqrstuvwxyz .":
        dictionary.add_item(letter)
    path = str(tmp_path_factory.mktemp("letters") / "lm.pt")
    LanguageModel(dictionary, True, hidden_size=6, nlayers=1, embedding_size=4).save(path)
    return path


class TestElmo:
    @pytest.fixture(scope="class")
    @classmethod
    def golden(cls):
        """AllenNLP's own vectors with fresh state: per sentence (3, n_tokens, 32)."""
        sentences = json.loads((TINY_ELMO / "sentences.json").read_text(encoding="utf-8"))
        with h5py.File(TINY_ELMO / "stateless_padded_batch.hdf5") as file:
            vectors = [torch.from_numpy(file[str(i)][()]) for i in range(len(file))]
        return sentences, torch.cat(vectors, dim=1)

    @pytest.mark.parametrize(
        ("mode", "picked"),
        [
            ("all", lambda v: torch.cat([v[0], v[1], v[2]], 1)),
            ("top", lambda v: v[2]),
            ("average", lambda v: v.mean(0)),
        ],
    )
    def test_gives_the_vectors_of_allennlp(self, golden, mode, picked):
        tokens, vectors = golden
        elmo = ElmoEmbeddings("ignored", OPTIONS, WEIGHTS, mode)
        sentences = [Sentence(list(t)) for t in tokens]
        for start in range(0, len(sentences), 7):
            elmo.embed(sentences[start : start + 7])
        close(on_tokens(sentences), picked(vectors), atol=2e-4)
        assert elmo.embedding_length == (96 if mode == "all" else 32)

    @pytest.mark.parametrize(
        ("given", "spec"),
        [
            ([], "elmo:original"),
            (["small"], "elmo:small"),
            (["medium"], "elmo:medium"),
            (["5.5B"], "elmo:original-5.5b"),
            (["large"], "elmo:original-5.5b"),
            (["pt"], "elmo:portuguese"),
            (["portuguese"], "elmo:portuguese"),
            (["pubmed"], "elmo:pubmed"),
            (["demo"], "elmo:demo"),
            (["elmo:untrained-small?seed=1"], "elmo:untrained-small?seed=1"),
        ],
    )
    def test_flairs_names(self, monkeypatch, given, spec, tiny_elmo):
        asked = []

        def load(name, **options):
            asked.append((name, options))
            return tiny_elmo

        monkeypatch.setattr(flair_embeddings, "load_encoder", load)
        ElmoEmbeddings(*given, precision="float32", device="cpu", initial_state="zero")
        options = {"layers": "all", "precision": "float32", "device": "cpu", "initial_state": "zero"}
        assert asked == [(spec, options)]

    def test_what_makes_no_sense(self):
        with pytest.raises(UnknownEncoderError, match="orginal"):
            ElmoEmbeddings("orginal")
        with pytest.raises(UsageError, match="all, top, average"):
            ElmoEmbeddings(embedding_mode="mean", **FILES)
        with pytest.raises(UsageError, match="go together"):
            ElmoEmbeddings(options_file=OPTIONS)

    def test_the_bundled_model(self, bundled, some, expected):
        close(embedded(ElmoEmbeddings("demo", embedding_mode="average"), some), expected)

    def test_through_a_store_that_it_makes(self, tmp_path, some, monkeypatch):
        live = embedded(ElmoEmbeddings(**FILES), some)
        first = ElmoEmbeddings(**FILES, store=tmp_path / "store")
        served = embedded(first, some)
        close(served, live, atol=1e-2)  # float16
        first.flush()
        assert len(Store.open(tmp_path / "store")) == len(some)
        monkeypatch.setattr(flair_embeddings, "load_encoder", None)
        again = ElmoEmbeddings(**FILES, store=tmp_path / "store")
        assert torch.equal(embedded(again, some), served)
        assert again.n_missing == 0
        assert again.name == first.name

    @pytest.mark.parametrize("mode", ["all", "top", "average"])
    def test_every_mode_from_a_store_of_all_layers(self, layered_store, some, mode):
        stored = ElmoEmbeddings(embedding_mode=mode, store=layered_store, **FILES)
        live = ElmoEmbeddings(embedding_mode=mode, **FILES)
        assert stored.embedding_length == live.embedding_length
        close(embedded(stored, some), embedded(live, some))

    def test_a_store_that_does_not_fit(self, full_store, tmp_path):
        with pytest.raises(RecipeMismatchError, match=r"keeps the layers average.*--layers all"):
            ElmoEmbeddings(**FILES, store=full_store)
        with pytest.raises(RecipeMismatchError, match="weights_sha256"):
            ElmoEmbeddings("elmo:untrained-small?seed=0", embedding_mode="average", store=full_store)
        with pytest.raises(RecipeMismatchError, match=r"cannot be told|weights_sha256"):
            ElmoEmbeddings("medium", embedding_mode="average", store=full_store)


class TestOnTokens:
    def test_vectors_are_those_of_the_store(self, full_store, some, expected):
        cached = CachedEmbeddings(full_store)
        vectors = embedded(cached, some)
        close(vectors, expected)
        assert vectors.dtype == torch.float32
        assert vectors.device.type == flair.device.type
        assert not vectors.requires_grad
        assert not vectors.is_inference()

    def test_one_sentence_alone(self, full_store, some, expected):
        sentence = sentences_of(some)[0]
        CachedEmbeddings(str(full_store.path)).embed(sentence)
        close(on_tokens([sentence]), expected[: len(sentence)])

    def test_live_and_cached_agree(self, full_store, some, tiny_elmo, tiny_elmo_spec):
        for live in (LiveEmbeddings(tiny_elmo), LiveEmbeddings(tiny_elmo_spec)):
            close(embedded(live, some), embedded(CachedEmbeddings(full_store), some))

    def test_training_through_live_vectors(self, tiny_elmo, some):
        # Tensors made in inference mode could not be saved for backward.
        vectors = embedded(LiveEmbeddings(tiny_elmo), some)
        torch.nn.Linear(32, 2)(vectors).sum().backward()

    @pytest.mark.parametrize("mode", ["none", "cpu"])
    def test_storage_modes(self, full_store, some, mode, monkeypatch):
        cached, sentences = CachedEmbeddings(full_store), sentences_of(some)
        served = []
        monkeypatch.setattr(
            stored.StoredVectors,
            "vectors",
            lambda self, texts, real=stored.StoredVectors.vectors, **options: (
                served.append(len(texts)) or real(self, texts, **options)
            ),
        )
        for _ in range(3):
            cached.embed(sentences)
            kept = on_tokens(sentences)
            store_embeddings(sentences, mode)
        assert len(served) == (3 if mode == "none" else 1)
        close(kept, embedded(cached, some))

    def test_a_batch_of_which_some_was_kept(self, full_store, some, expected):
        cached, sentences = CachedEmbeddings(full_store), sentences_of(some)
        cached.embed(sentences[1:3])
        cached.embed(sentences)
        close(on_tokens(sentences), expected)

    def test_misses_name_sentence_and_command(self, full_store):
        with pytest.raises(MissingSentencesError, match=r"not here\nAdd them: featurestore extract CORPUS"):
            CachedEmbeddings(full_store).embed([Sentence(["not", "here"])])
        zeros = CachedEmbeddings(full_store, "zeros")
        sentence = Sentence(["not", "here"])
        zeros.embed(sentence)
        assert not on_tokens([sentence]).any()
        assert zeros.n_missing == 1
        assert "1 of 1 missing" in str(zeros)

    def test_compute_with_an_encoder_or_a_specification(
        self, tmp_path, some, tiny_elmo, tiny_elmo_spec, expected
    ):
        for number, fallback in enumerate((None, tiny_elmo, tiny_elmo_spec)):
            extract(some[:2], tiny_elmo, tmp_path / str(number), codec="float32", progress=False)
            cached = CachedEmbeddings(tmp_path / str(number), "compute", fallback)
            close(embedded(cached, some), expected)
            cached.flush()
            close(embedded(CachedEmbeddings(tmp_path / str(number)), some), expected)

    def test_a_fallback_of_another_recipe_is_refused_at_once(self, full_store, layered):
        for fallback in (layered, "elmo:untrained-small?seed=0"):
            with pytest.raises(RecipeMismatchError):
                CachedEmbeddings(full_store, "compute", fallback)


class TestKeys:
    def test_tokens_decide_not_text(self, tmp_path, tiny_elmo):
        composed, decomposed = "caf\u00e9", "cafe\u0301"
        stored_sentences = [["a b", "c"], [composed], ["zero\u200bwidth", "x"]]
        extract(stored_sentences, tiny_elmo, tmp_path / "s", progress=False)
        cached = CachedEmbeddings(tmp_path / "s")
        cached.embed([Sentence(tokens) for tokens in stored_sentences])
        for other in (["a", "b c"], ["a", "b", "c"], [decomposed]):
            with pytest.raises(MissingSentencesError):
                cached.embed(Sentence(other))
        # From text Flair drops what it takes for noise: the sentence is another one, and the message says so.
        with pytest.raises(MissingSentencesError, match="zero-width"):
            cached.embed(Sentence("zero\u200bwidth x"))

    def test_surrogates_and_language_make_no_trouble(self, tmp_path, tiny_elmo):
        extract([["\ud800", "x"]], tiny_elmo, tmp_path / "s", progress=False)
        CachedEmbeddings(tmp_path / "s").embed(Sentence(["\ud800", "x"], language_code="de"))

    def test_spaces_decide_where_the_recipe_says_so(self, tmp_path, letters):
        plain = FlairEmbeddings(letters, tokenized_lm=False)
        encoder = FlairEncoder(plain)
        # Segtok splits off the full stop and remembers that there was no space.
        texts = ["Yes it is.", "Yes it is ."]
        corpus = from_flair([Sentence(text) for text in texts], encoder_or_dependence=encoder)
        extract(corpus, encoder, tmp_path / "s", codec="float32", progress=False)
        assert len(Store.open(tmp_path / "s")) == 2
        cached = CachedEmbeddings(tmp_path / "s")
        found = []
        for text in texts:
            pair = [Sentence(text), Sentence(text)]
            cached.embed(pair[0])
            plain.embed(pair[1])
            close(on_tokens(pair[:1]), on_tokens(pair[1:]))
            found.append(on_tokens(pair[:1]))
        assert not torch.equal(*found)

    def test_empty_sentences_and_tokens(self, full_store, some):
        empty = Sentence(["x"])
        empty.tokens.clear()
        with pytest.raises(SentenceError, match=r"sentence 1 of 2.*at least one.*filter_empty_sentences"):
            CachedEmbeddings(full_store).embed([*sentences_of(some[:1]), empty])
        blank = Sentence(["x", "y"])
        blank.tokens[1].form = ""
        with pytest.raises(SentenceError, match="token 1 of 2 is empty"):
            CachedEmbeddings(full_store).embed(blank)


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
