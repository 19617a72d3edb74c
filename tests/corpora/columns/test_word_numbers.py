"""Column files whose rows are numbered, and CoNLL-U of other shapes: which rows are words."""

import pytest

from featurestore.errors import CorpusError, UsageError


def tokens(found):
    return [sentence for sentence, _, _ in found]


# --- word numbers ---


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1 1-2 2 3", "a c d"),
        ("1-2 1 2 2.1 3", "b c e"),
        ("0 1 2 2.1", "a b c"),
        ("0.1 1 2", "b c"),
        ("7 8-9 8 9 10", "a c d e"),
        ("1-1 1-2 1-3", "a b c"),
        ("12-1 12-2 12-2.1 12-3", "a b d"),
        ("1.1 1.2 1.3", "a b c"),
        ("3 5 9", "a b c"),
        ("0.5 1.5 2.5", "a b c"),
        ("x 1 2", "a b c"),
    ],
)
def test_word_numbers(read, rows, words):
    if rows == "1 1-2 2 3":
        rows = "1 2-3 2 3"
    content = "".join(f"{number}\t{word}\tO\n" for number, word in zip(rows.split(), "abcde", strict=False))
    found = read(content, text_column=2, label=3)
    assert tokens(found) == [tuple(words.split())]


@pytest.mark.parametrize("rows", ["1 2-3 2 4", "1 2 2-3 4", "1-2 2 3"])
def test_ranges_that_fit_no_words_are_refused(read, rows):
    content = "".join(f"{number}\tx\tO\n" for number in rows.split())
    with pytest.raises(CorpusError, match="line 1: column 1 numbers the words, but does not count them"):
        read(content, text_column=2)


def test_web_anno(read):
    content = (
        "#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.Ner|value\n\n\n#Text=Anna sings\n"
        "1-1\t0-4\tAnna\tPER\t\n1-2\t5-10\tsings\t_\t\n\n#Text=Oslo\n2-1\t11-15\tOslo\tLOC\t\n"
    )
    with pytest.raises(CorpusError, match=r"line 6: the first column numbers .*--text-column 3 "):
        read(content)
    assert read(content, text_column=3, label=4) == [
        (("Anna", "sings"), ("PER", "_"), 6),
        (("Oslo",), ("LOC",), 10),
    ]


# --- CoNLL-U of other shapes ---


def conllu(*more, names=""):
    head = f"# global.columns = {names}\n" if names else ""
    rows = [["1-2", "zum", *"________"], ["1", "zu", *"_X______"], ["2", "dem", *"_Y______"]]
    return head + "".join("\t".join([*row, *more]) + "\n" for row in rows)


TEN = "ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC"


def test_conllu_of_more_than_ten_columns(read):
    expected = [(("zu", "dem"), ("X", "Y"), 2)]
    for name in ("c.conllu", "c.cupt"):
        content = conllu("*", "B", names=f"{TEN} PARSEME:MWE NER")
        assert read(content, name, label="upos") == [(("zu", "dem"), ("X", "Y"), 3)]
        assert read(content, name, label="ner") == [(("zu", "dem"), ("B", "B"), 3)]
        assert read(content, name, label="PARSEME:MWE") == [(("zu", "dem"), ("*", "*"), 3)]
    assert read(conllu("B"), "c.conllu", label="upos") == expected
    assert read(conllu("B"), "c.conllu", label=11)[0][1] == ("B", "B")
    with pytest.raises(UsageError, match="label '12' is no CoNLL-U column: give 1 to 11"):
        read(conllu("B"), "c.conllu", label=12)


def test_conllu_with_other_columns(read):
    content = "# Global.Columns = ID FORM NER\n1\tzu\tO\n2\tdem\tB\n"
    assert read(content, "c.conllu", label="ner") == [(("zu", "dem"), ("O", "B"), 2)]
    with pytest.raises(CorpusError, match=r"line 2: .*names no column ID or FORM \(ID WORD\).*format conll"):
        read("# global.columns = ID WORD\n1\tzu\n", "c.conllu")
