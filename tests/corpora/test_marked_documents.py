"""Sentences know their document, where the file tells documents apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import open_corpus
from featurestore.errors import CorpusError, UsageError

UD_ROW = "1\t{}\t_\tX\t_\t_\t0\troot\t_\t_\n"
CONLLU = (
    UD_ROW.format("Before") + "\n# newdoc id = weblog-1\n# sent_id = 1\n" + UD_ROW.format("One") + "\n"
    "# sent_id = 2\n" + UD_ROW.format("Two") + "\n# newdoc\n# newpar\n" + UD_ROW.format("Three") + "\n"
)


def documents(path: Path, **options: object) -> list[tuple[str, str]]:
    return [(e.tokens[0], e.document) for e in open_corpus(path, **options)]  # type: ignore[arg-type]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_conllu_begins_documents_at_newdoc(tmp_path):
    found = documents(written(tmp_path, "a.conllu", CONLLU))
    assert found == [("Before", ""), ("One", "weblog-1"), ("Two", "weblog-1"), ("Three", "2")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-DOCSTART- O\n\nEU B\n\nrejects O\n\n-DOCSTART- O\n\nPeter B\n",
         [("EU", "1"), ("rejects", "1"), ("Peter", "2")]),
        ("-DOCSTART- O\nEU B\n-DOCSTART- O\nPeter B\n", [("EU", "1"), ("Peter", "2")]),
        ("EU B\n\n-DOCSTART- O\n\nPeter B\n", [("EU", ""), ("Peter", "1")]),
        ("#begin document (bc/x); part 000\nEU B\n\nPeter B\n\n#end document\n"
         "#begin document (bc/y); part 000\nHe O\n\n#end document\n",
         [("EU", "(bc/x); part 000"), ("Peter", "(bc/x); part 000"), ("He", "(bc/y); part 000")]),
        ("# newdoc id = d1\nEU\tB\n\n# newdoc id = d2\nPeter\tB\n", [("EU", "d1"), ("Peter", "d2")]),
        ("# hipe2022:document_id = NZZ-1798\nEU\tB\n\n# hipe2022:document_id = NZZ-1808\nPeter\tB\n",
         [("EU", "NZZ-1798"), ("Peter", "NZZ-1808")]),
        ("EU B\n\nPeter B\n", [("EU", ""), ("Peter", "")]),
        ("# newspaper = x\nEU\tB\n\n# text = newdoc\nPeter\tB\n", [("EU", ""), ("Peter", "")]),
    ],
)  # fmt: skip
def test_column_files_begin_documents_at_their_marks(tmp_path, text, expected):
    assert documents(written(tmp_path, "a.conll", text)) == expected


def test_a_mark_that_two_passes_meet_counts_once_each(tmp_path):
    corpus = open_corpus(written(tmp_path, "a.conll", "-DOCSTART- O\n\nEU B\n\n-DOCSTART- O\n\nPeter B\n"))
    assert [e.document for e in corpus] == [e.document for e in corpus] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("a.jsonl", '{"text": "a b", "doc": 7}\n{"text": "c", "doc": "x"}\n', {"document": "doc"}),
        ("a.csv", "text,doc\na b,7\nc,x\n", {"document": "doc"}),
        ("a.tsv", "7\ta b\nx\tc\n", {"document": 1, "text_column": 2, "header": False}),
    ],
)
def test_a_column_names_the_document(tmp_path, name, text, options):
    assert documents(written(tmp_path, name, text), **options) == [("a", "7"), ("c", "x")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"text": "a b", "doc": 7}\n{"text": "c", "doc": null}\n'),
        ("a.jsonl", '{"text": "a b", "doc": 7}\n{"text": "c"}\n'),
        ("a.csv", "text,doc\na b,7\nc,\n"),
    ],
)
def test_a_sentence_without_a_document_is_refused(tmp_path, name, text):
    with pytest.raises(CorpusError, match="asked for as document") as caught:
        documents(written(tmp_path, name, text), document="doc")
    assert caught.value.line == (3 if name.endswith("csv") else 2)


def test_a_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="'doc', asked for as document, is not there"):
        documents(written(tmp_path, "a.csv", "text,x\na b,7\n"), document="doc")


def test_column_files_take_no_document_column(tmp_path):
    with pytest.raises(UsageError, match="document makes no sense for the format conllu"):
        open_corpus(written(tmp_path, "a.conllu", CONLLU), document="misc")
