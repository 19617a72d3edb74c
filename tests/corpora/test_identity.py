"""What decides a file's examples can be known without reading them, and a pass can be recalled."""

from __future__ import annotations

import gzip
import json
import logging
import os

import pytest

from featurestore import open_corpus
from featurestore.corpora.contract import identity as identities
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.corpora.observed import ObservedCorpus
from featurestore.errors import CorpusChangedError

ROWS = "a\tX\nb\tY\n\nc\tX\n\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "corpus.conll"
    path.write_text(ROWS)
    return path


def test_the_bytes_the_name_and_every_option_decide(path, tmp_path):
    variants = [open_corpus(path).identity()]
    options = [
        {"format": "text"}, {"label": "last"}, {"label": 2}, {"text_column": 2}, {"comments": True},
        {"label": 2, "missing_label": "ignore"}, {"format": "text", "tokenize": True},
        {"format": "text", "tokenize": "characters"}, {"format": "tsv", "text_column": 1, "header": True},
        {"format": "tsv", "text_column": 1, "header": False}, {"format": "csv", "text_column": 1},
        {"format": "csv", "text_column": 1, "separator": "tab"},
    ]  # fmt: skip
    variants += [open_corpus(path, **option).identity() for option in options]
    path.write_text(ROWS.replace("b\tY", "b\tX"))
    variants.append(open_corpus(path).identity())
    os.rename(path, tmp_path / "other.conll")
    variants.append(open_corpus(tmp_path / "other.conll").identity())
    texts = [json.dumps(variant, sort_keys=True) for variant in variants]
    assert len(set(texts)) == len(texts)


def test_the_folder_does_not_decide(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / path.name
    copy.write_bytes(path.read_bytes())
    assert open_corpus(copy).identity() == open_corpus(path).identity()


def test_the_readers_code_decides(path, monkeypatch, tmp_path):
    before = open_corpus(path).identity()
    copy = tmp_path / "readers"
    copy.mkdir()
    for source in identities._sources(identities._READERS):
        (copy / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(identities, "_READERS", copy)
    identities.readers_identity.cache_clear()
    same_code = open_corpus(path).identity()
    with (copy / "conll.py").open("a") as source:
        source.write("\n")
    identities.readers_identity.cache_clear()
    other_code = open_corpus(path).identity()
    identities.readers_identity.cache_clear()
    assert len({each["readers"] for each in (same_code, other_code)}) == 2
    assert len(before["readers"]) == 32


@pytest.mark.parametrize("compressed", [False, True])
def test_what_was_read_has_the_identity_of_the_file(path, compressed):
    if compressed:
        path = path.with_suffix(".conll.gz")
        path.write_bytes(gzip.compress(ROWS.encode()) + b"\0" * 1000)
    corpus = open_corpus(path)
    assert corpus.identity_read() is None
    assert len(list(corpus)) == 2
    assert corpus.identity_read() == corpus.identity() == open_corpus(path).identity()


def test_what_changes_while_it_is_read_has_the_identity_of_what_was_read(path):
    corpus = open_corpus(path)
    before = corpus.identity()
    path.write_text(ROWS + "d\tX\n\n")
    assert len(list(corpus)) == 3
    assert corpus.identity_read() != before


def test_standard_input_pipes_and_memory_have_none(path, tmp_path):
    os.mkfifo(tmp_path / "pipe.conll")
    assert open_corpus(tmp_path / "pipe.conll").identity() is None
    assert open_corpus("-").identity() is None
    assert corpus_from_sentences([["a"]]).identity() is None
    assert ObservedCorpus(open_corpus("-")).identity() is None


def public(corpus):
    """What a corpus tells without being read."""
    names = [name for name in dir(corpus) if not name.startswith("_")]
    return {name: value for name in names if not callable(value := getattr(corpus, name))}


@pytest.mark.parametrize("wrap", [lambda corpus: corpus, ObservedCorpus])
def test_a_recalled_pass_leaves_what_a_pass_leaves(path, wrap, caplog):
    path.write_text('{"text": "a b", "label": "X"}\n{"text": ""}\n{"text": "c", "label": "Y"}\n')
    corpus, other = (wrap(open_corpus(path, format="jsonl", label="label")) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        assert len(list(corpus)) == 2
        read = [record.getMessage() for record in caplog.records]
        caplog.clear()
        findings = json.loads(json.dumps(corpus.findings()))
        other.recall(json.loads(json.dumps(corpus.identity_read())), findings)
    assert [record.getMessage() for record in caplog.records] == read != []
    assert public(other) == public(corpus)
    assert other.identity_read() == corpus.identity_read()
    assert other.findings() == corpus.findings()
    path.write_text('{"text": "other", "label": "X"}\n')
    assert len(list(other)) == 1
    with pytest.raises(CorpusChangedError):
        other.check_unchanged()


@pytest.mark.parametrize("findings", [{}, {"corpus": {}, "reading": {}}, {"warned": [], "digest": "z"}])
def test_findings_that_are_none_change_nothing(path, findings):
    for corpus in (open_corpus(path), ObservedCorpus(open_corpus(path))):
        before = public(corpus)
        with pytest.raises((KeyError, TypeError, ValueError)):
            corpus.recall(corpus.identity(), findings)
        assert public(corpus) == before
