"""FASTA, as users of protein models have it, and fastText's training files."""

import pytest

from featurestore import FeatureDataset, Store, extract, limits, load_encoder
from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusError, LabelError, UsageError


@pytest.fixture
def write(tmp_path):
    def write_(content, name):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write_


def read(path, **options):
    return [("".join(e.tokens), e.labels, e.line, e.id) for e in open_corpus(path, **options)]


PROTEINS = (
    ">sp|P00001|CYC_A cytochrome OS=Homo sapiens\nMKTAYIAK\nQRQISFVK\n\n>second\nMKV\n>third|x\tand more\nM\n"
)


@pytest.mark.parametrize("name", ["a.fasta", "a.fa", "a.FAA", "a.fas"])
def test_one_token_per_residue_with_the_name_as_id(write, name):
    path = write(PROTEINS, name)
    assert read(path) == read(path, tokenize="characters") == [
        ("MKTAYIAKQRQISFVK", None, 1, "sp|P00001|CYC_A"),
        ("MKV", None, 5, "second"),
        ("M", None, 7, "third|x"),
    ]  # fmt: skip
    first = next(iter(open_corpus(path)))
    assert first.tokens[:3] == ("M", "K", "T")
    assert first.place == f"{path}, line 1 (sp|P00001|CYC_A)"


def test_what_is_changed_is_said_once(write, caplog):
    path = write("; an old comment\n>a\nmkT aY\n>b\nM-K.V*\n>c\nm-*\n", "a.fa")
    corpus = open_corpus(path)
    assert ["".join(e.tokens) for e in corpus] == ["MKTAY", "MKV", "M"]
    list(corpus)
    said = sorted(record.getMessage().partition(": ")[2] for record in caplog.records)
    assert said == [
        "gaps are dropped: labels of residues must do without them; first on line 5",
        "residues in lower case are read in upper case, first on line 3",
        "the * for the stop at the end of sequences is dropped, first of b",
    ]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("MKT\n>a\nMKT\n", 1, "expected '>' and the name of a record, found 'MKT': is this FASTA"),
        (">a\n>b\nMKT\n", 1, "the record a has no sequence"),
        (">b\nMKT\n>a some words\n\n", 3, "the record a has no sequence"),
        (">a\n--\n", 1, "the record a has no sequence"),
        (">a\n*\n", 1, "the record a has no sequence"),
        (">b\nMKT\n>\nMKT\n", 3, "a record without a name"),
        (">b\nMKT\n> a\nM1\n", 4, "'1' is not a residue"),
        (">b\nMKT\nMKß\n", 3, "'ß' is not a residue"),
        (">b\nMKT*\nMKT\n", 1, "a stop .* within the sequence of b, at residue 4"),
    ],
)
def test_records_that_are_none(write, content, line, said):
    with pytest.raises(CorpusError, match=f"line {line}: {said}") as caught:
        read(write(content, "a.fasta"))
    assert caught.value.line == line


def test_a_genome_is_refused_before_it_is_held(write, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SENTENCE_TOKENS", 10)
    with pytest.raises(CorpusError, match="line 1: the record has over 10 residues"):
        read(write(">chr1\n" + "ACGT\n" * 10, "a.fa"))


def test_labels_of_fasta_are_keys_of_the_description(write):
    path = write(">a TARGET=Membrane SET=train\nMK\n>b SET=test TARGET=Nucleus\nMT\n", "a.fasta")
    assert [row[1] for row in read(path, label="TARGET")] == ["Membrane", "Nucleus"]
    with pytest.raises(LabelError, match=r"line 1: no ARGET=VALUE, asked for as label.*'a TARGET=Membrane"):
        read(path, label="ARGET")


def test_what_fasta_has_not(write):
    path = write(PROTEINS, "a.fasta")
    for options in ({"text_column": 1}, {"tokenize": True}, {"header": True}):
        with pytest.raises(UsageError):
            open_corpus(path, **options)


def test_proteins_there_and_back(write, tmp_path):
    path = write(PROTEINS.replace("MKV", "MKTAYIAKQRQISFVK") + "", "a.fasta")
    encoder = load_encoder("elmo:demo")
    extract(path, encoder, tmp_path / "store", progress=False)
    dataset = FeatureDataset(tmp_path / "store", path)
    assert len(dataset) == 3  # of which two sequences are equal
    assert [tuple(item.features.shape) for item in map(dataset.__getitem__, range(3))] == [
        (16, encoder.dim), (16, encoder.dim), (1, encoder.dim)
    ]  # fmt: skip
    store = Store.open(tmp_path / "store")
    assert len(store) == 2
    vectors = {example.id: store.get(example.tokens) for example in open_corpus(path)}
    assert set(vectors) == {"sp|P00001|CYC_A", "second", "third|x"}
    # Residues that differ only at the end of a long sequence have vectors of their own: no token is cut.
    a, b = (encoder.encode([tuple("MKT" * 30 + end)])[0] for end in "AY")
    assert (a[-1] != b[-1]).any()


FASTTEXT = "__label__pos good film .\n\n__label__neg bad film .\n"


@pytest.mark.parametrize("name", ["a.ft.txt", "a.fasttext", "a.FT.TXT"])
def test_fasttext(write, name):
    path = write(FASTTEXT, name)
    assert open_corpus(path).format == "fasttext"
    for label in ("label", "__label__"):
        assert [(e.tokens, e.labels, e.line) for e in open_corpus(path, label=label)] == [
            (("good", "film", "."), "pos", 1),
            (("bad", "film", "."), "neg", 3),
        ]
    assert [e.labels for e in open_corpus(path)] == [None, None]


def test_fasttext_labels_anywhere_and_raw_text(write):
    path = write("It's good. __label__2\n", "a.fasttext")
    [example] = open_corpus(path, label="label", tokenize=True)
    assert (example.tokens, example.labels) == (("It", "'s", "good", "."), "2")


@pytest.mark.parametrize(
    ("line", "found"), [("a b", "none"), ("__label__x __label__y a", "'x', 'y'"), ("__label__ a", "''")]
)
def test_fasttext_labels_that_are_not_one(write, line, found):
    path = write(f"__label__a b\n{line}\n", "a.fasttext")
    with pytest.raises(
        LabelError, match=rf"line 2: expected one label \(__label__NAME\) on the line, found {found}"
    ):
        list(open_corpus(path, label="label"))
    assert len(list(open_corpus(path))) == 2


def test_what_fasttext_has_not(write):
    path = write(FASTTEXT, "a.fasttext")
    for options in ({"text_column": 1}, {"label": "upos"}, {"header": False}):
        with pytest.raises(UsageError):
            open_corpus(path, **options)
