"""Scores against seqeval and scikit-learn, and which score counts."""

from __future__ import annotations

import pytest
import seqeval.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import f1_score

from featurestore.errors import ModelError, UsageError
from featurestore.models.scoring import Scorer, choose_metric, spans

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
IOBES = [*BIO, "E-PER", "S-PER", "E-LOC", "S-LOC", "I-X-Y", "B-X-Y"]


def pairs(names, min_size=1):
    """Sentences as lists of (gold, predicted)."""
    token = st.tuples(st.sampled_from(names), st.sampled_from(names))
    return st.lists(st.lists(token, min_size=min_size, max_size=9), min_size=1, max_size=6)


def scored(sentences, names, **options):
    scorer = Scorer("token", names, **options)
    for sentence in sentences:
        scorer.add([g for g, _ in sentence], [p for _, p in sentence])
    return scorer.scores()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(IOBES), min_size=1, max_size=12))
def test_spans_are_those_of_seqeval(labels):
    assert spans(labels) == get_entities(labels)


@pytest.mark.parametrize("names", [BIO, IOBES], ids=["bio", "iobes"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_span_scores_are_those_of_seqeval(names, data):
    sentences = data.draw(pairs(names))
    gold = [[g for g, _ in s] for s in sentences]
    predicted = [[p for _, p in s] for s in sentences]
    result = scored(sentences, names).spans
    for ours, theirs in [("precision", "precision_score"), ("recall", "recall_score"), ("f1", "f1_score")]:
        expected = getattr(seqeval.metrics, theirs)(gold, predicted, zero_division=0)
        assert getattr(result, ours) == pytest.approx(expected)
    if result.per_type:
        report = seqeval.metrics.classification_report(gold, predicted, zero_division=0, output_dict=True)
        for row in result.per_type:
            theirs = report[row.name]
            assert (row.precision, row.recall, row.f1, row.n_gold) == pytest.approx(
                (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
            )


@settings(max_examples=50, deadline=None)
@given(pairs(["NOUN", "VERB", "ADJ", "X"]))
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(sentences):
    result = scored(sentences, ["NOUN", "VERB", "ADJ", "X"])
    gold = [g for s in sentences for g, _ in s]
    predicted = [p for s in sentences for _, p in s]
    assert result.accuracy == pytest.approx(sum(map(str.__eq__, gold, predicted)) / len(gold))
    assert result.macro_f1 == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    assert result.n_sentences == len(sentences)
    assert result.n_labels == len(gold)


def test_spans_end_with_their_sentence():
    result = scored([[("B-PER", "B-PER")], [("I-PER", "I-PER")]], BIO)
    assert result.spans.n_gold == 2


@pytest.mark.parametrize(
    ("kind", "names", "metric"),
    [
        ("token", BIO, "span_f1"),
        ("token", IOBES, "span_f1"),
        ("token", ["I-NP", "O"], "span_f1"),
        ("token", ["NOUN", "VERB"], "accuracy"),
        ("token", ["O", "NOUN", "B-X"], "accuracy"),
        ("token", ["O"], "accuracy"),
        ("token", ["S-Bahn", "E-Bike", "O"], "accuracy"),
        ("sentence", BIO, "accuracy"),
    ],
)
def test_the_score_that_counts(kind, names, metric):
    assert choose_metric(kind, names) == metric


def test_the_value_is_the_metric_asked_for():
    sentences = [[("B-PER", "B-PER"), ("O", "B-LOC"), ("O", "O")]]
    metrics = ("auto", "accuracy", "macro_f1", "span_f1")
    by_metric = {metric: scored(sentences, BIO, metric=metric).value for metric in metrics}
    assert by_metric["auto"] == by_metric["span_f1"] == pytest.approx(2 / 3)
    assert by_metric["accuracy"] == pytest.approx(2 / 3)
    assert by_metric["macro_f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)


def test_a_gold_label_the_model_does_not_know_counts_as_an_error():
    result = scored([[("NEW", "A"), ("A", "A")]], ["A", "B"])
    assert result.accuracy == 0.5
    assert {row.name: row.recall for row in result.per_label} == {"A": 1.0, "NEW": 0.0}


def test_misuse_is_refused():
    with pytest.raises(UsageError, match="span_f1"):
        Scorer("token", ["NOUN"], "span_f1")
    with pytest.raises(UsageError, match="macro_f1"):
        Scorer("token", ["NOUN"], "bleu")
    with pytest.raises(ModelError, match="2 gold labels but 1 predictions"):
        Scorer("token", ["NOUN"]).add(["NOUN", "NOUN"], ["NOUN"])
    with pytest.raises(ModelError, match="nothing to score"):
        Scorer("token", ["NOUN"]).scores()


def test_the_plain_form_holds_no_objects():
    result = scored([[("B-PER", "B-PER"), ("O", "B-LOC")]], BIO)
    full = result.to_dict()
    assert full["value"] == result.value
    assert full["spans"]["per_type"][1]["name"] == "PER"
    assert result.summary()["span_recall"] == 1.0
