"""Flair's corpora as input of an extraction, in each of Flair's formats, from real files."""

from __future__ import annotations

import gc
import json
import logging
import weakref

import pytest

flair = pytest.importorskip("flair", reason="needs Flair: pip install 'featurestore[flair]'")

from flair.data import Corpus, DataPair, FlairDataset, Sentence  # noqa: E402
from flair.datasets import (  # noqa: E402
    ClassificationCorpus,
    ColumnCorpus,
    CSVClassificationCorpus,
    FlairDatapointDataset,
    UniversalDependenciesCorpus,
)
from flair.datasets.sequence_labeling import JsonlCorpus  # noqa: E402

from featurestore import FeatureDataset, Store, extract  # noqa: E402
from featurestore.encoders.flair.conditions import Dependence  # noqa: E402
from featurestore.errors import CorpusChangedError, CorpusError, LabelError, UsageError  # noqa: E402
from featurestore.integrations.flair import CachedEmbeddings, from_flair  # noqa: E402
from featurestore.keys import condition_of  # noqa: E402

logging.getLogger("flair").setLevel(logging.ERROR)

COLUMNS = """Anna\tPROPN\tB-PER
Lee\tPROPN\tI-PER
runs\tVERB\tO

In\tADP\tO
Rome\tPROPN\tB-LOC
Anna\tPROPN\tB-PER

No\tINTJ\tO
"""
UD = """# sent_id = 1
1\tI\tI\tPRON\t_\t_\t2\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tdo\tdo\tAUX\t_\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\t_\t_\t2\tadvmod\t_\t_
4\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\t_

1\tYes\tyes\tINTJ\t_\t_\t0\troot\t_\t_

"""
SPLITS = ("train", "dev", "test")


def write(folder, text, name):
    for split in SPLITS:
        (folder / name.format(split)).write_text(text, encoding="utf-8")
    return folder


def files(name):
    return {f"{split}_file": name.format(split) for split in SPLITS}


def read(corpus, **options):
    """Each sentence of the training split with its labels."""
    return [(list(e.tokens), e.labels) for e in from_flair(corpus, splits=["train"], **options)]


class TestFormats:
    @pytest.fixture(params=[True, False], ids=["in memory", "lazy"])
    def in_memory(self, request):
        return request.param

    def test_columns(self, tmp_path, in_memory):
        write(tmp_path, COLUMNS, "{}.txt")
        corpus = ColumnCorpus(
            tmp_path, {0: "text", 1: "upos", 2: "ner"}, in_memory=in_memory, **files("{}.txt")
        )
        assert read(corpus, label_type="ner") == [
            (["Anna", "Lee", "runs"], ("B-PER", "I-PER", "O")),
            (["In", "Rome", "Anna"], ("O", "B-LOC", "B-PER")),
            (["No"], ("O",)),
        ]
        assert [labels for _, labels in read(corpus, label_type="upos")] == [
            ("PROPN", "PROPN", "VERB"), ("ADP", "PROPN", "PROPN"), ("INTJ",)
        ]  # fmt: skip
        assert [labels for _, labels in read(corpus)] == [None] * 3

    @pytest.mark.parametrize("split_multiwords", [True, False])
    def test_universal_dependencies(self, tmp_path, in_memory, split_multiwords):
        write(tmp_path, UD, "{}.conllu")
        corpus = UniversalDependenciesCorpus(
            tmp_path, in_memory=in_memory, split_multiwords=split_multiwords, **files("{}.conllu")
        )
        found = read(corpus, label_type="upos")
        assert found[1] == (["Yes"], ("INTJ",))
        assert found[0] == (
            (["I", "do", "n't", "."], ("PRON", "AUX", "PART", "PUNCT"))
            if split_multiwords
            else (["I", "don't", "."], ("PRON", "O", "PUNCT"))
        )

    def test_csv_as_flair_tokenises_and_truncates_it(self, tmp_path, in_memory):
        write(tmp_path, 'good,"It\'s fine, really."\nbad,No\n', "{}.csv")
        corpus = CSVClassificationCorpus(
            tmp_path, {0: "label", 1: "text"}, "mood", max_tokens_per_doc=4, in_memory=in_memory,
            **files("{}.csv"),
        )  # fmt: skip
        assert read(corpus, label_type="mood") == [(["It", "'s", "fine", ","], "good"), (["No"], "bad")]

    @pytest.mark.parametrize("mode", ["full", "partial", "disk"])
    def test_fasttext_as_flair_tokenises_and_truncates_it(self, tmp_path, mode):
        write(tmp_path, "__label__good It's fine, really.\n__label__bad No way\n", "{}.txt")
        corpus = ClassificationCorpus(
            tmp_path, "mood", memory_mode=mode, truncate_to_max_tokens=3, **files("{}.txt")
        )
        assert read(corpus, label_type="mood") == [(["It", "'s", "fine"], "good"), (["No", "way"], "bad")]

    def test_json_lines(self, tmp_path):
        lines = [
            {"data": "Anna Lee runs.", "label": [[0, 8, "PER"]]},
            {"data": "In Rome", "label": [[3, 7, "LOC"]]},
        ]
        write(tmp_path, "".join(json.dumps(line) + "\n" for line in lines), "{}.jsonl")
        corpus = JsonlCorpus(tmp_path, **files("{}.jsonl"))
        assert read(corpus, label_type="ner") == [
            (["Anna", "Lee", "runs", "."], ("B-PER", "I-PER", "O", "O")),
            (["In", "Rome"], ("O", "B-LOC")),
        ]

    def test_sampled_downsampled_and_filtered_splits(self, tmp_path):
        write(tmp_path, COLUMNS * 10, "{}.txt")
        corpus = ColumnCorpus(tmp_path, {0: "text", 2: "ner"}, train_file="train.txt", autofind_splits=False)
        corpus.downsample(0.5)
        corpus.filter_empty_sentences()
        for split in SPLITS:
            expected = [tuple(t.text for t in s) for s in getattr(corpus, split)]
            assert [e.tokens for e in from_flair(corpus, splits=[split])] == expected != []


class TestReading:
    @pytest.fixture
    def corpus(self):
        def dataset(*texts):
            return FlairDatapointDataset([Sentence(text.split()) for text in texts])

        return Corpus(dataset("a b", "c"), dataset("d", "e f"), name="mine", sample_missing_splits=False)

    def test_splits_in_the_order_asked_for(self, corpus):
        both = [" ".join(e.tokens) for e in from_flair(corpus)]
        assert both == ["a b", "c", "d", "e f"]
        assert [" ".join(e.tokens) for e in from_flair(corpus, splits=("dev", "train"))] == [
            *both[2:],
            *both[:2],
        ]
        assert [" ".join(e.tokens) for e in from_flair(corpus, splits="dev")] == both[2:]

    def test_datasets_and_lists(self, corpus):
        for given in (corpus.dev, list(corpus.dev)):
            assert [e.tokens for e in from_flair(given)] == [("d",), ("e", "f")]

    def test_examples_know_their_place(self, corpus):
        assert [e.place for e in from_flair(corpus)][-1] == "mine dev, sentence 2"
        assert "sentence 1" in next(iter(from_flair([Sentence("x")]))).place

    @pytest.mark.parametrize("splits", [["validation"], ["test"], []])
    def test_splits_that_are_not_there(self, corpus, splits):
        with pytest.raises(UsageError, match="split"):
            from_flair(corpus, splits=splits)

    @pytest.mark.parametrize("given", [Sentence("one sentence"), "text", None, iter([])])
    def test_no_corpus(self, given):
        with pytest.raises(UsageError, match="expected a Flair corpus"):
            from_flair(given)

    def test_what_is_no_sentence_is_named(self):
        pair = DataPair(Sentence("a"), Sentence("b"))
        with pytest.raises(CorpusError, match=r"the sentence is a DataPair.*expected a Sentence") as caught:
            list(from_flair([Sentence("x"), pair]))
        assert str(caught.value.path).endswith("sentence 2")

    def test_an_empty_token_is_named(self):
        sentence = Sentence(["x", "y"])
        sentence.tokens[1].form = ""
        with pytest.raises(CorpusError, match=r"sentence 1: token 1 of 2 is empty"):
            list(from_flair([sentence]))

    def test_empty_sentences_are_skipped_and_counted_once(self, caplog):
        corpus = from_flair([Sentence(""), Sentence("x"), Sentence("")])
        with caplog.at_level(logging.WARNING, logger="featurestore"):
            assert [e.tokens for e in corpus] == [e.tokens for e in corpus] == [("x",)]
        # Flair warns of such sentences too, where its log is not kept from the root logger.
        ours = [r.getMessage() for r in caplog.records if r.name.startswith("featurestore.")]
        assert [message.count("2 sentences without tokens") for message in ours] == [1]
        assert next(iter(corpus)).place.endswith("sentence 2")

    def test_a_change_between_two_passes_is_noticed(self, corpus):
        read_twice = from_flair(corpus)
        for _ in range(2):
            list(read_twice)
            read_twice.check_unchanged()
        corpus.dev[1].tokens[0].form = "changed"
        list(read_twice)
        with pytest.raises(CorpusChangedError, match="mine"):
            read_twice.check_unchanged()

    def test_lazy_datasets_are_streamed(self):
        alive = weakref.WeakSet()

        class Lazy(FlairDataset):
            def is_in_memory(self):
                return False

            def __len__(self):
                return 20

            def __getitem__(self, index):
                sentence = Sentence([f"word{index}"])
                alive.add(sentence)
                return sentence

        gc.freeze()  # so that collecting takes no time
        try:
            for number, example in enumerate(from_flair(Lazy())):
                assert example.tokens == (f"word{number}",)
                gc.collect()  # a sentence and its tokens refer to each other
                assert len(alive) == 1
        finally:
            gc.unfreeze()
        assert number == 19


class TestLabels:
    def test_a_type_that_nothing_has(self):
        sentence = Sentence("x")
        sentence.add_label("mood", "good")
        with pytest.raises(LabelError, match=r"no.*'moods'.*there are: mood"):
            from_flair([sentence], label_type="moods")

    def test_several_labels_where_there_can_be_one(self):
        sentence = Sentence("x")
        sentence.add_label("mood", "good").add_label("mood", "bad")
        with pytest.raises(LabelError, match=r"the sentence has 2 labels of type 'mood', expected") as caught:
            list(from_flair([sentence], label_type="mood"))
        assert str(caught.value.path).endswith("sentence 1")

    def test_overlapping_spans(self):
        sentence = Sentence(["a", "b", "c"])
        sentence[0:2].add_label("ner", "X")
        sentence[1:3].add_label("ner", "Y")
        with pytest.raises(LabelError, match=r"overlap at token 1 \('b'\)"):
            list(from_flair([sentence], label_type="ner"))

    def test_labels_of_relations_and_of_two_kinds(self):
        sentence, other = Sentence(["a", "b"]), Sentence(["c"])
        sentence[0:1].add_label("ner", "X")
        other.tokens[0].add_label("ner", "X")
        with pytest.raises(LabelError, match=r"sentence 2: 'ner' labels a Token here, but a Span before"):
            list(from_flair([sentence, other], label_type="ner"))
        flair.data.Relation(sentence[0:1], sentence[1:2]).add_label("relation", "r")
        with pytest.raises(LabelError, match="labels a Relation"):
            from_flair([sentence], label_type="relation")

    def test_neighbouring_spans_and_spans_cut_by_truncation(self):
        sentence = Sentence(["a", "b", "c", "d"])
        for part in (sentence[0:1], sentence[1:2], sentence[2:4]):
            part.add_label("ner", "X")
        sentence.tokens = sentence.tokens[:3]
        assert read_labels(sentence, "ner") == ("B-X", "B-X", "B-X")

    def test_a_sentence_without_labels_has_none(self):
        labelled, bare = Sentence(["a"]), Sentence(["b"])
        labelled.add_label("mood", "good")
        assert [e.labels for e in from_flair([bare, labelled], label_type="mood")] == [None, "good"]


def read_labels(sentence, label_type):
    return next(iter(from_flair([sentence], label_type=label_type))).labels


class TestConditions:
    def test_only_what_the_encoder_looks_at(self, tiny_elmo):
        sentences = [Sentence(["a", "b"]), Sentence(["c"])]
        Sentence.set_context_for_sentences(sentences)
        sentences[0].tokens[0].whitespace_after = 0
        for nothing in (None, tiny_elmo, tiny_elmo.recipe, Dependence()):
            plain = from_flair(sentences, encoder_or_dependence=nothing)
            assert [condition_of(e.tokens) for e in plain] == [b"", b""]
        context = list(from_flair(sentences, encoder_or_dependence=Dependence(context=1)))
        assert [json.loads(condition_of(e.tokens)) for e in context] == [{"right": ["c"]}, {"left": ["b"]}]
        spaces = list(from_flair(sentences, encoder_or_dependence=Dependence(whitespace=True)))
        assert [condition_of(e.tokens) for e in spaces] == [b'{"whitespace":[0]}', b""]

    def test_of_an_encoder_by_its_specification(self, tiny_bert):
        sentences = [Sentence(["a"]), Sentence(["b"])]
        Sentence.set_context_for_sentences(sentences)
        spec = f"flair:{tiny_bert}?use_context=3"
        first = next(iter(from_flair(sentences, encoder_or_dependence=spec)))
        assert condition_of(first.tokens) == b'{"right":["b"]}'
        with pytest.raises(UsageError, match="unknown encoder 'x'"):
            from_flair(sentences, encoder_or_dependence="x")

    def test_what_says_nothing_of_dependence(self):
        with pytest.raises(UsageError, match=r"cannot be told from a int: expected an encoder"):
            from_flair([Sentence("x")], encoder_or_dependence=7)

    def test_a_change_of_context_is_a_change(self):
        sentences = [Sentence(["a"]), Sentence(["b"])]
        corpus = from_flair(sentences, encoder_or_dependence=Dependence(context=1))
        list(corpus)
        Sentence.set_context_for_sentences(sentences)
        list(corpus)
        with pytest.raises(CorpusChangedError):
            corpus.check_unchanged()

    def test_sentences_without_context_are_warned_of(self, caplog):
        sentences = [Sentence(["a"]), Sentence(["b"])]
        with caplog.at_level(logging.WARNING, logger="featurestore"):
            list(from_flair(sentences))
            assert not caplog.records
            list(from_flair(sentences, encoder_or_dependence=Dependence(context=1)))
        assert "2 of 2 sentences are linked to none" in caplog.text
        assert "set_context(corpus)" in caplog.text


def test_extracted_then_found_in_training_and_by_our_own_dataset(tmp_path, tiny_elmo):
    write(tmp_path, COLUMNS, "{}.txt")
    corpus = ColumnCorpus(tmp_path, {0: "text", 2: "ner"}, in_memory=False, **files("{}.txt"))
    report = extract(from_flair(corpus), tiny_elmo, tmp_path / "store", progress=False)
    assert (report.n_sentences, report.n_distinct) == (9, 3)
    cached = CachedEmbeddings(tmp_path / "store")
    for split in SPLITS:
        cached.embed(list(getattr(corpus, split)))
    dataset = FeatureDataset(Store.open(tmp_path / "store"), from_flair(corpus, label_type="ner"))
    assert dataset.labels.names == ("B-LOC", "B-PER", "I-PER", "O")
    extract(from_flair([Sentence("Anna Lee runs")]), tiny_elmo, tmp_path / "other", progress=False)
    with pytest.raises(Exception, match=r"train, sentence 2: In Rome Anna"):
        FeatureDataset(Store.open(tmp_path / "other"), from_flair(corpus))
