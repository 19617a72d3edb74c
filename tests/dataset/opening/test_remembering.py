"""The second opening is recalled and equal in every respect; whatever changes is opened anew."""

from __future__ import annotations

import gzip
import importlib
import json
import logging
import multiprocessing
import os
import shutil
import time
from unittest import mock

import numpy as np
import pytest

from featurestore import Example, FeatureDataset, LabelSet, Store, limits, open_corpus
from featurestore.corpora.contract import identity
from featurestore.corpora.given import read_examples
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.dataset.opening import folder, remembering
from featurestore.dataset.opening.folder import forget
from featurestore.dataset.opening.keeping import KeptSentences, kept
from featurestore.dataset.opening.numbering import LabelNumbering
from featurestore.dataset.opening.placing import Placement
from featurestore.errors import CorpusError, LabelError, MissingSentencesError, UsageError
from featurestore.keys import ConditionedSentence
from tests.corpora.libraries.writing import columns_of, data_set, spacy_docs
from tests.dataset.opening.remembered import (
    CORPUS,
    TAGS,
    add,
    assert_equal,
    counting,
    labelled,
    openings,
    pickled,
    write_corpus,
    write_store,
)


def both(*arguments, **options):
    """Open twice, and once without remembering; assert that the second was recalled."""
    with counting() as lookups:
        first = FeatureDataset(*arguments, **options)
        assert len(lookups) == 1
        second = FeatureDataset(*arguments, **options)
        assert len(lookups) == 1, "the second opening was not recalled"
        third = FeatureDataset(*arguments, **options, remember=False)
        assert len(lookups) == 2
    assert_equal(third, first)
    assert_equal(third, second)
    assert not second.lengths.flags.writeable
    return second


def test_a_path_without_labels(store, tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(" ".join(tokens) + "\n" for tokens in CORPUS))
    assert both(store, path).label_kind is None
    with counting() as lookups:
        FeatureDataset(store.path, str(path))
    assert not lookups


def test_labels_of_tokens_in_documents(store, corpus):
    dataset = both(store, labelled(corpus))
    assert dataset.label_kind == "token"
    assert dataset.document_starts.tolist() == [0, 20]


def test_labels_of_sentences(store, tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"tokens": tokens, "y": f"L{i % 4}"} for i, tokens in enumerate(CORPUS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = both(store, open_corpus(path, text_column="tokens", label="y"))
    assert dataset.label_kind == "sentence"
    assert dataset.label_names == ("L0", "L1", "L2", "L3")


@pytest.mark.parametrize("kind", ["parquet", "saved", "Dataset", "Table", "spacy", "pattern"])
def test_corpora_of_other_libraries(store, tmp_path, kind):
    examples = [Example(tokens, tuple(TAGS[i % 3] for i, _ in enumerate(tokens))) for tokens in CORPUS]
    columns = columns_of(examples, "tag")
    if kind in ("Dataset", "saved"):
        given = data_set(columns, "tag")
        if kind == "saved":
            given.save_to_disk(tmp_path / "saved")
            given = tmp_path / "saved"
    elif kind == "spacy":
        docs = spacy_docs(examples)
        importlib.import_module("spacy.tokens").DocBin(docs=docs).to_disk(given := tmp_path / "a.spacy")
    else:
        given = pytest.importorskip("pyarrow").table(columns)
        if kind != "Table":
            importlib.import_module("pyarrow.parquet").write_table(given, tmp_path / "a.parquet")
            given = tmp_path / ("a.parquet" if kind == "parquet" else "*.parq*")
    dataset = both(store, open_corpus(given, label="tag"))
    assert [dataset.gold(i) for i in range(len(dataset))] == [e.labels for e in examples]
    assert len(dataset.document_starts) == (17 if kind == "spacy" else 0)
    if kind == "Dataset":  # other rows of the same data
        assert_anew(store, open_corpus(given.select(range(40)), label="tag"))


def test_frames_and_streams_are_looked_up_each_time(store):
    frame = pytest.importorskip("polars").DataFrame({"tokens": [list(tokens) for tokens in CORPUS]})
    with counting() as lookups:
        for _ in range(2):
            assert len(FeatureDataset(store, frame)) == len(CORPUS)
    assert len(lookups) == 2
    assert openings() == []


def test_labels_that_are_ignored_and_more_than_a_byte_numbers(store, tmp_path):
    path = tmp_path / "corpus.conllu"
    rows = []
    for number, tokens in enumerate(CORPUS):
        for i, token in enumerate(tokens):
            tag = "_" if i == 1 else f"X{number}.{i}"
            rows.append("\t".join([str(i + 1), token, "_", "X", tag, "_", "0", "root", "_", "_"]) + "\n")
        rows.append("\n")
    path.write_text("".join(rows))
    dataset = both(store, open_corpus(path, label="xpos", missing_label="ignore"))
    assert len(dataset.labels) > 128
    assert -100 in dataset.gather([*range(10)]).labels[:, 1]


def test_known_labels_and_unseen_ones(store, corpus):
    known = LabelSet(["VERB", "NOUN", "UNUSED"])
    dataset = both(store, labelled(corpus), labels=known, unseen_labels="keep")
    assert dataset.labels is known
    assert dataset.label_names == ("VERB", "NOUN", "UNUSED", "ADJ")
    assert dataset.label_counts["UNUSED"] == 0


@pytest.mark.parametrize("on_missing", ["skip", "zeros"])
def test_missing_sentences_are_told_each_time(store, tmp_path, on_missing, caplog):
    path = write_corpus(tmp_path / "more.conll", [("not", "there"), *CORPUS[:9], ("nor", "this", "\u2028")])
    with caplog.at_level(logging.WARNING):
        dataset = both(store, labelled(path), on_missing=on_missing)
    assert (dataset.n_missing, len(dataset)) == (2, 9 if on_missing == "skip" else 11)
    told = [r.getMessage() for r in caplog.records if "are not in" in r.getMessage()]
    assert told == [f"2 sentences are not in {store.path}: {on_missing}"] * 3


def test_several_corpora_and_stores(store, corpus, tmp_path):
    other = write_store(tmp_path / "other", CORPUS[::-1], dim=3, kind="other")
    more = write_corpus(tmp_path / "more.conll", CORPUS[7:17])
    dataset = both([store, other], [labelled(corpus), labelled(more)])
    assert len(dataset) == 60


def test_a_compressed_corpus(store, corpus):
    packed = corpus.with_name("corpus.conll.gz")
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    both(store, labelled(packed))


def test_a_pickled_dataset_is_equal(store, corpus):
    dataset = both(store, labelled(corpus))
    assert_equal(dataset, pickled(dataset))
    zeros = write_corpus(corpus.with_name("zeros.conll"), [*CORPUS[:3], ("not", "there")])
    dataset = both(store, labelled(zeros), on_missing="zeros")
    assert_equal(dataset, pickled(dataset))


def test_sentences_without_a_place_keep_their_conditions():
    sentences = {0: ("plain",), 2: ConditionedSentence(("a", "\ud800"), b"\0\xff"), 5: ("x", "y", "z")}
    nothing = np.empty(0, np.int64)
    labels = LabelNumbering(None, keep_unseen=False).finished()
    _, arrays = kept(Placement((), nothing, labels, 0, (), 0, sentences, nothing))
    again = KeptSentences(arrays["zeros_at"], arrays["zeros_ends"], arrays["zeros_texts"])
    assert (dict(again), len(again)) == (sentences, 3)
    assert [type(tokens) for tokens in again.values()] == [type(tokens) for tokens in sentences.values()]
    assert 1 not in again
    assert 6 not in again


# -- what is not remembered


def test_what_is_not_in_files_is_not_remembered(store, corpus):
    examples = list(labelled(corpus))
    for given in (examples, [list(tokens) for tokens in CORPUS], iter([str(corpus)])):
        FeatureDataset(store, given)
    os.mkfifo(corpus.with_name("pipe.conll"))
    assert openings() == []


@pytest.mark.parametrize("how", ["option", "environment"])
def test_it_can_be_turned_off(store, corpus, how, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("FEATURESTORE_REMEMBER", "0")
    with counting() as lookups:
        for _ in range(2):
            FeatureDataset(store, labelled(corpus), **({"remember": False} if how == "option" else {}))
    assert (len(lookups), openings()) == (2, [])


def test_remember_is_a_bool(store, corpus):
    with pytest.raises(UsageError, match="remember is 'yes', expected True or False"):
        FeatureDataset(store, corpus, remember="yes")


def test_openings_that_fail_are_not_remembered(store, tmp_path):
    strange = write_corpus(tmp_path / "strange.conll", [*CORPUS[:3], ("not", "there")])
    for _ in range(2):
        with pytest.raises(MissingSentencesError):
            FeatureDataset(store, labelled(strange))
        with pytest.raises(LabelError):
            FeatureDataset(store, labelled(strange), labels=["NOUN"], on_missing="skip")
    assert openings() == []


def test_a_corpus_that_changes_while_it_is_read_is_not_remembered(store, corpus, caplog):
    opened = labelled(corpus)
    before = opened.identity()
    opened.identity = lambda: before
    write_corpus(corpus, CORPUS[1:])
    with caplog.at_level(logging.INFO):
        assert len(FeatureDataset(store, opened)) == len(CORPUS) - 1
    assert openings() == []
    assert "a corpus changed while it was read" in caplog.text


# -- what changes


def assert_anew(*arguments, **options):
    with counting() as lookups:
        dataset = FeatureDataset(*arguments, **options)
    assert len(lookups) == 1, "recalled, though something has changed"
    assert_equal(dataset, FeatureDataset(*arguments, **options, remember=False))


def test_every_option_of_the_dataset_and_of_reading_counts(store, corpus):
    FeatureDataset(store, labelled(corpus))
    assert_anew(store, labelled(corpus), on_missing="skip")
    assert_anew(store, labelled(corpus), unseen_labels="keep")
    assert_anew(store, labelled(corpus), labels=["NOUN", "VERB", "ADJ"])
    assert_anew(store, labelled(corpus), labels=["VERB", "NOUN", "ADJ"])
    assert_anew(store, corpus)
    assert_anew(store, labelled(corpus, comments=True))
    assert_anew(store, [labelled(corpus), labelled(corpus)])
    with counting() as lookups:
        FeatureDataset(store, labelled(corpus))
    assert not lookups


def test_every_byte_of_the_corpus_counts(store, corpus):
    FeatureDataset(store, labelled(corpus))
    raw, status = corpus.read_bytes(), corpus.stat()
    at = raw.index(b"VERB")
    corpus.write_bytes(raw[:at] + b"VERV" + raw[at + 4 :])
    os.utime(corpus, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy that keeps times
    assert_anew(store, labelled(corpus))
    corpus.write_bytes(raw)
    with counting() as lookups:
        FeatureDataset(store, labelled(corpus))
    assert not lookups, "the first corpus is remembered still"


def test_another_snapshot_counts_and_an_earlier_one_is_remembered(store, corpus):
    first = Store.open(store.path)
    FeatureDataset(first, labelled(corpus))
    assert_anew(add(store, [("one", "more")]), labelled(corpus))
    with counting() as lookups:
        FeatureDataset(Store.open(store.path, snapshot=first.snapshot), labelled(corpus))
    assert not lookups


def test_another_store_at_the_same_path_counts(store, corpus):
    FeatureDataset(store.path, labelled(corpus))
    shutil.rmtree(store.path)
    write_store(store.path, CORPUS[::-1])
    assert_anew(store.path, labelled(corpus))
    shutil.rmtree(store.path)
    write_store(store.path, CORPUS[::-1], kind="other recipe")
    assert_anew(store.path, labelled(corpus))
    shutil.rmtree(store.path)
    write_store(store.path, CORPUS[:-1])
    with pytest.raises(MissingSentencesError):
        FeatureDataset(store.path, labelled(corpus))


def test_a_copy_of_store_and_corpus_elsewhere_is_recalled(store, corpus, tmp_path):
    FeatureDataset(store, labelled(corpus))
    shutil.copytree(store.path, tmp_path / "scratch" / "store")
    shutil.copy(corpus, tmp_path / "scratch" / corpus.name)
    shutil.rmtree(store.path)
    with counting() as lookups:
        dataset = FeatureDataset(tmp_path / "scratch" / "store", labelled(tmp_path / "scratch" / corpus.name))
    assert not lookups
    assert [dataset.tokens(i) for i in range(len(dataset))] == CORPUS


@pytest.mark.parametrize("what", ["readers", "finding"])
def test_the_code_counts(store, corpus, what, monkeypatch):
    FeatureDataset(store, labelled(corpus))
    if what == "readers":
        monkeypatch.setattr(identity, "readers_identity", lambda: "another version")
    else:
        monkeypatch.setattr(remembering, "_code", lambda: "another version")
    assert_anew(store, labelled(corpus))


def test_it_says_that_it_recalled_and_from_where(store, corpus, caplog):
    with caplog.at_level(logging.INFO):
        FeatureDataset(store, labelled(corpus))
        assert caplog.text == ""
        FeatureDataset(store, labelled(corpus))
    assert f"50 examples opened at once: remembered in {openings()[0]}" in caplog.text


def test_what_is_in_files_and_not_in_files_together_is_not_remembered(store, corpus):
    dataset = FeatureDataset(store, [labelled(corpus), corpus_from_sentences(list(labelled(corpus))[:2])])
    assert (len(dataset), openings()) == (52, [])


def test_a_corpus_that_is_gone_is_an_error_of_ours(store, corpus):
    given = labelled(corpus)
    corpus.unlink()
    with pytest.raises(CorpusError, match="no such file"):
        FeatureDataset(store, given)
    assert openings() == []


def look_up(store, corpus, start, answers, dies: bool) -> None:
    """Open slowly, so that others come meanwhile; or die while they wait."""
    with counting() as lookups, mock.patch.object(remembering, "read_examples") as reading:

        def read(corpora):
            start.wait()
            time.sleep(0.5)
            if dies:
                os._exit(9)
            return read_examples(corpora)

        reading.side_effect = read
        dataset = FeatureDataset(store, labelled(corpus))
        answers.put((len(lookups), dataset.lengths.tolist(), dataset.label_counts))


@pytest.mark.parametrize(
    ("dies", "n_lookups"), [(False, 1), (True, 1), ("too large", 3)], ids=["ends", "dies", "not kept"]
)
def test_processes_wait_for_the_one_that_looks_up(store, corpus, monkeypatch, dies, n_lookups):
    if dies == "too large":
        monkeypatch.setattr(limits, "MAX_OPENINGS_BYTES", 1)
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(1 if dies == "too large" else 2), context.Queue()
    first = context.Process(target=look_up, args=(store.path, corpus, start, answers, dies is True))
    first.start()
    if dies != "too large":
        start.wait()  # it holds the lock, and reads
    go_on = context.Barrier(1)
    others = [
        context.Process(target=look_up, args=(store.path, corpus, go_on, answers, False))
        for _ in range(1 if dies is True else 2)
    ]
    for process in others:
        process.start()
    found = [answers.get(timeout=60) for _ in range(len(others) + (dies is not True))]
    for process in (first, *others):
        process.join(60)
    assert first.exitcode == (9 if dies is True else 0)
    assert sum(n for n, _, _ in found) == n_lookups
    once = FeatureDataset(store, labelled(corpus), remember=False)
    assert [rest for _, *rest in found] == [[once.lengths.tolist(), once.label_counts]] * len(found)
    assert len(openings()) == (dies != "too large")
    locks = folder.openings_folder().with_name("openings.begun")
    assert len(list(locks.iterdir())) == (dies is True)
    forget()
    assert not [*locks.iterdir(), *openings()]
