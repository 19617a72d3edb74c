"""CachedEmbeddings, LiveEmbeddings and ElmoEmbeddings as Flair token embeddings, in Flair's own hands."""

from __future__ import annotations

import json

import h5py
import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Sentence  # noqa: E402
from flair.embeddings import (  # noqa: E402
    FlairEmbeddings,
)
from flair.training_utils import store_embeddings  # noqa: E402

from featurestore import Store, extract  # noqa: E402
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
from tests.integrations.embedded import FILES, OPTIONS, WEIGHTS, close, embedded, on_tokens, sentences_of  # noqa: E402
from tests.kit.places import TINY_ELMO  # noqa: E402


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
        with pytest.raises(RecipeMismatchError, match=r"keeps the layers average.*--layers all") as caught:
            ElmoEmbeddings(**FILES, store=full_store)
        assert caught.value.differences == (("layers", "average", [0, 1, 2]),)
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
