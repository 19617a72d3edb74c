"""Files that are text by their name alone: what their first lines show is refused, real text is read."""

import sys

import pytest

from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusError

UPOS = "The DET\ndog NOUN\nsleeps VERB\n\nIt PRON\nbarks VERB\n. PUNCT\n"
REFUSED = {
    # The trial's words.txt, as 95 files of MasakhaNER.
    "words": ("Anna B-PER\nsings O\nin O\nOslo B-LOC\n. O\n\nBerlin B-LOC\nsleeps O\n. O\n", "conll"),
    "tabs": ("Anna\tB-PER\nsings\tO\n", "conll"),
    "all outside": ("it O\nrains O\n", "conll"),
    "conll2003 without its head": (
        "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n",
        "conll",
    ),
    "iobes": ("Anna S-PER\nsings O\n\nNew B-LOC\nYork E-LOC\n", "conll"),
    "bilou": ("Anna U-PER\nsings O\n\nNew B-LOC\nYork L-LOC\n", "conll"),
    "tags without positions": ("Anna\tPER\nsings\tO\nin\tO\n\nOslo\tLOC\nsleeps\tO\n", "conll"),
    "tag first": ("B-PER\tAnna\nO\tsings\n\nB-LOC\tOslo\n", "conll"),
    "one line without a tag": ("Anna B-PER\n" + "sings O\n" * 15 + "\u200b\n\nOslo B-LOC\n", "conll"),
    "late sentence": ("\n\n# a comment\nAnna B-PER\nsings O\n", "conll"),
    "parts of speech": (UPOS, "conll"),
    "other parts of speech": ("\n\n".join(["Das ART\nHaus NN\nsteht VVFIN\n"] * 10), "conll"),
    "words alone": ("\n\n".join(["We\nsaw\nit\n.\n"] * 4), "conll"),
    "fasttext": ("__label__pos good film .\n__label__neg bad film .\n", "fasttext"),
    "fasttext, a line without": ("__label__a b\nc\n__label__d e\n", "fasttext"),
    "fasta": (">sp|P1|NAME an enzyme\nMKTAYIAKQR\nMKT\n>sp|P2\nMKV*\n", "fasta"),
}
READ = {
    "sentences of equal length": "Hello world !\n\nBye now .\n\nGo home .\n" * 20,
    "capitals": "GO HOME\nSTOP IT\n\nCOME BACK\n",
    "names": "".join(f"Anna SMITH{n}\n\n" for n in range(50)),
    "words of a list": "apple\nbanana\ncherry\n" * 10,
    "a text about O": "This is O\nand more text of it\nvitamin B-12\n",
    "numbers at the end": "a 0\nb 0\nc 0\n",
    "a quotation": "> He wrote this .\n> And that .\nI agree .\n",
    "chinese, with paragraphs": "今天下午市政府宣布新的地铁\n\n线路将于明年春天开通了\n" * 10,
    "one label among lines": "a b c\n__label__ is what fastText writes\nd e\n",
    "one line": "Anna O\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_refused_with_its_format(tmp_path, name):
    content, format_name = REFUSED[name]
    path = tmp_path / "corpus.txt"
    path.write_text(content, encoding="utf-8")
    line = next(
        n for n, line in enumerate(content.split("\n"), 1) if line.strip() and not line.startswith("#")
    )
    with pytest.raises(
        CorpusError, match=rf"line {line}: reads as .*--format {format_name} .*or the format text"
    ) as caught:
        list(open_corpus(path))
    assert caught.value.line == line
    assert list(open_corpus(path, format="text"))
    if name != "one line without a tag":
        assert list(open_corpus(path, format=format_name))


@pytest.mark.parametrize("name", READ)
def test_what_may_be_text_is_read_as_text(tmp_path, name):
    path = tmp_path / "corpus.txt"
    path.write_text(READ[name], encoding="utf-8")
    expected = [tuple(line.split()) for line in READ[name].split("\n") if line.strip()]
    assert [example.tokens for example in open_corpus(path)] == expected


def test_standard_input_is_judged_alike(monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Anna B-PER\nsings O\n")))
    with pytest.raises(CorpusError, match="-, line 1: reads as a column file"):
        list(open_corpus("-"))


@pytest.mark.parametrize("line", ["{}\tAnna sings .\n", "Anna sings .\t{}\n", "{}\ta b\tpos\n"])
def test_a_table_named_text_is_pointed_to_tsv(tmp_path, line):
    path = tmp_path / "a.txt"
    path.write_text("".join(line.format(number) for number in range(4)))
    with pytest.raises(CorpusError, match=r"line 1: reads as a table, with tabs.*--format tsv"):
        list(open_corpus(path))
    assert len(list(open_corpus(path, format="text"))) == 4
    path.write_text("".join(line.format(number) for number in range(4)) + "no tab here\n")
    assert len(list(open_corpus(path))) == 5
