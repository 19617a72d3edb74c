"""Compressed corpora: every kind read alike, in bounded memory, and damage said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tracemalloc
from random import Random

import pytest

from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.files.source import Source
from featurestore.errors import CorpusError, UsageError


def zstd(data: bytes) -> bytes:
    module = pytest.importorskip("backports.zstd")
    return module.compress(data)


KINDS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    ".zst": zstd,
}
NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".lzma": "xz", ".zst": "Zstandard"}
every_kind = pytest.mark.parametrize("kind", KINDS)
TEXT = b"".join(b"%d some words of line %d\n" % (Random(n).randrange(10**9), n) for n in range(20_000))


def tokens(path, **options):
    return [example.tokens for example in open_corpus(path, **options)]


@every_kind
def test_read_by_name_and_by_content_as_often_as_asked(tmp_path, kind):
    data = KINDS[kind](TEXT)
    (tmp_path / "plain.txt").write_bytes(TEXT)
    expected = tokens(tmp_path / "plain.txt")
    for name in (f"a.txt{kind}", f"A.TXT{kind.upper()}", "a.txt"):
        if name == "a.txt" and kind == ".lzma":
            continue  # it has no first bytes of its own
        path = tmp_path / name
        path.write_bytes(data)
        corpus = open_corpus(path)
        assert [example.tokens for example in corpus] == expected
        assert corpus.n_bytes == len(data) == corpus.bytes_read
        assert [example.tokens for example in corpus] == expected
        corpus.check_unchanged()


@every_kind
def test_the_name_before_it_tells_the_format(tmp_path, kind):
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(KINDS[kind](b'{"tokens": ["a b"]}'))
    assert (open_corpus(path).format, tokens(path)) == ("jsonl", [("a b",)])


@every_kind
def test_standard_input(monkeypatch, kind):
    if kind != ".lzma":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KINDS[kind](b"a b\n"))))
        assert tokens("-") == [("a", "b")]


@every_kind
def test_several_streams_in_one_file(tmp_path, kind):
    if kind == ".lzma":
        return  # has one
    path = tmp_path / f"a.txt{kind}"
    path.write_bytes(KINDS[kind](b"a b\nc") + KINDS[kind](b"d\ne\n") + KINDS[kind](b""))
    assert tokens(path) == [("a", "b"), ("cd",), ("e",)]


def test_padding_behind_xz(tmp_path):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"a\n") + b"\0" * 300_000 + lzma.compress(b"b\n") + b"\0" * 4)
    assert tokens(path) == [("a",), ("b",)]


@every_kind
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_truncated_file(tmp_path, kind, share):
    data = KINDS[kind](TEXT)
    path = tmp_path / f"short.txt{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorpusError, match=rf"short\.txt\{kind}: the {NAMES[kind]} data ends too early"):
        tokens(path)


@every_kind
def test_a_second_stream_that_is_truncated(tmp_path, kind):
    if kind == ".lzma":
        return
    path = tmp_path / f"a.txt{kind}"
    path.write_bytes(KINDS[kind](b"a\n") + KINDS[kind](TEXT)[:-1000])
    with pytest.raises(CorpusError, match="ends too early"):
        tokens(path)


@every_kind
def test_damaged_or_not_what_the_name_says(tmp_path, kind):
    data = bytearray(KINDS[kind](TEXT))
    for at in range(len(data) // 2, len(data) // 2 + 64):
        data[at] ^= 0xFF
    path = tmp_path / f"a.txt{kind}"
    path.write_bytes(bytes(data))
    # bzip2 compares a block's checksum at its end: what it held may be refused before, as no text.
    with pytest.raises(
        CorpusError, match=rf"a\.txt\{kind}(: is not sound {NAMES[kind]}|, line .*(NUL|UTF-8))"
    ):
        tokens(path)
    for content in (b"plain text\n" * 10, KINDS[kind](b"a\n") + b"garbage, and more of it"):
        path.write_bytes(content)
        with pytest.raises(
            CorpusError, match=rf"a\.txt\{kind}: is not sound {NAMES[kind]} \(.*drop \{kind} from"
        ):
            tokens(path)


@every_kind
def test_memory_is_bounded_by_the_piece(tmp_path, kind):
    path = tmp_path / f"a.txt{kind}"
    path.write_bytes(KINDS[kind](b"a b c d\n" * (2 << 20)))  # 16 MiB, a few kB compressed
    from hashlib import blake2b

    tracemalloc.start()
    try:
        n_bytes = sum(map(len, Source(str(path)).chunks(blake2b())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_bytes == 16 << 20
    assert peak < 12 << 20  # of which xz takes 8


def test_zstandard_is_an_extra(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    code = (
        "import sys; sys.modules['backports'] = None\n"
        "from featurestore import open_corpus\n"
        "from featurestore.errors import UsageError\n"
        f"try: list(open_corpus({str(tmp_path / 'a.txt.zst')!r}))\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "pip install 'featurestore[zstd]'" in done.stdout


# --- What is not read ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.zip", "zip archive.*unzip"),
        ("a.tar", "tar archive, which is not read.*tar -xf"),
        ("a.tgz", "tar archive"),
        ("a.xlsx", "spreadsheet.*CSV"),
        ("a.docx", "document.*as .txt"),
        ("a.PDF", "document"),
        ("a.pkl", "pickle.*can run code"),
        ("a.json", r"JSON, which is not read: .*--format jsonl.*jq -c '\.\[\]'"),
        ("a.xml", "markup"),
        ("a.npz", "NumPy"),
    ],
)
def test_a_file_name_of_something_else(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match=rf"{name}: is (a |an )?{said}"):
        open_corpus(tmp_path / name)
    assert tokens(tmp_path / name, format="text") == [("anything",)] or name == "a.tgz"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\0", "zip archive"),
        (b"%PDF-1.7\n", "document"),
        (b"PAR1\x15\x04", "Parquet.* give --format parquet"),
        (b"ARROW1\0\0", "Arrow.* give --format arrow"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\xd0\xcf\x11\xe0\xa1", "office file"),
        (b"a.txt" + bytes(252) + b"ustar  \0", "tar archive"),
        (b"{\\rtf1\\ansi", "document"),
    ],
)
def test_content_of_something_else_compressed_or_not(tmp_path, content, said):
    for name, data in (
        ("a.csv", content),
        ("a.txt.gz", gzip.compress(content)),
        ("a.jsonl.xz", lzma.compress(content)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorpusError, match=f"{name}: is an? {said}|{name}: is {said}"):
            tokens(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["PAR1 is a gene", "%PDF- files", "BZh91 is a code", "ARROW1", "a " * 128 + " ustar"]
)
def test_text_that_begins_like_something_else(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert tokens(tmp_path / "a.txt") == [tuple(text.split())]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.org/*.txt", "a URL is not read: download it first"),
        ("~/*.txt", "~ is not expanded"),
        ("https://example.org/a.txt", "a URL is not read: download it first"),
        ("s3://bucket/a.txt", "a URL is not read"),
        ("~/nowhere/a.txt", "~ is not expanded"),
        ("nowhere/a.txt", "check the path"),
    ],
)
def test_a_path_that_is_none(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=f"no such file: {said}"):
        open_corpus(path)
