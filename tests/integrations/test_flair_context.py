"""Context: what an extraction stores is what training, evaluation and prediction in Flair ask for."""

from __future__ import annotations

import logging

import pytest
import torch

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Corpus, Sentence  # noqa: E402
from flair.datasets import ColumnCorpus, FlairDatapointDataset, UniversalDependenciesCorpus  # noqa: E402
from flair.embeddings import TransformerWordEmbeddings  # noqa: E402
from flair.models import SequenceTagger  # noqa: E402
from flair.trainers import ModelTrainer  # noqa: E402
from torch.utils.data import Subset  # noqa: E402

from featurestore import FeatureDataset, Store, extract, open_corpus  # noqa: E402
from featurestore.encoders.flair import Dependence, FlairEncoder  # noqa: E402
from featurestore.errors import MissingSentencesError, UsageError  # noqa: E402
from featurestore.integrations.flair import (  # noqa: E402
    CachedEmbeddings,
    LiveEmbeddings,
    from_flair,
    set_context,
    to_live,
)

logging.getLogger("flair").setLevel(logging.ERROR)

SPLITS = ("train", "dev", "test")
CONTEXT = 6


@pytest.fixture(scope="module")
def looking_around(tiny_bert):
    """A transformer that looks at six tokens to each side, as Flair has it."""
    flair.set_seed(0)
    return TransformerWordEmbeddings(str(tiny_bert), use_context=CONTEXT, fine_tune=False).eval()


@pytest.fixture(scope="module")
def encoder(looking_around):
    return FlairEncoder(looking_around)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tagged sentences in files, in columns and in CoNLL-U; some occur in several splits and contexts."""
    path = tmp_path_factory.mktemp("corpus")
    examples = [e for e in open_corpus("data/tagging/train.conllu", label="4") if len(e.tokens) < 15][:20]
    for split, part in zip(SPLITS, (examples[:14], examples[8:17], examples[12:]), strict=True):
        columns, conllu = "", ""
        for example in part:
            for at, (token, tag) in enumerate(zip(example.tokens, example.labels, strict=True), start=1):
                columns += f"{token}\t{tag}\n"
                conllu += f"{at}\t{token}\t_\t{tag}\t_\t_\t0\troot\t_\t_\n"
            columns, conllu = columns + "\n", conllu + "\n"
        (path / f"{split}.txt").write_text(columns, encoding="utf-8")
        (path / f"{split}.conllu").write_text(conllu, encoding="utf-8")
    return path


def columns(folder, in_memory=True):
    names = {f"{split}_file": f"{split}.txt" for split in SPLITS}
    return ColumnCorpus(folder, {0: "text", 1: "upos"}, in_memory=in_memory, column_delimiter="\t", **names)


def universal(folder, in_memory=True):
    names = {f"{split}_file": f"{split}.conllu" for split in SPLITS}
    return UniversalDependenciesCorpus(folder, in_memory=in_memory, **names)


def trained(embedding, corpus, path):
    """A tagger after two epochs over a shuffled training split, with Flair's evaluation after each."""
    flair.set_seed(1)
    tagger = SequenceTagger(
        embeddings=embedding, tag_dictionary=corpus.make_label_dictionary("upos"), tag_type="upos",
        hidden_size=8, use_crf=False,
    )  # fmt: skip
    ModelTrainer(tagger, corpus).train(
        path, learning_rate=0.1, mini_batch_size=4, max_epochs=2, embeddings_storage_mode="none",
        create_file_logs=False, create_loss_file=False, save_final_model=False,
    )  # fmt: skip
    return tagger.eval()


def vectors(embedding, sentences):
    """One row per token; what was kept on the tokens is removed."""
    embedding.embed(sentences)
    found = torch.stack([token.get_embedding() for sentence in sentences for token in sentence])
    for sentence in sentences:
        sentence.clear_embeddings()
    return found


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def differ(ours, theirs):
    assert (ours - theirs).abs().max() > 1e-2


def texts(*sentences):
    return [Sentence(text.split()) for text in sentences]


@pytest.fixture
def store_of(tmp_path, encoder):
    """Extract a corpus with the encoder and return the open store."""

    def extracted(corpus, name="store"):
        read = from_flair(corpus, encoder_or_dependence=encoder)
        extract(read, encoder, tmp_path / name, codec="float32", progress=False)
        return Store.open(tmp_path / name)

    return extracted


@pytest.mark.parametrize(
    ("make", "in_memory"),
    [(columns, True), (columns, False), (universal, True), (universal, False)],
    ids=["columns", "columns, lazy", "universal", "universal, lazy"],
)
def test_two_epochs_evaluation_and_prediction_find_everything(
    make, in_memory, folder, store_of, looking_around, tmp_path
):
    corpus = make(folder, in_memory)
    if make is universal:
        set_context(corpus)
    cached = CachedEmbeddings(store_of(corpus))
    tagger = trained(cached, corpus, tmp_path)
    sentences = [corpus.test[i] for i in range(len(corpus.test))]
    tagger.predict(sentences, label_name="found", mini_batch_size=3)
    assert all(len(s.get_labels("found")) == len(s) for s in sentences)
    # Two passes over train, and dev twice, and the end's test, and this: none of it was missing.
    assert cached.n_missing == 0
    assert cached.source.n_served > 2 * len(corpus.train) + 2 * len(corpus.dev)
    # And they are the vectors that Flair's own embedding gives for the sentence where it stands.
    close(vectors(cached, sentences[::2]), vectors(looking_around, sentences[::2]))


def test_without_a_context_evaluation_asks_for_another_one_and_says_what_to_do(folder, store_of, tmp_path):
    corpus = universal(folder)
    store = store_of(corpus)
    with pytest.raises(MissingSentencesError, match=r"context.*set_context\(corpus\) before extraction"):
        trained(CachedEmbeddings(store), corpus, tmp_path)


def test_a_corpus_read_without_saying_for_whom_is_refused(folder, encoder, tiny_bert, tmp_path):
    corpus = columns(folder)
    with pytest.raises(UsageError, match=r"\(context, .*from_flair\(corpus, encoder_or_dependence=encoder\)"):
        extract(from_flair(corpus), encoder, tmp_path / "store", progress=False)
    assert len(Store.open(tmp_path / "store")) == 0
    # Asked for, or where nothing but tokens matters, it goes.
    alone = from_flair(corpus, encoder_or_dependence=Dependence())
    assert extract(alone, encoder, tmp_path / "store", progress=False).n_encoded > 0
    plain = FlairEncoder(TransformerWordEmbeddings(str(tiny_bert), fine_tune=False))
    assert extract(from_flair(corpus), plain, tmp_path / "plain", progress=False).n_encoded > 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_alone(in_memory, folder, store_of, encoder, tmp_path):
    corpus = set_context(universal(folder, in_memory), alone=True)
    store = store_of(corpus)
    cached = CachedEmbeddings(store)
    trained(cached, corpus, tmp_path)
    assert cached.n_missing == 0
    tokens = [tuple(t.text for t in s) for split in SPLITS for s in getattr(corpus, split)]
    assert len(store) == len(set(tokens))
    assert all(sentence in store for sentence in tokens)


def test_the_same_tokens_in_two_contexts_are_two_sentences(store_of, looking_around):
    first, second = texts("the left one", "same words"), texts("something else", "same words")
    for sentences in (first, second):
        Sentence.set_context_for_sentences(sentences)
    alone = texts("same words")
    store = store_of([*first, *second, *alone])
    assert len(store) == 5
    found = [vectors(CachedEmbeddings(store), [s]) for s in (first[1], second[1], alone[0])]
    differ(found[0], found[1])
    differ(found[1], found[2])
    for sentence, cached in zip((first[1], second[1], alone[0]), found, strict=True):
        close(cached, vectors(looking_around, [sentence]))


def test_a_second_extraction_finds_all_done_and_our_own_dataset_reads_it(
    folder, store_of, encoder, looking_around, tmp_path
):
    corpus = columns(folder, in_memory=False)
    store = store_of(corpus)
    report = extract(
        from_flair(corpus, encoder_or_dependence=store), encoder, tmp_path / "store", progress=False
    )
    assert (report.n_encoded, report.n_cached) == (0, len(store))
    examples = from_flair(corpus, splits=["dev"], label_type="upos", encoder_or_dependence=store)
    dataset = FeatureDataset(store, examples)
    for number, sentence in enumerate(columns(folder).dev):
        item = dataset[number]
        close(item.features, vectors(looking_around, [sentence]))
        assert dataset.gold(number) == tuple(token.get_label("upos").value for token in sentence)


class TestUnlinkedSentences:
    def test_stand_alone_whatever_is_in_the_batch_and_stay_as_they_are(self, store_of, looking_around):
        def make():
            return texts("one two three", "four five", "six")

        cached = CachedEmbeddings(store_of(make()))
        sentences = make()
        together = vectors(cached, sentences)
        assert not any(sentence.is_context_set() for sentence in sentences)
        close(together, torch.cat([vectors(cached, [s]) for s in make()]))
        close(vectors(cached, sentences[::-1])[-3:], together[:3])
        close(together[:3], vectors(looking_around, make()[:1]))

    def test_predict_takes_a_list_as_running_text(self, folder, store_of, encoder, looking_around, tmp_path):
        corpus = columns(folder)
        cached = CachedEmbeddings(store_of(corpus))
        tagger = trained(cached, corpus, tmp_path)
        unseen = texts("never seen before", "nor this one", "the end")
        with pytest.raises(MissingSentencesError, match="predict"):
            tagger.predict(unseen)
        tagger = to_live(tagger, encoder)
        assert isinstance(tagger.embeddings, LiveEmbeddings)
        unseen = texts("never seen before", "nor this one", "the end")
        tagger.predict(unseen, label_name="found")
        # predict has linked them: now the vectors are Flair's own for sentences with these neighbours,
        close(vectors(tagger.embeddings, unseen), vectors(looking_around, unseen))
        # and others than each sentence alone has.
        alone = torch.cat([vectors(tagger.embeddings, [s]) for s in texts("nor this one")])
        differ(vectors(tagger.embeddings, unseen[1:2]), alone)
        # Unless it is said that they are.
        single = set_context(texts("never seen before", "nor this one"), alone=True)
        tagger.predict(single, label_name="found")
        close(vectors(tagger.embeddings, single[1:]), alone)

    def test_live_and_cached_predict_the_same(self, folder, store_of, encoder, tmp_path):
        corpus = columns(folder)
        tagger = trained(CachedEmbeddings(store_of(corpus)), corpus, tmp_path)
        found = []
        for model in (tagger, to_live(tagger, encoder)):
            sentences = list(columns(folder).test)
            model.predict(sentences, label_name="found")
            found.append([[label.value for label in s.get_labels("found")] for s in sentences])
        assert found[0] == found[1]
        assert sum(map(len, found[0])) == sum(map(len, corpus.test))


def test_missing_contexts_are_computed_and_added(store_of, encoder, looking_around):
    store = store_of(texts("one two", "three four"))
    cached = CachedEmbeddings(store, "compute", encoder)
    linked = texts("one two", "three four")
    Sentence.set_context_for_sentences(linked)
    expected = vectors(looking_around, linked)
    for _ in range(2):
        close(vectors(cached, linked), expected)
    cached.flush()
    again = CachedEmbeddings(store.path)
    close(vectors(again, linked), expected)
    differ(vectors(again, texts("three four")), expected[2:])
    assert (len(Store.open(store.path)), again.n_missing) == (4, 0)


class TestSetContext:
    def test_a_list_is_linked_and_links_that_are_there_stay(self):
        first, second, third = texts("a", "b", "c")
        third._previous_sentence = first
        assert set_context([first, second, third]) == [first, second, third]
        assert (first.next_sentence(), second.previous_sentence()) == (second, first)
        assert (third.previous_sentence(), second.next_sentence()) == (first, None)

    def test_a_sampled_split_has_the_neighbours_it_had(self):
        whole = FlairDatapointDataset(texts(*(f"w{i}" for i in range(6))))
        corpus = Corpus(Subset(whole, [0, 2, 4]), Subset(whole, [1, 3]), sample_missing_splits=False)
        set_context(corpus, splits=["dev"])
        assert corpus.dev[0].previous_sentence() is corpus.train[0]
        assert corpus.dev[0].next_sentence() is corpus.train[1]

    def test_lazy_sentences_know_their_neighbours_at_both_ends(self, folder):
        corpus = set_context(universal(folder, in_memory=False))
        assert corpus.train[0].previous_sentence() is None
        assert corpus.train[len(corpus.train) - 1].next_sentence() is None
        assert corpus.train[-1].previous_sentence().text == corpus.train[len(corpus.train) - 2].text
        assert [s.text for s in corpus.train] == [s.text for s in universal(folder).train]
        linked = corpus.train
        assert set_context(corpus).train is linked
        assert set_context(columns(folder, in_memory=False).train)[1].previous_sentence() is not None

    def test_what_cannot_be_linked(self, folder):
        with pytest.raises(UsageError, match=r"put it into a flair\.data\.Corpus"):
            set_context(universal(folder, in_memory=False).train)
        with pytest.raises(UsageError, match="expected a Flair corpus"):
            set_context(Sentence("x"))
