"""Folders and patterns as corpora: which files they mean, in which order, and what is said of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from featurestore import open_corpus
from featurestore.corpora.given import as_corpora, read_examples
from featurestore.corpora.observed import ObservedCorpus
from featurestore.errors import CorpusChangedError, CorpusError
from tests.kit.users import open_to_all, ordinary_user


def put(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return put(tmp_path / "data", b_conll="b\tX\n\nbb\tY\n", a_conll="a\tX\n", below__c_conll="c\tY\n")


def firsts(corpus) -> list[str]:
    return [example.tokens[0] for example in corpus]


def test_a_folder_is_read_in_the_order_of_its_paths(folder, caplog):
    put(folder, README_md="#", x_bin="1")
    (folder / ".hidden.conll").write_text("h\tX\n")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "h.conll").write_text("h\tX\n")
    (folder / "below" / "up").symlink_to(folder)  # in a circle
    with caplog.at_level(logging.WARNING):
        corpus = open_corpus(folder, label="last")
    assert "not read, as their names tell no format: README.md, x.bin" in caplog.text
    assert [(e.tokens[0], e.labels) for e in corpus] == [
        ("a", ("X",)), ("b", ("X",)), ("bb", ("Y",)), ("c", ("Y",)),
    ]  # fmt: skip
    assert [os.path.basename(e.path) for e in corpus] == ["a.conll", "b.conll", "b.conll", "c.conll"]
    assert (corpus.path, corpus.format) == (str(folder), "conll")
    assert corpus.n_bytes == corpus.bytes_read == sum(f.stat().st_size for f in folder.rglob("[abc].conll"))
    corpus.check_unchanged()
    (folder / "a.conll").write_text("z\tX\n")
    list(corpus)
    with pytest.raises(CorpusChangedError, match=r"a\.conll: the file changed"):
        corpus.check_unchanged()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.conll", "a b bb"), ("**/*.conll", "a b bb c"), ("[bc].conll", "b bb"), ("*/?.conll", "c")],
)
def test_patterns(folder, monkeypatch, pattern, expected):
    monkeypatch.chdir(folder)
    assert firsts(open_corpus(pattern)) == expected.split()
    assert firsts(read_examples([pattern, "a.conll"])) == [*expected.split(), "a"]
    assert firsts(as_corpora([pattern])[0]) == expected.split()


def test_a_file_whose_name_is_a_pattern_is_that_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    put(folder, **{"[ab]_conll": "itself\tX\n"})
    assert firsts(open_corpus("[ab].conll")) == ["itself"]


def test_several_formats_are_said(folder, caplog):
    put(folder, d_txt="d\n")
    with pytest.raises(
        CorpusError, match=r"several formats \(3 conll, 1 text\): say which .*'.*/\*\*/\*\.conll'"
    ):
        open_corpus(folder)
    with caplog.at_level(logging.WARNING):
        assert firsts(open_corpus(str(folder / "*.*"))) == ["a", "b", "bb", "d"]
    assert "3 files, each read as its name says: 2 conll, 1 text" in caplog.text
    assert firsts(open_corpus(folder, format="text")) == ["d"]
    assert firsts(open_corpus(folder, format="conll")) == ["a", "b", "bb", "c"]


def test_files_whose_names_tell_nothing(tmp_path):
    put(tmp_path, one="a\tX\n", two="b\tX\n")
    with pytest.raises(
        CorpusError, match="no file in the folder has a name that tells a format; it holds one, two"
    ):
        open_corpus(tmp_path)
    assert firsts(open_corpus(tmp_path, format="conll")) == ["a", "b"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("nowhere/*.conll", r"nowhere/\*\.conll: no file matches the pattern: check the path"),
        ("data/bel*", r"only folders match the pattern: '\*\*/\*\.conllu' also looks below"),
    ],
)
def test_no_match_is_one_error(folder, monkeypatch, pattern, said):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CorpusError, match=said):
        open_corpus(pattern)
    with pytest.raises(CorpusError, match=said):
        as_corpora([pattern])


def test_a_folder_that_may_not_be_listed(folder):
    (folder / "below").chmod(0)
    open_to_all(folder)
    with ordinary_user(), pytest.raises(CorpusError, match="below: cannot be listed: Permission denied"):
        open_corpus(folder)


def test_an_error_names_the_file(folder):
    put(folder, below__d_conll="")
    with pytest.raises(CorpusError, match=r"d\.conll: no sentences in the file"):
        list(open_corpus(folder))


def test_what_was_read_of_all_is_recalled(folder):
    corpus, other = (ObservedCorpus(open_corpus(folder, label="last")) for _ in range(2))
    list(corpus)
    assert corpus.reading.n_sentences == 4
    assert corpus.identity() == corpus.identity_read() == other.identity()
    other.recall(corpus.identity_read(), corpus.findings())
    assert other.reading == corpus.reading
    assert other.bytes_read == corpus.bytes_read
    put(folder, below__d_conll="d\tX\n")
    assert open_corpus(folder, label="last").identity() != corpus.identity()


def test_saved_data_sets_in_a_folder_and_in_a_pattern(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    for name in ("one", "two"):
        datasets.Dataset.from_dict({"tokens": [[name]]}).save_to_disk(tmp_path / "all" / name)
    monkeypatch.chdir(tmp_path)
    for given in ("all", "all/*", "*/one"):
        assert firsts(open_corpus(given)) == (["one"] if given == "*/one" else ["one", "two"])
