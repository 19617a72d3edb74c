"""CSV, TSV and JSON Lines files."""

import csv
import gzip
import json

import pytest

from featurestore import limits
from featurestore.corpora.contract.example import IGNORED
from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusError, LabelError, UsageError


@pytest.fixture
def read(tmp_path):
    def read_(content, name, **options):
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8"))
        return [(e.tokens, e.labels, e.line) for e in open_corpus(path, **options)]

    return read_


# --- CSV and TSV ---


def test_csv_with_quotes_and_lines_inside_a_field(read):
    content = 'id,label,text\r\n1,pos,"a , ""b"""\r\n\r\n2,neg,"two\r\nlines"\r\n3,pos,c\r\n'
    assert read(content, "c.csv", label="label") == [
        (("a", ",", '"b"'), "pos", 2),
        (("two", "lines"), "neg", 4),
        (("c",), "pos", 6),
    ]
    assert read(content, "c.csv", text_column="id") == [
        (("1",), None, 2),
        (("2",), None, 4),
        (("3",), None, 6),
    ]


def test_tsv_has_no_quoting(read):
    content = 'label\ttext\npos\t" a "" film\nneg\t"\n'
    assert read(content, "c.tsv", label="label") == [(('"', "a", '""', "film"), "pos", 2), (('"',), "neg", 3)]


def test_header_with_byte_order_mark_and_spaces(read):
    assert read("\ufefftext\tmy label\na\tb c\n", "c.tsv", label="my label") == [(("a",), "b c", 2)]


def test_gzip_table(tmp_path):
    path = tmp_path / "c.csv.gz"
    path.write_bytes(gzip.compress(b"text\na b\n"))
    assert [example.tokens for example in open_corpus(path)] == [("a", "b")]


@pytest.mark.parametrize(("name", "separator"), [("c.csv", ","), ("c.tsv", "\t")])
def test_columns_that_are_not_there_list_those_that_are(read, name, separator):
    content = "review|stars|stars\na|1|1\n".replace("|", separator)
    with pytest.raises(
        CorpusError, match=r"line 1: column 'text', asked for as text, is not there: .*'review', 'stars'"
    ):
        read(content, name)
    with pytest.raises(LabelError, match="column 'label', asked for as label, is not there"):
        read(content, name, text_column="review", label="label")
    with pytest.raises(LabelError, match="column 'stars', asked for as label, is there twice"):
        read(content, name, text_column="review", label="stars")


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_columns_may_be_numbers_unless_one_is_named_so(read, name, separator):
    rows = separator.join(["review", "stars", "1"]) + "\n" + separator.join(["good", "5", "one"]) + "\n"
    for text, label, expected in ((2, 3, ("5", "one")), ("2", "stars", ("5", "5")), (1, 2, ("one", "5"))):
        [(tokens, labels, _)] = read(rows, name, text_column=text, label=label)
        assert (" ".join(tokens), labels) == expected
    for beyond in (0, 4):
        with pytest.raises(CorpusError, match=f"column '{beyond}', asked for as text, is not there"):
            read(rows, name, text_column=beyond)


def test_a_column_is_a_name_and_never_empty(read):
    assert read("text,4\na b,pos\n", "c.csv", label=4) == [(("a", "b"), "pos", 2)]
    with pytest.raises(CorpusError, match="column '0', asked for as text, is not there"):
        read("text\na\n", "c.csv", text_column=0)
    for name in ("c.csv", "c.tsv", "c.jsonl"):
        for option, said in (("text_column", "text column"), ("label", "label")):
            with pytest.raises(UsageError, match=f"{said} is empty: give a column name or number"):
                read("text\na\n", name, **{option: ""})
            with pytest.raises(UsageError, match=f"{said} is a bool, True: expected"):
                read("text\na\n", name, **{option: True})


@pytest.mark.parametrize(("name", "separator"), [("c.csv", ","), ("c.tsv", "\t")])
def test_rows_of_another_length(read, name, separator):
    with pytest.raises(
        CorpusError, match=r"line 3: expected 2 fields \(label, text\), found 3: a separator inside"
    ):
        read("label|text\npos|a\nneg|b|c\n".replace("|", separator), name)
    with pytest.raises(CorpusError, match=r"line 2: expected 2 fields .*found 1"):
        read("label|text\npos\n".replace("|", separator), name)


@pytest.mark.parametrize(("name", "separator"), [("c.csv", ","), ("c.tsv", "\t")])
def test_row_without_label(read, name, separator):
    with pytest.raises(
        LabelError, match=r"line 3: column 'label'.* is empty \(the row is label='', text='b'\)"
    ):
        read("label|text\npos|a\n|b\n".replace("|", separator), name, label="label")


def test_rows_without_text_are_skipped_with_a_warning(read, caplog):
    assert len(read("label\ttext\npos\t\nneg\t \npos\tx\n", "c.tsv", label="label")) == 1
    assert "skipped 2 rows without text, first line 2" in caplog.text


def test_header_alone_and_nothing_at_all(read):
    for content in ("text\n", "\n", ""):
        with pytest.raises(CorpusError, match="no sentences in the file, read as csv"):
            read(content, "c.csv")


def test_broken_quotes_name_the_row(read):
    with pytest.raises(CorpusError, match="line 3: not valid CSV"):
        read('text\na\n"b" c\n', "c.csv")
    with pytest.raises(CorpusError, match="line 3: not valid CSV: unexpected end of data: check the quotes"):
        read('text\na\n"b\nc\nd\n', "c.csv")


def test_cells_are_as_long_as_lines_may_be(read, monkeypatch):
    before, word = csv.field_size_limit(), "x" * 200_000
    assert read(f'text\n{word} a\n"{word}\nb"\nc\n', "c.csv") == [
        ((word, "a"), None, 2),
        ((word, "b"), None, 3),
        (("c",), None, 5),
    ]
    monkeypatch.setattr(limits, "MAX_LINE_BYTES", 1000)
    with pytest.raises(CorpusError, match=r"line 2: not valid CSV: field larger than field limit \(1000\)"):
        read('text\n"' + "a word\n" * 1000, "c.csv")
    assert csv.field_size_limit() == before  # which is that of the whole process


def test_text_of_a_table_is_tokenised_on_request_and_stays_one_sentence(read):
    content = "text,label\n\"It's good, isn't it? Yes.\",pos\n"
    assert read(content, "c.csv")[0][0] == ("It's", "good,", "isn't", "it?", "Yes.")
    tokens = ("It", "'s", "good", ",", "is", "n't", "it", "?", "Yes", ".")
    assert read(content, "c.csv", label="label", tokenize=True) == [(tokens, "pos", 2)]


# --- JSON Lines ---


def test_tokens_or_text(read):
    content = '{"tokens": ["a b", "\\ud800", "\\n"], "text": "x"}\n\n{"text": "c  d\\u00a0e"}\r\n'
    assert read(content, "c.jsonl") == [(("a b", "\ud800", "\n"), None, 1), (("c", "d\u00a0e"), None, 3)]
    assert read('{"words": ["a"]}', "c.ndjson", text_column="words") == [(("a",), None, 1)]


@pytest.mark.parametrize(
    ("json_label", "label"),
    [('"pos"', "pos"), ("1", "1"), ("1.5", "1.5"), ("true", "true"), ('["X", 2]', ("X", "2")), ("0", "0")],
)
def test_labels(read, json_label, label):
    assert read(f'{{"tokens": ["a", "b"], "y": {json_label}}}', "c.jsonl", label="y") == [
        (("a", "b"), label, 1)
    ]


@pytest.mark.parametrize(
    ("json_label", "message"),
    [
        ('["X"]', "has 1 labels for 2 tokens"),
        ("[]", "has 0 labels for 2 tokens"),
        ("null", "is empty"),
        ('""', "is empty"),
        ('["X", null]', "a label in field 'y' is None"),
        ('["X", ""]', "a label in field 'y' is ''"),
        ('{"a": 1}', "a label in field 'y' is {'a': 1}"),
        ('[["X"], "Y"]', r"a label in field 'y' is \['X'\]"),
    ],
)
def test_bad_labels(read, json_label, message):
    with pytest.raises(LabelError, match=f"line 2: .*{message}"):
        read(f'\n{{"tokens": ["a", "b"], "y": {json_label}}}', "c.jsonl", label="y")


def test_missing_label_field_lists_the_fields(read):
    with pytest.raises(
        LabelError, match="field 'y', asked for as label, is missing: the object has 'tokens', 'z'"
    ):
        read('{"tokens": ["a"], "z": 1}', "c.jsonl", label="y")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ('{"text": NaN}', "not valid JSON: NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"n": ' + "9" * 5000 + "}", "not valid JSON"),
        ('["a"]', "expected a JSON object with named fields, found a list"),
        ("3", "found a number"),
        ('{"txt": "a"}', "no field 'tokens' or 'text' for the text: the object has 'txt'"),
        ("{}", "the object has no fields"),
        ('{"text": null}', "field 'text' is a null"),
        ('{"text": {}}', "field 'text' is a object"),
        ('{"tokens": ["a", ""]}', "token 1 of field 'tokens' is an empty string"),
        ('{"tokens": ["a", 7]}', "token 1 of field 'tokens' is a number"),
        ('{"tokens": [["a"]]}', "token 0 of field 'tokens' is a list"),
    ],
)
def test_bad_objects(read, line, message):
    with pytest.raises(CorpusError, match=f"line 2: .*{message}"):
        read(f'{{"tokens": ["fine"]}}\n{line}\n', "c.jsonl")


@pytest.mark.parametrize(
    ("name", "content"), [("c.tsv", "text\tn\n \t1\na\t2\n"), ("c.jsonl", '{"text": ""}\n{"text": "a"}\n')]
)
def test_what_is_skipped_is_said_once_however_often_it_is_read(tmp_path, caplog, name, content):
    (tmp_path / name).write_text(content)
    corpus = open_corpus(tmp_path / name)
    assert list(corpus) == list(corpus)
    assert [
        record.getMessage().startswith(f"{tmp_path / name}: skipped 1 ") for record in caplog.records
    ] == [True]
    list(open_corpus(tmp_path / name))
    assert len(caplog.records) == 2


def test_missing_text_field_names_it(read):
    with pytest.raises(CorpusError, match="no field 'words' for the text: the object has 'text'"):
        read('{"text": "a"}', "c.jsonl", text_column="words")


def test_objects_without_text_are_skipped_with_a_warning(read, caplog):
    assert read('{"tokens": []}\n{"text": " "}\n{"text": "a"}\n', "c.jsonl") == [(("a",), None, 3)]
    assert "skipped 2 objects without text, first line 1" in caplog.text


def test_tokenise_takes_the_text(read):
    content = '{"tokens": ["x"], "text": "Don\'t."}'
    assert read(content, "c.jsonl", tokenize=True) == [(("Do", "n't", "."), None, 1)]
    with pytest.raises(UsageError, match=r"c\.jsonl, line 1: field 'tokens' is a list of tokens"):
        read(content, "c.jsonl", tokenize=True, text_column="tokens")


def test_tokens_without_a_label_may_be_ignored(read):
    content = '{"tokens": ["a", "b", "c"], "y": ["X", null, ""]}'
    with pytest.raises(LabelError, match=r"line 1: a label in field 'y' is None: .*--missing-label ignore"):
        read(content, "c.jsonl", label="y")
    [(_, labels, _)] = read(content, "c.jsonl", label="y", missing_label="ignore")
    assert labels == ("X", IGNORED, IGNORED)
    with pytest.raises(LabelError, match="is missing"):
        read('{"tokens": ["a"]}', "c.jsonl", label="y", missing_label="ignore")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[\n{"text": "a"},\n{"text": "b"}\n]\n', r"`jq -c '\.\[\]' FILE > OUT.jsonl` makes that"),
        ('{\n"text": "a"\n}\n', r"`jq -c '\.' FILE > OUT.jsonl` makes that"),
        ('[{"text": "a"}, {"text": "b"}]\n', r"found a list: `jq -c '\.\[\]' FILE > OUT.jsonl` puts each"),
        ('["a", "b"]\n', "found a list$"),
    ],
)
def test_json_that_is_no_lines(read, content, said):
    with pytest.raises(CorpusError, match=f"line 1: .*{said}"):
        read(content, "c.jsonl")


def test_several_labels_of_a_token(read):
    with pytest.raises(LabelError, match="several labels of one token are not read"):
        read('{"tokens": ["a"], "y": [["X", "Y"]]}', "c.jsonl", label="y")


def test_blanks_at_the_edge_of_a_label_are_no_part_of_it(read):
    found = read("text,label\ngood,pos \nbad, pos\n", "a.csv", label="label")
    assert [label for _, label, _ in found] == ["pos", "pos"]
    with pytest.raises(LabelError, match=r"line 2: column 'label', asked for as label, is empty"):
        read("text,label\ngood, \n", "a.csv", label="label")


def test_a_list_written_as_text_is_refused(read):
    with pytest.raises(CorpusError, match=r"line 1: field 'tokens' is a text that looks like a list"):
        read(json.dumps({"tokens": "['a', 'b']"}) + "\n", "a.jsonl")
    assert read('{"text": "[ a ] b"}\n', "a.jsonl")[0][0] == ("[", "a", "]", "b")
