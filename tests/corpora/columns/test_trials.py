"""Column files on which reading once went wrong: the right words and labels, or the refusal that helps."""

from pathlib import Path

import pytest

from featurestore.corpora.contract.example import IGNORED
from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusError, LabelError

TRIALS = Path(__file__).parent.parent / "trials"


def read(name, **options):
    """Return words and labels, and see that the words are the same without the labels."""
    path = TRIALS / name
    found = [(e.tokens, e.labels) for e in open_corpus(path, **options)]
    options.pop("label", None)
    assert [tokens for tokens, _ in found] == [e.tokens for e in open_corpus(path, **options)]
    return found


SINGS = [(("Anna", "sings"), ("B-PER", "O")), (("Oslo", "sleeps"), ("B-LOC", "O"))]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "comment-of-four-fields.tsv",
            {"format": "conll", "text_column": 2, "label": 3},
            [
                (("Anna", "fuhr", "nach", "Oslo"), ("B-PER", "O", "O", "B-LOC")),
                (("Berlin", "schweigt"), ("B-LOC", "O")),
            ],
        ),
        ("comment-of-two-fields.conll", {"label": 2}, SINGS),
        ("comment-of-two-fields.conll", {"label": 2, "comments": True}, SINGS),
        (
            "comment-of-two-fields.conll",
            {"label": 2, "comments": False},
            [((sign, *tokens), (doc, *labels)) for (tokens, labels), sign, doc in
             zip(SINGS, "##", ("doc1", "doc2"), strict=True)],
        ),
        (
            "ranges.iob2",
            {"text_column": 2, "label": 3},
            [(("Es", "geht", "zu", "dem", "Rhein"), ("O", "O", "O", "O", "B-LOC"))],
        ),
        ("header-row.conll", {"label": "NER"}, SINGS),
        ("header-row.conll", {"label": "ner", "header": True}, SINGS),
        ("header-row.conll", {"label": 3}, SINGS),
        (
            "header-then-comments.tsv",
            {"format": "conll", "label": "NE-COARSE"},
            [(("Anna", "singt", "."), ("B-pers", "O", "O")), (("Oslo",), ("B-loc",))],
        ),
        (
            "columns-vary.conll",
            {"text_column": 4, "label": 8},
            [(("Anna", "sings"), ("(PERSON)", "*")), (("Yes",), ("*",))],
        ),
        (
            "columns-vary.conll",
            {"text_column": 4, "label": "last"},
            [(("Anna", "sings"), ("(1)", "-")), (("Yes",), ("-",))],
        ),
        ("ids-from-zero.conll", {"text_column": 2, "label": 3}, SINGS),
        (
            "bilou.conll",
            {"label": 2},
            [(("Anna", "Lee", "sings"), ("B-PER", "L-PER", "O")), (("Oslo", "sleeps"), ("U-LOC", "O"))],
        ),
        (
            "zero-for-outside.conll",
            {"label": 2},
            [(("Anna", "sings"), ("B-PER", "0")), (("Oslo", "sleeps"), ("B-LOC", "0"))],
        ),
        (
            "partly-labelled.conllu",
            {"label": "xpos", "missing_label": "ignore"},
            [(("Ach", ",", "gel"), (IGNORED, "$,", "VV"))],
        ),
        (
            "partly-labelled.conllu",
            {"label": "misc.Lang", "missing_label": "ignore"},
            [(("Ach", ",", "gel"), ("de", IGNORED, "tr"))],
        ),
        (
            "docstart-token.jsonl",
            {"label": "tags"},
            [(("-DOCSTART-", "reads", "on"), ("X", "Y", "Y")), (("Anna", "reads"), ("X", "Y"))],
        ),
    ],
)  # fmt: skip
def test_read_right(name, options, expected):
    assert read(name, **options) == expected


@pytest.mark.parametrize(
    ("name", "options", "line", "message"),
    [
        (
            "comment-of-four-fields.tsv",
            {"format": "conll"},
            2,
            r"numbers the words \(1 2 3.*--text-column 2 ",
        ),
        ("ranges.iob2", {}, 2, r"numbers the words \(1 2 3.*--text-column 2 "),
        ("ids-from-zero.conll", {}, 1, r"numbers the words \(0 1 .*--text-column 2 "),
        ("space-and-empty-token.conll", {}, 2, "the token column is empty.*delete the row"),
        ("space-and-empty-token.conll", {"label": 2}, 2, "the token column is empty.*delete the row"),
    ],
)
def test_refused(name, options, line, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read(name, **options)
    assert (caught.value.path, caught.value.line) == (str(TRIALS / name), line)


@pytest.mark.parametrize(
    ("label", "message"),
    [("xpos", "line 1: the word has no XPOS"), ("misc.Lang", "line 2: the word ',' has no 'Lang' in MISC")],
)
def test_a_missing_label_names_the_option(label, message):
    with pytest.raises(LabelError, match=rf"{message}.*--missing-label ignore"):
        read("partly-labelled.conllu", label=label)


def test_a_label_that_no_word_has_is_no_label():
    with pytest.raises(LabelError, match="no word has the key 'Lng' in MISC: check the spelling"):
        read("partly-labelled.conllu", label="misc.Lng", missing_label="ignore")


def test_a_comment_of_as_many_fields_as_words_is_mentioned(caplog):
    corpus = open_corpus(TRIALS / "comment-of-two-fields.conll")
    for _ in range(2):
        list(corpus)
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        "line 1 is the first taken for a comment though it has as many columns as words have: '# doc1'; "
        "--no-comments reads it as a word"
    ]
