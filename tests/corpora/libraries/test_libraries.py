"""Corpora as other libraries hold and write them, compared with the CoNLL-U file they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import Example, open_corpus
from featurestore.corpora.contract.example import IGNORED
from featurestore.corpora.given import as_corpora, read_examples
from tests.corpora.libraries.writing import WRITERS, columns_of, data_set, spacy_docs

CONLLU = Path(__file__).parents[3] / "data" / "tagging" / "dev.conllu"


@pytest.fixture(scope="module")
def original() -> list[Example]:
    return list(open_corpus(CONLLU, label="upos"))


def plain(examples) -> list[tuple[tuple[str, ...], object]]:
    return [(e.tokens, e.labels) for e in examples]


@pytest.mark.parametrize("writer", WRITERS)
def test_every_sentence_and_label(original, tmp_path, writer):
    given = WRITERS[writer](columns_of(original, "upos"), tmp_path)
    corpus = open_corpus(given, label="upos")
    assert plain(corpus) == plain(original)
    assert [e.line for e in corpus] == list(range(1, len(original) + 1))
    corpus.check_unchanged()
    [opened] = as_corpora(given)
    assert plain(opened) == plain(read_examples(given)) == [(e.tokens, None) for e in original]


@pytest.mark.parametrize("kind", ["token", "sentence"])
def test_integers_keep_the_names_of_a_class_label(original, tmp_path, kind):
    examples = original
    if kind == "sentence":
        examples = [Example(e.tokens, "long" if len(e.tokens) > 10 else "short") for e in original]
    named = data_set(columns_of(examples, "y"), "y")
    named.to_parquet(tmp_path / "named.parquet")
    named.save_to_disk(tmp_path / "named")
    shuffled = named.select(range(len(named) - 1, -1, -1))
    for given in (named, named.to_iterable_dataset(), tmp_path / "named.parquet", tmp_path / "named"):
        assert plain(open_corpus(given, label="y")) == plain(examples)
    assert plain(open_corpus(shuffled, label="y")) == plain(examples)[::-1]
    assert plain(open_corpus(named.with_format("numpy"), label=3)) == plain(examples)
    # Names that the caller gives go before those of the data.
    feature = named.features["y"] if kind == "sentence" else named.features["y"].feature
    others = [f"{name}!" for name in feature.names]
    found, expected = next(iter(open_corpus(named, label="y", label_names=others))).labels, examples[0].labels
    assert found == (f"{expected}!" if kind == "sentence" else tuple(f"{tag}!" for tag in expected))


def test_documents_of_spacy(original, tmp_path):
    docs = spacy_docs(original)
    from spacy.tokens import DocBin

    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    for given in (DocBin(docs=docs), tmp_path / "dev.spacy"):
        corpus = open_corpus(given, label="tag")
        assert plain(corpus) == plain(original)
        corpus.check_unchanged()
    unlabelled = [(e.tokens, None) for e in original]
    assert unlabelled == plain(as_corpora(docs)[0]) == plain(read_examples(iter(docs)))
    assert [e.tokens for e in as_corpora(docs[0])[0]] == [e.tokens for e in original[:3]]
    assert {e.document for e in corpus} == {str(n + 1) for n in range(len(docs))}


def test_text_is_split_as_that_of_other_tables(tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"text": ["It works.", "  ", "Yes, it does!"], "y": [True, False, True]})
    frame.write_parquet(tmp_path / "a.parquet")
    for given in (frame, frame["text"], tmp_path / "a.parquet"):
        found = [e.tokens for e in open_corpus(given, text_column="text")]
        assert found == [("It", "works."), ("Yes,", "it", "does!")]
    corpus = open_corpus(tmp_path / "a.parquet", tokenize=True, label="y")
    assert plain(corpus) == [(("It", "works", "."), "true"), (("Yes", ",", "it", "does", "!"), "true")]
    assert corpus.n_skipped == 1


def test_a_row_for_each_token(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({
        "Sentence #": ["1", None, "2", "2", "2"],
        "Word": ["Hello", "!", "a", "", "b"],
        "Tag": pandas.Categorical(["X", "Y", "X", None, "Y"]),
    })  # fmt: skip
    columns = {"sentence_column": "Sentence #", "text_column": "Word", "label": "Tag"}
    corpus = open_corpus(frame, **columns, empty_token="skip")
    assert plain(corpus) == [(("Hello", "!"), ("X", "Y")), (("a", "b"), ("X", "Y"))]
    assert [e.line for e in corpus] == [1, 3]
    assert corpus.n_skipped == 1


def test_labels_that_are_missing_and_documents(tmp_path):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"tokens": [["a", "b"], ["c"]], "t": [["X", None], ["Y"]], "d": ["one", "two"]})
    found = list(open_corpus(frame, label="t", missing_label="ignore", document="d"))
    assert [e.document for e in found] == ["one", "two"]
    assert found[0].labels == ("X", IGNORED)
    named = data_set({"tokens": [["a", "b"]], "t": [["X", "Y"]]}, "t").map(lambda row: {"t": [0, -1]})
    [example] = open_corpus(named, label="t", missing_label="ignore")
    assert example.labels == ("X", IGNORED)


@pytest.mark.shared
@pytest.mark.parametrize("writer", WRITERS)
def test_the_english_web_treebank(shared, tmp_path, writer):
    examples = list(open_corpus(shared("corpora/ud-ewt/en_ewt-ud-dev.conllu"), label="xpos"))
    given = WRITERS[writer](columns_of(examples, "xpos"), tmp_path)
    assert plain(open_corpus(given, label="xpos")) == plain(examples)


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_memory_does_not_grow_with_the_rows(tmp_path, kind):
    """One row group, or one batch of all rows: of neither more is held than what is read at a time."""
    pa = pytest.importorskip("pyarrow")
    tokens = pa.array([[f"{row:012}{i:012}" for i in range(8)] for row in range(20_000)])
    table, path = pa.table({"tokens": tokens, "other": tokens}), tmp_path / "a.arrow"
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(
            table, path := tmp_path / "a.parquet", use_dictionary=False, data_page_size=1 << 16
        )
    else:
        new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as out:
            out.write_table(table)
    n_bytes, corpus = tokens.nbytes, open_corpus(path)
    before = most = pa.total_allocated_bytes()
    for number, _ in enumerate(corpus):
        if number % 500 == 0:
            most = max(most, pa.total_allocated_bytes())
    assert number == 19_999
    assert most - before < n_bytes / 5
