"""What was read: the first sentence, the commonest labels, a warning for each implausible kind of input."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.memory import corpus_from_sentences
from featurestore.corpora.observed import ObservedCorpus
from featurestore.corpora.reading import Observer, Reading
from featurestore.errors import CorpusError


def read(path: Path, text: str, **options: object) -> Reading:
    path.write_text(text, encoding="utf-8")
    corpus = ObservedCorpus(open_corpus(path, **options))
    for _ in corpus:
        pass
    return corpus.reading


def kinds(reading: Reading) -> list[str]:
    return [warning.kind for warning in reading.warnings]


TAGGED = "Anna/PROPN sings/VERB in/ADP Oslo/PROPN ./PUNCT|Berlin/PROPN sleeps/VERB ./PUNCT|I/PRON go/VERB"


def columns(separator: str = " ", sentences: str = TAGGED, end: str = "\n\n") -> str:
    return "".join(
        "\n".join(word.replace("/", separator) for word in sentence.split(" ")) + end
        for sentence in sentences.split("|")
    )


def test_a_reading_counts_and_shows_what_came_first(tmp_path):
    reading = read(tmp_path / "a.conll", columns(), label=2)
    assert (reading.n_sentences, reading.n_tokens, reading.longest, reading.longest_line) == (3, 10, 5, 1)
    assert reading.first_tokens == ("Anna", "sings", "in", "Oslo", ".")
    assert reading.first_labels == ("PROPN", "VERB", "ADP", "PROPN", "PUNCT")
    assert reading.first_line == 1
    assert (reading.n_labels, reading.n_distinct_labels) == (10, 5)
    assert dict(reading.commonest_labels) == {"PROPN": 3, "VERB": 3, "PUNCT": 2, "ADP": 1, "PRON": 1}
    assert reading.warnings == ()


def test_a_reading_of_nothing_is_empty(tmp_path):
    corpus = corpus_from_sentences([])
    assert Observer(corpus).reading().n_sentences == 0
    assert Observer(corpus).reading().warnings == ()


def test_the_latest_pass_counts_and_an_error_passes_through(tmp_path):
    (tmp_path / "a.conll").write_text("a X\nb Y\n\nc Z\n")
    corpus = ObservedCorpus(open_corpus(tmp_path / "a.conll"))
    for _ in range(2):
        assert len(list(corpus)) == 2
        assert corpus.reading.n_sentences == 2
    corpus.check_unchanged()
    (tmp_path / "b.csv").write_text('text\nfine\n"broken')
    broken, seen = ObservedCorpus(open_corpus(tmp_path / "b.csv")), []
    with pytest.raises(CorpusError):
        seen.extend(broken)
    assert [example.tokens for example in seen] == [("fine",)]


@pytest.mark.parametrize(
    ("name", "text", "kind", "count", "advice"),
    [
        ("words.txt", columns(), "column-lines", 10, "--format conll"),
        ("four.txt", columns(" x y "), "column-lines", 10, "--format conll"),
        ("tabs.txt", columns("\t"), "column-lines", 10, "--format conll"),
        ("words.txt", columns(sentences="a|b c|d e f"), "word-per-line", 6, "--format conll"),
        ("rows.tsv", "text\tlabel\nAnna\tB-PER\nsings\tO\nOslo\tB-LOC\nis\tO\nbig\tO\n", "word-per-line", 5,
         "--format conll"),
        ("rows.csv", "text\nAnna\nsings\nin\nOslo\n.\n", "word-per-line", 5, "--format conll"),
        ("rows.jsonl", '{"text": "Anna"}\n' * 5, "word-per-line", 5, "list"),
        ("spaced.conll", columns(end="\n\n").replace("\n", "\n\n"), "word-per-line", 10, "blank lines"),
        ("one.bio", "a O\nb X\n" * 600, "long-sentence", 1, "lank lines"),
        ("one.conll", "a O\nb X\n" * 101, "long-sentence", 1, "lank lines"),
        ("book.txt", "a b c d " * 300, "long-sentence", 1, "--tokenize"),
        ("book.jsonl", f'{{"text": "{"a b " * 600}"}}', "long-sentence", 1, "sentences"),
        ("esl.conllu", "".join(f"{i}\t_\t_\tX" + "\t_" * 6 + "\n" for i in (1, 2)) + "\n", "withheld-text", 1,
         "publisher"),
        ("gum.tsv", "text\n____ __ _\n", "withheld-text", 1, "publisher"),
        ("fast.txt", "__label__pos good film .\n__label__neg __label__a b .\n", "label-prefix", 2,
         "--format fasttext"),
    ],
)  # fmt: skip
def test_each_implausible_kind_is_warned_of_once(tmp_path, name, text, kind, count, advice):
    # By its name alone most of these would be refused as no text.
    said = {"format": "text"} if name.endswith(".txt") else {}
    warnings = read(tmp_path / name, text, **said).warnings
    assert [(w.kind, w.count, w.path) for w in warnings] == [(kind, count, str(tmp_path / name))]
    assert advice in warnings[0].message
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    packed = ObservedCorpus(open_corpus(tmp_path / f"{name}.gz", **said))
    assert len(list(packed)) > 0
    assert kinds(packed.reading) == [kind]


def test_labels_that_nothing_can_be_learned_from(tmp_path):
    def of(labels: list[str]) -> list[str]:
        rows = "".join(f"a b {i}\t{label}\n" for i, label in enumerate(labels))
        return kinds(read(tmp_path / "a.tsv", "text\tlabel\n" + rows, label="label"))

    assert of(["pos"] * 10) == ["one-label"]
    assert of(["pos"] * 9) == []
    assert of(["pos"] * 10 + ["neg"]) == []
    assert of([f"id{i}" for i in range(8)]) == ["many-labels"]
    assert of([f"{i // 2}" for i in range(20)]) == []
    assert of([f"{i // 2}" for i in range(20)] + ["x"]) == ["many-labels"]

    words = "".join(f"w{i} {i}\n" + "\n" * (i % 10 == 9) for i in range(100))
    assert kinds(read(tmp_path / "a.conll", words, label=2)) == ["many-labels"]
    assert kinds(read(tmp_path / "a.conll", words)) == []
    assert kinds(read(tmp_path / "a.conll", words.replace(" 1", " O"), label=1)) == ["many-labels"]
    only = "".join(f"w{i} O\n" + "\n" * (i % 10 == 9) for i in range(100))
    assert kinds(read(tmp_path / "a.conll", only, label="last")) == ["one-label"]


def test_what_is_plausible_is_not_warned_of(tmp_path):
    lines = ["It rains .", "Yes", "The sea lies after the hill .", "Ok", "We walked home late .", "____"]
    assert kinds(read(tmp_path / "a.txt", "\n".join(lines * 20))) == ["withheld-text"]
    assert kinds(read(tmp_path / "a.txt", "\n".join(lines[:5] * 40 + lines))) == []
    for name, label in (("tagging/dev.conllu", "upos"), ("sentiment/dev.tsv", "label")):
        text = (Path(__file__).parents[2] / "data" / name).read_text()
        assert kinds(read(tmp_path / Path(name).name, text, label=label)) == []


def test_labels_of_examples_made_in_memory(tmp_path):
    observer = Observer(corpus_from_sentences([]))
    observer.see([Example(("a", "b"), ("X", "Y")), Example(("c",), None)])
    observer.see([Example(("a", "b"), ["X", ["nested"]])])
    assert observer.reading().n_sentences == 3
    assert observer.reading().first_labels == ("X", "Y")


@pytest.mark.parametrize(
    ("name", "content", "kind", "count", "says"),
    [
        ("a.txt", "Anna/NNP sings/VBZ ./.\n" * 8, "tagged-words", 24, "end in '/' and one of 3 tags"),
        ("a.txt", "Anna_NNP sings_VBZ ._.\n" * 8, "tagged-words", 24, "as in 'Anna_NNP'"),
        ("a.txt", "<doc id=1>\nAnna sings .\n</doc>\n", "markup", 2, "'<doc id=1>': markup is read as words"),
        ("a.conll", "%% d\nAnna O\nsings O\n\n" * 6, "same-beginning", 6, "begin with '%%'"),
    ],
)
def test_marks_that_are_read_as_words(tmp_path, name, content, kind, count, says):
    path = tmp_path / name
    path.write_text(content)
    corpus = ObservedCorpus(open_corpus(path, label=2 if name == "a.conll" else None))
    list(corpus)
    [warning] = [warning for warning in corpus.reading.warnings if warning.kind == kind]
    assert warning.count == count
    assert says in warning.message


@pytest.mark.parametrize(
    "content",
    [
        "and/or he came .\n" * 9,
        "http://a/b http://a/c 1/2 3/4\n" * 9 + "".join(f"a/{i} b/x{i}\n" for i in range(60)),
        "I am < 3 >\n" * 9,
        "The cat sat .\n" * 9,
    ],
)
def test_signs_of_the_text_are_no_marks(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text(content)
    corpus = ObservedCorpus(open_corpus(path, format="text"))
    list(corpus)
    assert not {w.kind for w in corpus.reading.warnings} & {"tagged-words", "markup", "same-beginning"}
