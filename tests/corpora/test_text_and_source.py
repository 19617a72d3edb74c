"""Plain text, and what all formats share: decoding, lines, gzip, standard input, pipes."""

import gzip
import io
import os
import subprocess
import sys
import threading

import pytest

from featurestore import limits
from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusChangedError, CorpusError, UsageError
from tests.kit.users import open_to_all, ordinary_user


@pytest.fixture
def write(tmp_path):
    def write_(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write_


def tokens(path, **options):
    return [example.tokens for example in open_corpus(path, **options)]


def test_one_sentence_per_line_with_its_place(write):
    path = write("Hello world !\n\n  \t \nBye\tnow  .")
    assert list(open_corpus(path)) == [
        Example(("Hello", "world", "!"), None, str(path), 1),
        Example(("Bye", "now", "."), None, str(path), 4),
    ]


def test_the_path_is_kept_as_given(write, monkeypatch):
    path = write("a\n")
    monkeypatch.chdir(path.parent)
    corpus = open_corpus("corpus.txt")
    assert corpus.path == "corpus.txt"
    assert next(iter(corpus)).place == "corpus.txt, line 1"


@pytest.mark.parametrize("sign", ["\u00a0", "\u2028", "\u2029", "\u0085", "\u3000", "\x1c", "\x1e", "\u200b"])
def test_only_ascii_whitespace_splits_tokens_and_only_newline_splits_lines(write, sign):
    assert tokens(write(f"10{sign}000 {sign} b\nc\n")) == [(f"10{sign}000", sign, "b"), ("c",)]


def test_tokens_are_not_normalised(write):
    assert tokens(write("é e\u0301 ﬁ\n")) == [("é", "e\u0301", "ﬁ")]


def test_crlf_and_byte_order_mark(write):
    assert tokens(write(b"\xef\xbb\xbfa b\r\n\r\nc\r\n")) == [("a", "b"), ("c",)]


def test_lines_that_end_in_carriage_returns_alone_are_refused(write):
    for content in (b"a b\rc\r", b"a b\rc"):
        with pytest.raises(CorpusError, match=r"carriage returns alone, .* `tr '\\r' '\\n'`"):
            tokens(write(content))
    assert tokens(write(b"a b\r")) == [("a", "b")]


def test_a_carriage_return_inside_a_line_is_said_once(write, caplog):
    path = write(b"a\r\nb\rc\n" + b"d\re\n" * 100_000)
    corpus = open_corpus(path)
    assert [example.tokens for example in corpus][:3] == [("a",), ("b", "c"), ("d", "e")]
    list(corpus)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: line 2 is the first with a carriage return inside it")
    caplog.clear()
    assert tokens(write(b"a\r\n\r\nb\r\n")) == [("a",), ("b",)]
    assert not caplog.records


def test_broken_utf8_names_line_and_byte_after_the_lines_before_it(write):
    path = write(b"good\nalso good\nab \xe9 c\nnever\n")
    found = []
    with pytest.raises(
        CorpusError, match=r"line 3: byte 4 of the line \(0xe9\) is not UTF-8.*iconv"
    ) as caught:
        found.extend(example.tokens[0] for example in open_corpus(path))
    assert (caught.value.path, caught.value.line) == (str(path), 3)
    assert found == ["good", "also"]


def test_broken_utf8_far_into_a_file(write):
    path = write(b"word word word\n" * 100_000 + b"\xff\n")
    with pytest.raises(CorpusError, match="line 100001: byte 1 "):
        tokens(path)


def test_character_cut_by_the_end_of_the_file(write):
    with pytest.raises(CorpusError, match="line 2: byte 2 "):
        tokens(write(b"a\nb\xc3"))


def test_characters_across_read_boundaries_are_whole(write):
    line = "ä€😀 " * 7
    path = write(f"{line}\n" * 30_000)
    assert set(tokens(path)) == {tuple(line.split(" ")[:-1])}


@pytest.mark.parametrize(("encoding", "hint"), [("utf-16", "UTF-16"), ("utf-16-le", "NUL")])
def test_utf16_is_recognised(write, encoding, hint):
    with pytest.raises(CorpusError, match=f"line 1: .*{hint}"):
        tokens(write("Hello\nworld\n".encode(encoding)))


def test_nul_byte(write):
    with pytest.raises(CorpusError, match="line 2: byte 3 of the line is NUL"):
        tokens(write(b"a\nbc\0d\n"))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_line_over_the_bound(write, end, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LINE_BYTES", 1000)
    assert tokens(write(b"b\n" + b"a" * 1000 + end))
    path = write(b"b\n" + b"a" * 1001 + end + b"\nmore\n")
    with pytest.raises(CorpusError, match="line 2: the line is longer than 1,000 bytes"):
        tokens(path)


def test_sentence_and_token_over_the_bound_name_their_line(write, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SENTENCE_TOKENS", 5)
    with pytest.raises(CorpusError, match="line 2: the sentence has 6 tokens"):
        tokens(write("a\na b c d e f\n"))
    monkeypatch.setattr(limits, "MAX_TOKEN_BYTES", 10)
    with pytest.raises(CorpusError, match="line 1: a token has 12 bytes"):
        tokens(write("ääääää\n"))


@pytest.mark.parametrize("content", ["", "\n\n \n", "\ufeff"])
def test_no_sentences(write, content):
    path = write(content)
    with pytest.raises(CorpusError, match="no sentences in the file, read as text") as caught:
        tokens(path)
    assert str(path) in str(caught.value)


def test_missing_file_directory_and_bad_name(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere\.txt: no such file"):
        open_corpus(tmp_path / "nowhere.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(
        CorpusError, match=r"folder\.txt: no file in the folder has a name that tells a format"
    ):
        open_corpus(tmp_path / "folder.txt")
    with pytest.raises(CorpusError, match=r"cannot be read: .*embedded null"):
        open_corpus("a\0b.txt")
    with pytest.raises(UsageError, match="str or a Path, not bytes"):
        open_corpus(b"corpus.txt")


def test_the_path_is_looked_at_before_its_name(tmp_path):
    with pytest.raises(CorpusError, match="typo: no such file"):
        open_corpus(tmp_path / "typo")


def test_file_without_permission(write):
    path = write("a\n")
    path.chmod(0)
    open_to_all(path.parent)
    with ordinary_user(), pytest.raises(CorpusError, match="permission denied"):
        open_corpus(path)


@pytest.mark.skipif(
    not os.path.exists("/proc/self/mem"), reason="needs a file whose reading fails: /proc/self/mem"
)
def test_failing_disk():
    with pytest.raises(CorpusError, match=r"/proc/self/mem: cannot be read: "):
        tokens("/proc/self/mem", format="text")


def test_file_removed_before_it_is_read(write):
    path = write("a\n")
    corpus = open_corpus(path)
    path.unlink()
    with pytest.raises(CorpusError, match="no such file"):
        list(corpus)


@pytest.mark.parametrize("name", ["corpus.txt.gz", "corpus.TXT.GZ", "corpus.txt"])
def test_gzip_by_name_or_content(write, name):
    path = write(gzip.compress(b"a b\nc\n"), name)
    corpus = open_corpus(path)
    assert [example.tokens for example in corpus] == [("a", "b"), ("c",)]
    assert corpus.n_bytes == path.stat().st_size == corpus.bytes_read


def test_damaged_gzip(write):
    data = gzip.compress(b"some words here\n" * 5000)
    with pytest.raises(CorpusError, match=r"short\.txt\.gz: the gzip data ends too early"):
        tokens(write(data[: len(data) // 2], "short.txt.gz"))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    with pytest.raises(CorpusError, match=r"flipped\.txt\.gz: is not sound gzip"):
        tokens(write(bytes(flipped), "flipped.txt.gz"))
    with pytest.raises(CorpusError, match=r"plain\.txt\.gz: is not sound gzip"):
        tokens(write("plain text\n", "plain.txt.gz"))
    with pytest.raises(CorpusError, match="is not sound gzip"):
        tokens(write(data + b"garbage", "tail.txt.gz"))


def test_standard_input_can_be_read_twice(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a b\nc\n")))
    corpus = open_corpus("-")
    assert corpus.n_bytes is None
    assert list(corpus) == [Example(("a", "b"), None, "-", 1), Example(("c",), None, "-", 2)]
    assert list(corpus) == list(corpus)
    # Two passes at the same time do not disturb each other.
    assert [x == y for x, y in zip(corpus, corpus, strict=True)] == [True, True]
    corpus.check_unchanged()
    assert corpus.n_bytes == corpus.bytes_read == 6


def test_standard_input_in_another_format_and_gzip(monkeypatch):
    data = gzip.compress(b'{"tokens": ["x"], "l": "y"}\n')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert list(open_corpus("-", format="jsonl", label="l")) == [Example(("x",), "y", "-", 1)]


def test_standard_input_of_a_real_process():
    code = (
        "from featurestore.corpora.corpus import open_corpus\n"
        "c = open_corpus('-')\n"
        "print([e.tokens for e in c], [e.tokens for e in c])\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], input=b"a b\n", capture_output=True, timeout=60, check=True
    )
    assert done.stdout.decode() == "[('a', 'b')] [('a', 'b')]\n"
    assert done.stderr == b""


def test_closed_or_empty_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(CorpusError, match="-: no sentences"):
        list(open_corpus("-"))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CorpusError, match="standard input is closed"):
        list(open_corpus("-"))


def test_a_named_pipe_can_be_read_twice(tmp_path):
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a\nb\n",))
    corpus = open_corpus(pipe)
    writer.start()
    assert [example.tokens for example in corpus] == [("a",), ("b",)]
    writer.join()
    assert [example.tokens for example in corpus] == [("a",), ("b",)]


def test_a_changed_file_is_noticed(write):
    path = write("a b\nc\n")
    corpus = open_corpus(path)
    corpus.check_unchanged()
    first = list(corpus)
    assert list(corpus) == first
    corpus.check_unchanged()
    write("a b\nd\n")
    next(iter(corpus))
    corpus.check_unchanged()  # nothing complete was read since
    list(corpus)
    with pytest.raises(CorpusChangedError, match=r"corpus\.txt: the file changed"):
        corpus.check_unchanged()
    write("a b\nc\n")
    list(corpus)
    corpus.check_unchanged()


def test_a_change_in_whitespace_alone_is_noticed(write):
    corpus = open_corpus(write("a b\n"))
    list(corpus)
    write("a  b\n")
    list(corpus)
    with pytest.raises(CorpusChangedError):
        corpus.check_unchanged()


def test_reading_streams(write):
    corpus = open_corpus(write(b"a b c d e f g h\n" * 200_000))
    next(iter(corpus))
    assert 0 < corpus.bytes_read <= 1 << 20 < corpus.n_bytes


def test_plain_text_has_no_labels_or_columns(write):
    path = write("a\n")
    for options in ({"label": "x"}, {"text_column": "1"}):
        with pytest.raises(UsageError, match="plain text has no columns"):
            open_corpus(path, **options)


CONLLU = "\t".join(["1", "cats", "cat", "NOUN", "_", "_", "0", "root", "_", "_"]) + "\n"


@pytest.mark.parametrize(
    ("content", "advice", "line"),
    [
        ("-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\n", "conll", 1),
        (CONLLU, "conllu", 1),
        (f"\n# text = cats\n{CONLLU}", "conllu", 3),
        (CONLLU.replace("1", "1-2") + CONLLU, "conllu", 1),
        (CONLLU.replace("1", "0.1"), "conllu", 1),
    ],
)
def test_a_column_file_is_not_taken_for_text_unless_that_is_said(write, monkeypatch, content, advice, line):
    path = write(content)
    with pytest.raises(CorpusError, match=rf"line {line}: reads as .*--format {advice} .*or the format text"):
        tokens(path)
    assert tokens(path, format="text")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    with pytest.raises(CorpusError, match=f"-, line {line}: reads as "):
        tokens("-")


@pytest.mark.parametrize("content", ["1\t2\t3\n", "a\t" * 9 + "b\n", "1 cat\n-DOCSTART-\n", f"a\n{CONLLU}"])
def test_text_with_tabs_and_numbers_is_text(write, content):
    assert tokens(write(content))


def test_unknown_formats(write):
    with pytest.raises(
        UsageError,
        match=r"corpus\.dat: the file name does not tell .*--format \(in Python format=\): text \(\.txt",
    ):
        open_corpus(write("a\n", "corpus.dat"))
    with pytest.raises(UsageError, match="no corpus format 'xml': expected one of text, conll, conllu, csv"):
        open_corpus(write("a\n"), format="xml")
    assert tokens(write("a\n", "corpus.dat"), format="text") == [("a",)]


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.txt", "text"),
        ("a.tok", "text"),
        ("A.CONLLU", "conllu"),
        ("a.conllup", "conll"),
        ("a.iob2", "conll"),
        ("a.bio.gz", "conll"),
        ("a.csv", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
    ],
)
def test_format_by_file_name(write, name, format_name):
    corpus = open_corpus(write("a\n", name))
    assert corpus.format == format_name
    assert name in repr(corpus)
