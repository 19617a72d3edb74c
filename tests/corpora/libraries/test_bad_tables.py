"""What is wrong in a table or a file of documents is one error with the file, the row and the column."""

from __future__ import annotations

import zlib

import pytest

from featurestore import open_corpus
from featurestore.corpora.libraries import spacy_docs as spacy_reader
from featurestore.errors import CorpusChangedError, CorpusError, LabelError, UsageError
from tests.corpora.libraries.writing import data_set, spacy_docs

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'featurestore[arrow]'")
parquet = pytest.importorskip("pyarrow.parquet")

STRINGS = pa.list_(pa.string())
GOOD = [["a", "b"], ["c"]]


def refused(given, error: type[CorpusError], said: str, **options) -> CorpusError:
    with pytest.raises(error, match=said) as caught:
        list(open_corpus(given, **options))
    return caught.value


@pytest.mark.parametrize(
    ("columns", "said", "row"),
    [
        ({"words": GOOD}, "no column 'tokens' or 'text' for the text: there are 'words'; name one", None),
        ({"tokens": [["a"], None]}, "column 'tokens' is a null: expected a list of tokens", 2),
        ({"tokens": [["a"], ["b", None]]}, "token 1 of column 'tokens' is a null", 2),
        ({"tokens": [["a"], ["b", ""]]}, "token 1 of column 'tokens' is an empty string.*--empty-token", 2),
        ({"tokens": [[["a"]], [["b"]]]}, "token 0 of column 'tokens' is a list.*sentences of a doc", 1),
        ({"tokens": [[1, 2]]}, "token 0 of column 'tokens' is a whole number.*the numbers of tokens", 1),
        ({"tokens": [[1.5]]}, "token 0 of column 'tokens' is a fraction", 1),
        ({"tokens": [5]}, "column 'tokens' is a whole number: expected a list of tokens or a string", 1),
        ({"tokens": [{"a": 1}]}, "column 'tokens' is a struct", 1),
        ({"tokens": [b"a b"]}, "column 'tokens' is a byte string", 1),
        ({"text": pa.array([b"a \xff"]).view(pa.string())}, "column 'text' holds what is not UTF-8", None),
        ({"text": ["a", "['b', 'c']"]}, "looks like a list of tokens", 2),
        ({"tokens": pa.array([], STRINGS)}, "no sentences in it, read as .*: is it empty", None),
        ({"tokens": [["x" * (1 << 20) + "x"]]}, "a token has 1,048,577 bytes", 1),
    ],
)  # fmt: skip
def test_tokens(tmp_path, columns, said, row):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(columns), path)
    for given, name in ((path, str(path)), (pa.table(columns), "(pyarrow Table)")):
        error = refused(given, CorpusError, said)
        assert (str(error.path), error.line) == (name, row)
        assert str(error).startswith(f"{name}, row {row}: " if row else f"{name}: ")


@pytest.mark.parametrize(
    ("labels", "said", "row"),
    [
        ([[0.5, 1.5], [1.5]], r"is 0\.5: expected a string, a whole number", 1),
        ([0.5, 1.0], r"a label in column 'y' is 0\.5: expected a string, a whole number.*astype", 1),
        ([["X", "Y"], ["X", "Y"]], "column 'y' has 2 labels for 1 tokens", 2),
        ([["X", "Y"], [None]], "is None: expected.*--missing-label ignore", 2),
        (["X", None], "column 'y', asked for as label, is empty", 2),
        ([[["X"], ["Y"]], [["X"]]], "several labels of one token are not read", 1),
    ],
)  # fmt: skip
def test_labels(tmp_path, labels, said, row):
    path = tmp_path / "a.arrow"
    table = pa.table({"tokens": GOOD, "y": labels})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    error = refused(path, LabelError, said, label="y")
    assert (error.line, error.unit) == (row, "row")


def test_columns_that_are_not_there_or_twice(tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    twice = pandas.DataFrame([[["a"], ["b"]]], columns=["tokens", "tokens"])
    refused(
        twice, CorpusError, "column 'tokens', asked for as text, is there twice: there are 'tokens', 'tokens'"
    )
    table = pa.Table.from_arrays([pa.array(GOOD), pa.array(GOOD)], names=["tokens", "tokens"])
    parquet.write_table(table, tmp_path / "twice.parquet")
    refused(tmp_path / "twice.parquet", CorpusError, "'tokens', asked for as text, is there twice")
    frame = polars.DataFrame({"tokens": GOOD, "y": ["A", "B"]})
    refused(
        frame,
        LabelError,
        "column 'ner', asked for as label, is not there: there are 'tokens', 'y'",
        label="ner",
    )
    refused(frame, CorpusError, "column '3', asked for as text, is not there", text_column=3)
    refused(frame, LabelError, "column 'tokens' is asked for as text and as label", label=1)
    refused(frame, CorpusError, "column 'd', asked for as document", document="d")
    refused(frame, CorpusError, "column 's', asked for as sentence", sentence_column="s")
    refused(
        pandas.DataFrame(), CorpusError, "no column 'tokens' or 'text' for the text: there are no columns"
    )
    null_first = polars.DataFrame({"s": [None, 1], "token": ["a", "b"]})
    refused(
        null_first,
        CorpusError,
        "row 1: column 's', which tells the sentences apart, is null",
        sentence_column="s",
    )


def test_options_that_make_no_sense(tmp_path):
    frame = pytest.importorskip("polars").DataFrame({"tokens": GOOD})
    for options in ({"header": True}, {"separator": "tab"}, {"boundaries": 5}, {"quotes": "csv"}):
        refused(frame, UsageError, "makes no sense for the format polars", **options)
    refused(frame, UsageError, "the format parquet is one of files", format="parquet")
    refused(
        frame, UsageError, "is a list of tokens, which is not tokenised again", tokenize=True, text_column=1
    )


def test_names_that_are_not_there_for_a_number():
    named = data_set({"tokens": GOOD, "y": ["A", "B"]}, "y")
    table = named.with_format("arrow")[:]
    number = table.set_column(1, "y", pa.array([0, 7])).replace_schema_metadata(table.schema.metadata)
    error = refused(number, LabelError, "is 7: .* has names for 0 to 1", label="y")
    assert error.line == 2


def test_files_that_are_none_of_the_kind(tmp_path):
    whole = tmp_path / "whole.parquet"
    parquet.write_table(pa.table({"tokens": GOOD * 500}), whole)
    data = whole.read_bytes()
    for name, content, said in (
        ("a.parquet", data[:-20], "cannot be read as Parquet: .* Is it whole"),
        ("a.parquet", data[: len(data) // 2], "cannot be read as Parquet"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.parquet", b"", "is empty: expected Parquet"),
        ("a.arrow", data, "cannot be read as Arrow"),
        ("a.feather", b"FEA1" + data, "Feather of version 1"),
        ("a.parquet.gz", data, "is compressed by gzip: decompress it first"),
    ):
        (tmp_path / name).write_bytes(content)
        assert str(tmp_path / name) in str(refused(tmp_path / name, CorpusError, said))
    damaged = bytearray(data)
    damaged[10:200] = bytes(190)
    (tmp_path / "a.parquet").write_bytes(damaged)
    refused(tmp_path / "a.parquet", CorpusError, "cannot be read as Parquet")
    refused("-", CorpusError, "not from standard input", format="parquet")
    refused(tmp_path / "nowhere.parquet", CorpusError, "no such file")


def test_offsets_that_lead_outside_are_refused(tmp_path):
    path = tmp_path / "a.arrow"
    table = pa.table({"tokens": pa.array(GOOD * 50, STRINGS)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    data = path.read_bytes()
    offsets = table["tokens"].chunk(0).offsets.buffers()[1].to_pybytes()[:404]
    at = data.index(offsets)
    path.write_bytes(data[: at + 400] + (1 << 30).to_bytes(4, "little") + data[at + 404 :])
    refused(path, CorpusError, "cannot be read as Arrow: .*offset")


def test_a_file_that_changes_between_two_passes(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"tokens": GOOD}), path)
    corpus = open_corpus(path)
    list(corpus)
    parquet.write_table(pa.table({"tokens": GOOD[::-1]}), path)
    list(corpus)
    with pytest.raises(CorpusChangedError, match="changed between two passes"):
        corpus.check_unchanged()


def test_splits_and_folders_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = datasets.DatasetDict({"train": data_set({"tokens": GOOD}), "dev": data_set({"tokens": GOOD})})
    refused(
        parts,
        UsageError,
        r"holds the splits 'train', 'dev': give the one that is meant, as in given\['train'\]",
    )
    parts.save_to_disk(tmp_path / "parts")
    refused(tmp_path / "parts", CorpusError, "holds the splits train, dev of a DatasetDict: .*parts/train")
    assert len(list(open_corpus(tmp_path / "parts" / "dev"))) == 2
    (tmp_path / "file").write_text("a")
    refused(tmp_path / "file", CorpusError, "there is no such folder", format="datasets")
    refused(tmp_path / "none", CorpusError, "no such file", format="datasets")
    for state, said in (
        ('{"_data_files": [{"filename": "../train/state.json"}]}', "files outside the folder"),
        ('{"_data_files": 3}', "does not list the files"),
        ("[]", "is no JSON object"),
        ("{", "cannot be read"),
    ):
        (tmp_path / "parts" / "dev" / "state.json").write_text(state)
        refused(tmp_path / "parts" / "dev", CorpusError, said)


# --- spaCy ---


def doc(words, **parts):
    pytest.importorskip("spacy")
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

    return Doc(Vocab(), words=words, **parts)


def test_sentences_of_documents():
    given = doc(["a", ".", "b", "."])
    error = refused(given, CorpusError, "no sentence boundaries are set: let a parser, .*or none where each")
    assert (error.line, error.unit) == (1, "document")
    assert [e.tokens for e in open_corpus(given, boundaries="none")] == [("a", ".", "b", ".")]
    assert [e.tokens for e in open_corpus(given, boundaries="punctuation")] == [("a", "."), ("b", ".")]
    blank = doc(["a", " ", "b"], sent_starts=[True, False, False])
    refused(blank, CorpusError, "token 1 is blank .*--empty-token skip")
    corpus = open_corpus(blank, empty_token="skip")
    assert [e.tokens for e in corpus] == [("a", "b")]
    assert corpus.n_skipped == 1


def test_labels_of_documents():
    given = doc(
        ["Anna", "Lee", "Smith", "left", "Rome", "."],
        sent_starts=[True, False, True, False, False, False],
        ents=["B-PER", "I-PER", "I-PER", "O", "B-LOC", "O"],
    )
    expected = [("B-PER", "I-PER"), ("B-PER", "O", "B-LOC", "O")]  # an entity ends with its sentence
    assert [e.labels for e in open_corpus(given, label="ner")] == expected
    refused(given, LabelError, r"token 0 \('Anna'\) has no tag; --missing-label ignore", label="tag")
    refused(given, UsageError, "no label 'color' in documents of spaCy: expected one of tag", label="color")
    refused(given, LabelError, "0 of its 0 categories are true", label="cats")
    given.cats = {"pos": 0.9, "neg": 0.1}
    [example] = open_corpus(given, label="cats")
    assert (example.labels, len(example.tokens)) == ("pos", 6)
    given.cats = {"pos": 0.9, "neg": 0.8}
    refused(given, LabelError, r"2 of its 2 categories are true \(pos, neg\)", label="cats")


def test_files_of_documents_that_are_not_sound(tmp_path, monkeypatch):
    srsly = pytest.importorskip("srsly")
    from spacy.tokens import DocBin

    data = DocBin(docs=[doc(["a", "b"], sent_starts=[True, False])]).to_bytes()
    fields = srsly.msgpack_loads(zlib.decompress(data))
    unknown = zlib.compress(srsly.msgpack_dumps({**fields, "strings": []}))
    path = tmp_path / "a.spacy"
    for content in (b"", b"text", data[:-9], zlib.compress(b"text"), zlib.compress(b"\x80"), unknown):
        path.write_bytes(content)
        assert str(path) in str(refused(path, CorpusError, "is no sound DocBin"))
    path.write_bytes(data)
    monkeypatch.setattr(spacy_reader.limits, "MAX_DOCUMENTS_BYTES", 10)
    refused(path, CorpusError, "unpacks to more than 10 bytes")
    refused(tmp_path / "none.spacy", CorpusError, "no such file")


def test_documents_that_are_none():
    from featurestore.corpora.given import read_examples

    with pytest.raises(CorpusError, match="document 2: a list among documents of spaCy"):
        list(read_examples([*spacy_docs(list(open_corpus("data/tagging/dev.conllu"))[:1]), ["a"]]))
