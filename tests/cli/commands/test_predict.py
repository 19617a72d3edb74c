"""``predict --output``: what its name says, with what the input had, and read back as it was written."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from featurestore import open_corpus
from featurestore.models.checkpoint import TrainedModel
from featurestore.models.heads import HeadConfig, build_head
from featurestore.recipe import Recipe
from featurestore.store.store import Store

CONLLU = """# newdoc
# just a comment

# sent_id = a-1
# text = Geht's zum Meer
1-2\tGeht's\t_\t_\t_\t_\t_\t_\t_\tLang=de
1\tGeht\tgehen\tVERB\tVV\tMood=Ind\t0\troot\t_\tNER=O|Lang=de
2\t's\tes\tPRON\t_\t_\t1\tnsubj\t_\tNER=O
2.1\tja\t_\t_\t_\t_\t_\t_\t0:root\t_
3\tMeer\tMeer\tNOUN\t_\t_\t1\tobl\t_\tSpaceAfter=No|NER=B-LOC

# sent_id = a-2
1\t-DOCSTART-\t_\tX\t_\t_\t0\troot\t_\t_
2\t#\t_\tSYM\t_\t_\t1\tdep\t_\t_

"""
SENTENCES = [
    ("Geht", "'s", "Meer"),
    ("-DOCSTART-", "#"),
    ("-DOCSTART-",),
    ("say", '"', "a,b", '"', ";"),
    ("EU ", "rejects"),
]
LABELS = ("B-LOC", "I-LOC", "O")


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store.create(tmp_path / "s.fs", recipe=Recipe({"kind": "test", "version": 1}), dim=8)
    random = np.random.default_rng(0)
    with store.write() as session:
        for tokens in SENTENCES:
            session.add(tokens, random.normal(size=(len(tokens), 8)).astype(np.float32))
    return Store.open(tmp_path / "s.fs")


@pytest.fixture
def predict(run, store, tmp_path):
    """Predict a corpus into a file; return exit code, the file and the messages."""

    def predict(text, source, output, *options, label="misc.NER", names=LABELS, head="linear-tagger"):
        model = TrainedModel(
            build_head(head, HeadConfig(8, len(names), hidden=4)), names, store.recipe, label
        )
        model.save(tmp_path / "m.h5")
        (tmp_path / source).write_text(text)
        target = tmp_path / output
        command = ["predict", tmp_path / "m.h5", tmp_path / source, "--store", store.path, "--output", target]
        code, out, err = run(*command, *options)
        assert out == ""
        return code, target, err

    return predict


def expected(store, tmp_path, source, **options):
    """What the model labels the corpus with, by the library."""
    from featurestore.models.inference import predict

    return list(
        predict(TrainedModel.load(tmp_path / "m.h5"), store, open_corpus(tmp_path / source, **options))
    )


def columns(text: str, number: int) -> list[str]:
    return [line.split("\t")[number] for line in text.splitlines() if line[:1].isdigit()]


@pytest.mark.parametrize("label", ["misc.NER", "upos", "feats.Kind", "deps", "misc.New", "2", "4", None])
def test_conllu_stays_what_it_was_but_for_the_labels(predict, store, tmp_path, label):
    code, target, _ = predict(CONLLU, "in.conllu", "out.conllu", label=label)
    assert code == 0
    found = target.read_text()
    column = {"upos": 3, "4": 3, "feats.Kind": 5, "deps": 8}.get(label, 9)
    for ours, theirs in zip(found.splitlines(), CONLLU.splitlines(), strict=True):
        fields, others = ours.split("\t"), theirs.split("\t")
        if not theirs.split("\t")[0].isdigit():
            assert ours == theirs
        else:
            assert fields[:column] + fields[column + 1 :] == others[:column] + others[column + 1 :]
    key = {2: "misc.label", None: "misc.label"}.get(label, label) if label != "2" else "misc.label"
    predicted = expected(store, tmp_path, "in.conllu")
    assert [(e.tokens, e.labels) for e in open_corpus(target, label=key)] == [
        (e.tokens, e.labels) for e in predicted
    ]


def test_misc_keeps_its_other_items_in_their_places(predict):
    _, target, _ = predict(CONLLU, "in.conllu", "out.conllu")
    items = [cell.split("|") for cell in columns(target.read_text(), 9)]
    assert [len(item) for item in items] == [1, 2, 1, 1, 2, 1, 1]
    assert items[1][1] == "Lang=de"
    assert items[4][0] == "SpaceAfter=No"
    assert items[4][1].startswith("NER=")


@pytest.mark.parametrize("source", ["in.jsonl", "in.conll"])
def test_conllu_of_other_input_has_ten_columns(predict, store, tmp_path, source):
    text = json.dumps({"tokens": SENTENCES[0], "id": 7}) if source == "in.jsonl" else "Geht\n's\nMeer\n"
    code, target, _ = predict(text, source, "out.conllu", label="upos")
    assert code == 0
    assert [line.count("\t") for line in target.read_text().splitlines()] == [9, 9, 9, 0]
    (found,) = open_corpus(target, label="upos")
    (predicted,) = expected(store, tmp_path, source)
    assert (found.tokens, found.labels) == (predicted.tokens, predicted.labels)


def test_jsonl_keeps_ids_and_other_fields(predict, store, tmp_path):
    rows = [
        {"id": 17, "tokens": list(SENTENCES[2]), "tags": ["X"], "labels": ["old"]},
        {"meta": {"by": ["me"]}, "tokens": list(SENTENCES[0]), "id": "b"},
    ]
    text = json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1]) + "\n"
    code, target, _ = predict(text, "in.jsonl", "out.jsonl")
    assert code == 0
    predicted = expected(store, tmp_path, "in.jsonl")
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert found == [{**row, "labels": list(e.labels)} for row, e in zip(rows, predicted, strict=True)]


def test_sentences_that_were_skipped_take_nothing_with_them(predict, store, tmp_path):
    missing = "# sent_id = gone\n1\tunheard\t_\tX\t_\t_\t0\troot\t_\t_\n\n"
    options = ["--on-missing", "skip"]
    code, target, _ = predict(missing + CONLLU, "in.conllu", "out.conllu", *options)
    assert code == 0
    assert "gone" not in target.read_text()
    assert target.read_text().startswith("# newdoc\n# just a comment\n\n# sent_id = a-1\n")
    rows = [{"id": i, "tokens": tokens} for i, tokens in enumerate([["unheard"], *SENTENCES[:4]])]
    code, target, _ = predict("\n".join(map(json.dumps, rows)), "in.jsonl", "out.jsonl", *options)
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.parametrize("output", ["out.conllu", "out.jsonl", "out.conllup", "out.conll"])
def test_a_token_docstart_survives(predict, store, tmp_path, output):
    text = "\n".join(json.dumps({"tokens": tokens}) for tokens in SENTENCES[:3])
    code, target, err = predict(text, "in.jsonl", output, label="misc.NER")
    assert code == 0, err
    label = {"out.conllu": "misc.NER", "out.jsonl": "labels"}.get(output, "LABEL")
    predicted = expected(store, tmp_path, "in.jsonl")
    assert [e.tokens for e in predicted] == SENTENCES[:3]
    assert [(e.tokens, e.labels) for e in open_corpus(target, label=label)] == [
        (e.tokens, e.labels) for e in predicted
    ]


def test_a_column_file_names_its_columns_where_a_token_would_be_lost_without(predict):
    text = "\n".join(json.dumps({"tokens": tokens}) for tokens in SENTENCES[:1])
    assert predict(text, "in.jsonl", "out.conll")[1].read_text().startswith("Geht\t")
    text += "\n" + json.dumps({"tokens": SENTENCES[2]})
    _, target, _ = predict(text, "in.jsonl", "out.conll")
    assert target.read_text().startswith("# global.columns = FORM LABEL\nGeht\t")


def test_what_no_column_file_gives_back_is_refused(predict, tmp_path):
    code, target, err = predict(json.dumps({"tokens": SENTENCES[4]}), "in.jsonl", "out.conll")
    assert (code, target.exists()) == (2, False)
    assert "would not be read back" in err
    assert "name the output .jsonl" in err
    assert predict(json.dumps({"tokens": SENTENCES[4]}), "in.jsonl", "out.jsonl")[0] == 0


@pytest.mark.parametrize("output", ["out.csv", "out.tsv", "out.jsonl"])
def test_sentence_labels_as_tables_and_json_are_read_back(predict, store, tmp_path, output):
    text = "\n".join(json.dumps({"tokens": tokens}) for tokens in SENTENCES[:4])
    names = ("a, b", "good")
    code, target, err = predict(
        text, "in.jsonl", output, label="mood", names=names, head="meanpool-classifier"
    )
    assert code == 0, err
    label = "label" if output.endswith("jsonl") else "mood"
    predicted = expected(store, tmp_path, "in.jsonl")
    assert [(e.tokens, e.labels) for e in open_corpus(target, label=label)] == [
        (e.tokens, e.labels) for e in predicted
    ]
    if output == "out.csv":
        with target.open(newline="") as file:
            assert [row["text"] for row in csv.DictReader(file)] == [" ".join(s) for s in SENTENCES[:4]]


@pytest.mark.parametrize(
    ("head", "output", "says"),
    [
        ("linear-tagger", "out.csv", "no place for a label per token: name the output .conllu"),
        ("linear-tagger", "out.tsv", "no place for a label per token"),
        ("meanpool-classifier", "out.conllu", "no place for the label of a sentence: name the output .jsonl"),
        ("meanpool-classifier", "out.conll", "no place for the label of a sentence"),
        ("linear-tagger", "out.jsonl.gz", "written uncompressed: leave out .gz"),
    ],
)
def test_names_that_cannot_hold_the_labels_are_refused(predict, tmp_path, head, output, says):
    code, target, err = predict(json.dumps({"tokens": ["Geht"]}), "in.jsonl", output, head=head)
    assert (code, target.exists()) == (2, False)
    assert says in err


def test_labels_that_do_not_fit_are_refused_and_no_file_is_left(predict, tmp_path):
    code, target, err = predict(CONLLU, "in.conllu", "out.conllu", names=("a|b", "c|d"))
    assert (code, target.exists()) == (2, False)
    assert "in.conllu, line 7: the label " in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.conllu", "m.h5", "s.fs"]
