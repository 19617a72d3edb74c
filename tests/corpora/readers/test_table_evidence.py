"""What the rows of a table tell: header, separator, quotes, lists in a cell, and files that are no tables."""

from __future__ import annotations

import csv
import io
import json
from random import Random

import pytest

from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusError, LabelError, UsageError


@pytest.fixture
def read(tmp_path):
    def read_(content, name, **options):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8", newline="")
        return [(" ".join(e.tokens), e.labels, e.line) for e in open_corpus(path, **options)]

    return read_


# --- Header ---

# The trial's no-header.tsv, as CoLA is published.
COLA = "x1\t1\t\tOur friends came .\nx2\t0\t*\tThem came .\nx3\t1\t\tShe slept .\n"


def test_without_a_header_no_row_is_lost(read):
    expected = [("Our friends came .", "1", 1), ("Them came .", "0", 2), ("She slept .", "1", 3)]
    assert read(COLA, "a.tsv", text_column=4, label=2) == expected
    assert read(COLA, "a.tsv", text_column="4", label=2, header=False) == expected
    assert read(COLA, "a.tsv", text_column=4, label=2, header=True) == [
        (text, label, line) for text, label, line in expected[1:]
    ]
    assert read(COLA.replace("\t", ","), "a.csv", text_column=4, label=2) == expected


@pytest.mark.parametrize(
    ("content", "options", "first"),
    [
        # A first cell that is the number of a column is no name of it.
        ("1\tgood film\n2\tbad film\n3\tfine\n", {"text_column": 2, "label": 1}, ("good film", "1", 1)),
        ("2\tgood film\n1\tbad film\n", {"text_column": 2, "label": 1}, ("good film", "2", 1)),
        ("pos\tgood\nneg\tbad\npos\tfine\n", {"text_column": 2, "label": 1}, ("good", "pos", 1)),
        ("en\tgood film\nen\tbad film\n", {"text_column": 2}, ("good film", None, 1)),
        ("a\tIt was one of the best films .\nb\tbad\n", {"text_column": 2, "label": 1},
         ("It was one of the best films .", "a", 1)),
        ("0.5\ta b\n.7\tc d\n", {"text_column": 2, "label": 1}, ("a b", "0.5", 1)),
    ],
)  # fmt: skip
def test_a_first_row_of_data(read, content, options, first):
    assert read(content, "a.tsv", **options)[0] == first


@pytest.mark.parametrize(
    ("content", "options", "first"),
    [
        ("review\tstars\ngood film\t5\nbad film\t1\n", {"text_column": 1, "label": 2}, ("good film", "5", 2)),
        ("Satz\tNote\ngut\t1\n", {"text_column": 1, "label": 2}, ("gut", "1", 2)),
        ("Satz\tLabel\ngut\tpos\n", {"text_column": 1, "label": 2}, ("gut", "pos", 2)),
        ("0\t1\ngood film\tpos\n", {"text_column": 0, "label": 1}, ("good film", "pos", 2)),
        ("\t0\t1\n0\tgood film\tpos\n", {"text_column": 2, "label": 3}, ("good film", "pos", 2)),
        ("Satz\tArt\n" + "gut\tpos\nschlecht\tneg\n" * 30, {"text_column": 1, "label": 2}, ("gut", "pos", 2)),
        ("Satz\tArt\ngut\tpos\nSatz\tArt\nja\t1\n", {"text_column": 1, "label": "Art"}, ("gut", "pos", 2)),
        ("text\tx\na b\t1\n", {"label": 2}, ("a b", "1", 2)),
    ],
)  # fmt: skip
def test_a_first_row_of_names(read, content, options, first):
    assert read(content, "a.tsv", **options)[0] == first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Satz\tArt\ngut\tpos\nschlecht\tneg\n", r"\('Satz', 'Art'\) names the columns or is data: give"),
        ("good\tpos\nfine\tneg\n", r"names the columns or is data: give"),
        ("id\tpos\na\tpos\n", "'id' is a usual name of a column, but 'pos' occurs again in column 2"),
    ],
)
def test_a_first_row_that_may_be_either_is_refused(read, content, said):
    with pytest.raises(
        CorpusError, match=rf"line 1: cannot tell whether the first row .*{said}.*--no-header"
    ):
        read(content, "a.tsv", text_column=1, label=2)
    lines = content.count("\n")
    assert len(read(content, "a.tsv", text_column=1, label=2, header=False)) == lines
    assert len(read(content, "a.tsv", text_column=1, label=2, header=True)) == lines - 1


def test_one_column_is_not_text_and_label(read):
    with pytest.raises(LabelError, match="columns 1 and 2 are one: a number that names"):
        read("0\t1\ngood film\tpos\n", "a.tsv", text_column=1, label=2)


def test_without_a_header_columns_have_numbers(read):
    for column in ("text", 0, 5):
        with pytest.raises(CorpusError, match=f"no column '{column}', asked for as text: .* from 1 to 4"):
            read(COLA, "a.tsv", text_column=column, header=False)
    with pytest.raises(LabelError, match="no column 'x', asked for as label"):
        read(COLA, "a.tsv", text_column=4, label="x", header=False)
    with pytest.raises(CorpusError, match="no column 'text', asked for as text"):
        read(COLA, "a.tsv", header=False)
    assert read("a b\nc\n", "a.csv", header=False) == [("a b", None, 1), ("c", None, 2)]
    with pytest.raises(CorpusError, match=r"'text', asked for as text, is not there: .*--no-header"):
        read(COLA, "a.tsv")
    with pytest.raises(UsageError, match="header makes no sense for the format text"):
        read("a\n", "a.txt", header=True)


# --- Separator ---


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("options", [{"label": "label"}, {"text_column": 1, "label": 2}])
def test_the_separator_is_what_the_rows_show(read, sign, name, options):
    content = "text;label\ngood film;5\nbad film;1\n".replace(";", sign)
    expected = [("good film", "5", 2), ("bad film", "1", 3)]
    if name == "a.tsv" and sign != "\t" and "text_column" in options:
        with pytest.raises(
            CorpusError, match=r"line 1: cannot tell what separates .*--separator .*--separator tab"
        ):
            read(content, name, **options)
    else:
        assert read(content, name, **options) == expected
    named = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}[sign]
    for separator in (sign, named):
        assert read(content, name, separator=separator, **options) == expected


def test_separators_within_texts(read):
    # Every row holds as many of both.
    content = "text;label\nHello, you;pos\nBye, you;neg\n"
    assert read(content, "a.csv", label="label") == [("Hello, you", "pos", 2), ("Bye, you", "neg", 3)]
    both = "Hello, you;pos\nBye, you;neg\nOh, you;pos\n"
    with pytest.raises(
        CorpusError, match=r"line 1: cannot tell .*semicolon \(';'\): give --separator semicolon or"
    ):
        read(both, "a.csv", text_column=1, label=2)
    assert read(both, "a.csv", text_column=1, label=2, separator=";")[0] == ("Hello, you", "pos", 1)
    # Commas that come and go are no separators.
    assert read("text;n\na, b;1\nc;2\n", "a.csv", text_column=1, label=2)[0] == ("a, b", "1", 2)
    assert read("text\na; b\nc\n", "a.csv") == [("a; b", None, 2), ("c", None, 3)]
    assert read('text;label\n"a; b";x\nc;y\n', "a.csv", label="label")[0] == ("a; b", "x", 2)
    assert read("text\tn\na , b\t1\nc , d\t2\n", "a.tsv", text_column=1, label=2)[0] == ("a , b", "1", 2)


def test_a_line_that_names_the_separator(read):
    assert read("sep=;\ntext;label\na b;x\n", "a.csv", label="label") == [("a b", "x", 3)]
    assert read('"sep=;"\r\na b;x\r\nc d;x\r\n', "a.csv", text_column=1, label=2)[0] == ("a b", "x", 2)


def test_names_that_are_not_there_with_another_separator(read):
    with pytest.raises(CorpusError, match="the header row names 'satz', 'label'"):
        read("satz;label\na;b\nc;d\n", "a.csv")


def test_a_separator_that_is_none(read):
    with pytest.raises(UsageError, match="separator makes no sense for the format jsonl, only for csv, tsv"):
        read("text\na\n", "a.jsonl", separator=",")
    with pytest.raises(UsageError, match="separator is 'x': expected comma, semicolon, tab, pipe"):
        read("text\na\n", "a.csv", separator="x")


# --- Quotes ---

QUOTES = [
    ("label", "text"),
    ("pos", 'He said "no"'),
    ("neg", "a tab\tin it"),
    ("pos", "two\nlines"),
    ("neg", '"'),
    ("pos", "plain , text"),
    ("neg", '" all "'),
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("rows", [QUOTES, QUOTES[:2], [*QUOTES[:1], *QUOTES[5:6] * 3000, *QUOTES[1:]]])
def test_what_csv_writers_write_comes_back(read, quoting, end, rows):
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t", quoting=quoting, lineterminator=end).writerows(rows)
    found = read(stream.getvalue(), "a.tsv", label="label")
    assert [(text, label) for text, label, _ in found] == [
        (" ".join(text.split()), label) for label, text in rows[1:]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [' a "" film', '"', "fine"],
        ['"', "``", "''", '"'],
        ['He said "no" .', "fine"],
        ['" I am', 'home "'],
        ['"Go home"', "fine", "He left"],
        ['"Go', "fine"],
        ["fine", '"Go home" he said'],
        ['""', "fine"],
        ['" Go , " he said', '" Stay "'],
    ],
)
def test_quote_marks_that_are_text_stay(read, rows):
    content = "label\ttext\n" + "".join(f"pos\t{text}\n" for text in rows)
    assert [text for text, _, _ in read(content, "a.tsv", label="label")] == [
        " ".join(t.split()) for t in rows
    ]


def test_excel_quotes_commas(read):
    content = 'text\tn\n"a, b"\t1\nc\t2\n"d, e"\t3\n"f, g"\t4\n'
    assert [text for text, _, _ in read(content, "a.tsv")] == ["a, b", "c", "d, e", "f, g"]


def test_pairs_of_lone_quote_marks_are_words(read):
    # Read as csv quotes, this would be even too: one field that spans three lines.
    content = '"\tO\n.\tO\n"\tO\n'
    found = read(content, "a.tsv", text_column=1, label=2, format="tsv", header=False)
    assert found == [('"', "O", 1), (".", "O", 2), ('"', "O", 3)]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('text\n"a ""b"""\nsay "no" now\n', 3),
        ('text\tn\nsay "no" now\t1\n"a ""b"""\t2\n', 2),
        ('"text"\t"n"\n"a \\"b\\" c"\t1\n', 2),
        ('text\tn\n"a ""b"""\t1\n"never closed\t2\nmore\t3\n', 3),
    ],
)
def test_some_quoted_and_some_not_is_refused(read, content, line):
    with pytest.raises(
        CorpusError, match=f"line {line}: some fields are quoted .* on this line is not"
    ) as caught:
        read(content, "a.tsv")
    assert caught.value.line == line


def test_quotes_far_into_a_file_are_decided_there(read):
    content = "text\n" + "fine\n" * 5000 + '"He said ""no"""\n' + "fine\n" * 5000
    assert read(content, "a.tsv")[5000:5002] == [('He said "no"', None, 5002), ("fine", None, 5003)]


SPANS = 'label\ttext\npos\t"He came\nand\twent"\nneg\tfine\n'
"""Either two rows, with marks in their texts, or one whose text holds a line end and a tab."""


def test_marks_that_may_enclose_rows_or_a_field(read):
    with pytest.raises(
        CorpusError, match=r"line 2: cannot tell whether the quote marks around 'He came.*--quotes csv"
    ):
        read(SPANS, "a.tsv", label="label")
    one = [("He came and went", "pos", 2), ("fine", "neg", 4)]
    assert read(SPANS, "a.tsv", label="label", quotes="csv") == one
    two = [('"He came', "pos", 2), ('went"', "and", 3), ("fine", "neg", 4)]
    assert read(SPANS, "a.tsv", label="label", quotes="text") == two
    # Written by csv.writer, it is quoted for certain where any field holds a mark.
    assert read(SPANS + 'neg\t"a ""b"""\n', "a.tsv", label="label")[:2] == one
    # A label that other rows have makes it a row.
    rows = SPANS.replace("and\t", "neg\tand ")
    assert read(rows, "a.tsv", label="label")[:2] == [('"He came', "pos", 2), ('and went"', "neg", 3)]


def test_quotes_of_csv_may_be_text(read):
    assert read('text,n\n"Go" he said,1\n', "a.csv", quotes="text") == [('"Go" he said', None, 2)]
    with pytest.raises(UsageError, match="quotes is 'none': expected csv or text"):
        read("text\na\n", "a.csv", quotes="none")
    with pytest.raises(UsageError, match="quotes makes no sense for the format conll, only for csv, tsv"):
        read("a\n", "a.conll", quotes="csv")


# --- Lists in a cell ---


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("B-PER O", ("B-PER", "O")),
        ("B-PER,O", ("B-PER", "O")),
        ("B-PER, O", ("B-PER", "O")),
        ("B-PER|O", ("B-PER", "O")),
        ("B-PER;O", ("B-PER", "O")),
        ('["B-PER", "O"]', ("B-PER", "O")),
        ("['B-PER', 'O']", ("B-PER", "O")),
        ("['B-PER' 'O']", ("B-PER", "O")),
        ("[3, 0]", ("3", "0")),
        ("[3 0]", ("3", "0")),
        ("3 0", ("3", "0")),
        ("PROPN VERB", ("PROPN", "VERB")),
        ("NNP VBZ", ("NNP", "VBZ")),
    ],
)
def test_a_label_for_each_token_in_one_cell(read, cell, labels):
    # The trial's labels-in-a-cell.tsv has the first of them.
    content = f"text\tlabel\nAnna sings\t{cell}\nOslo sleeps\t{cell}\n"
    assert read(content, "a.tsv", label="label") == [("Anna sings", labels, 2), ("Oslo sleeps", labels, 3)]
    stream = io.StringIO()
    csv.writer(stream).writerows([("text", "label"), ("Anna sings", cell), ("Oslo sleeps", cell)])
    assert read(stream.getvalue(), "a.csv", label="label")[0] == ("Anna sings", labels, 2)


@pytest.mark.parametrize(("name", "sign"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_label_for_each_token_in_one_cell_without_a_header(read, name, sign):
    content = f"Anna sings{sign}B-PER O\nOslo is{sign}B-LOC O\nit is{sign}O O\n"
    with pytest.raises(CorpusError, match="--header"):
        read(content, name, text_column=1, label=2)
    assert read(content, name, text_column=1, label=2, header=False)[0] == ("Anna sings", ("B-PER", "O"), 1)


@pytest.mark.parametrize("cell", ["very good", "good", "Very good", "good, bad", "B-PER", "[unsure"])
def test_a_label_of_the_sentence_may_have_several_words(read, cell):
    assert read(f"text\tlabel\nAnna sings\t{cell}\nOslo\t{cell}\n", "a.tsv", label="label")[0][1] == cell


def test_lower_case_tags_need_more_rows(read):
    rows = ["a b\tx y", "a b c\tx y z", "a\tx", "a b c d\tx y x y", "a b\ty x", "b a\ty x"]
    assert read("text\tlabel\n" + "\n".join(rows), "a.tsv", label="label")[1][1] == ("x", "y", "z")
    assert read("text\tlabel\n" + "\n".join(rows[:1]), "a.tsv", label="label")[0][1] == "x y"


def test_too_few_labels_in_a_cell_name_the_line(read):
    content = "text\tlabel\n" + "Anna sings\tB-PER O\n" * 20 + "Anna sings .\tB-PER O\n"
    with pytest.raises(
        LabelError, match="line 22: column 'label' holds 2 labels for 3 tokens: in the first rows"
    ):
        read(content, "a.tsv", label="label")


@pytest.mark.parametrize("make", [json.dumps, repr, lambda items: "[" + " ".join(map(repr, items)) + "]"])
def test_tokens_in_one_cell(tmp_path, make):
    sentences = [["Anna's", 'said "no"', "a b"], ["it", "rains"]]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("tokens", "tags"), *((make(tokens), make(["O"] * len(tokens))) for tokens in sentences)]
        )
    found = [(list(e.tokens), e.labels) for e in open_corpus(path, text_column="tokens", label="tags")]
    assert found == [(tokens, ("O",) * len(tokens)) for tokens in sentences]
    with pytest.raises(UsageError, match="holds lists of tokens, which are not tokenised again"):
        list(open_corpus(path, text_column="tokens", tokenize=True))


def test_texts_in_brackets_are_texts(read):
    assert read("text\n[unclear]\n[ he laughs ]\n", "a.csv")[1] == ("[ he laughs ]", None, 3)
    assert read("text\n['a']\nplain\n", "a.csv")[0] == ("['a']", None, 2)


# --- Integer labels with names ---


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"tokens": ["Anna", "sings"], "y": [1, 0]}', ("B-PER", "O")),
        ("a.jsonl", '{"tokens": ["Anna", "sings"], "y": 2}', "I-PER"),
        ("a.csv", "text,y\nAnna sings,1 0\n", ("B-PER", "O")),
        ("a.csv", "text,y\nAnna sings,2\n", "I-PER"),
    ],
)
def test_integers_have_names(read, name, content, expected):
    assert read(content, name, label="y", label_names=["O", "B-PER", "I-PER"])[0][1] == expected


@pytest.mark.parametrize("label", ["3", "-1", "O", "1.0", "²"])
def test_integers_without_a_name(read, label):
    with pytest.raises(LabelError, match=f"line 2: the label '{label}' is no number from 0 to 1"):
        read(f"text,y\na b,{label}\n", "a.csv", label="y", label_names=["O", "X"])


def test_names_that_name_nothing(read):
    for names, said in (("O,B", "expected a list"), (["O", "O"], "twice"), ([1, 2], "expected a list")):
        with pytest.raises(UsageError, match=said):
            read("text,y\na,0\n", "a.csv", label="y", label_names=names)
    with pytest.raises(UsageError, match="none are read"):
        read("text,y\na,0\n", "a.csv", label_names=["O"])


# --- Column files named .tsv ---


@pytest.mark.parametrize(
    "content",
    [
        "Anna\tB-PER\nsings\tO\n\nOslo\tB-LOC\nsleeps\tO\n",  # the trial's ner.tsv, as 274 public files
        "Anna\tB-PER\nsings\tO\n",
        "1\tAnna\tB-PER\n2\tsings\tO\n\n1\tOslo\tB-LOC\n",
        "# doc 1\nAnna\tNOM\nsings\tVERB\n\nOslo\tNOM\n",
        "Anna\tPROPN\t_\nsings\tVERB\tSpaceAfter=No\n\n.\tPUNCT\t_\n",
        "TOKEN\tNE\tMISC\n# language = de\nAnna\tB-pers\t_\nsingt\tO\t_\n\n# x = y\nOslo\tB-loc\t_\n",
        '"\tO\nAnna\tB-PER\n"\tO\n\n"\tO\n',
    ],
)
@pytest.mark.parametrize("options", [{}, {"label": "label"}, {"text_column": 1, "label": 2}])
def test_a_column_file_named_tsv_is_pointed_to_conll(read, content, options):
    with pytest.raises(
        CorpusError, match=r"line 1: reads as a column file.*--format conll \(in Python format='conll'\)"
    ):
        read(content, "a.tsv", **options)


def test_conllu_named_tsv(read):
    line = "\t".join(["1", "cats", "cat", "NOUN", "_", "_", "0", "root", "_", "_"])
    with pytest.raises(CorpusError, match="--format conllu"):
        read(f"# sent_id = 1\n{line}\n\n", "a.tsv")


def test_a_table_of_single_words_is_one(read):
    assert read("text\tlabel\ngood\tpos\nbad\tneg\n", "a.tsv", label="label") == [
        ("good", "pos", 2),
        ("bad", "neg", 3),
    ]
    assert read("text\tlabel\nAnna\tB-PER\nsings\tO\n", "a.tsv", label="label")[0] == ("Anna", "B-PER", 2)
    content = "text\tlabel\na b\tpos\n\nc d\tneg\n"
    assert read(content, "a.tsv", label="label") == [("a b", "pos", 2), ("c d", "neg", 4)]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_csv_writers_write_comes_back(read, seed):
    random = Random(seed)
    words = ["a", '"', '""', '"x"', '"x', "``", "''", ".", "said", ",", "no\nmore"]
    rows = [
        (random.choice(["pos", "neg"]), " ".join(random.choices(words, k=random.randint(1, 5))))
        for _ in range(random.randint(1, 6))
    ]
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t", lineterminator="\n").writerows([("label", "text"), *rows])
    found = read(stream.getvalue(), "a.tsv", label="label", format="tsv")
    assert [(text, label) for text, label, _ in found] == [
        (" ".join(text.split()), label) for label, text in rows
    ]
