"""Span schemes: recognised over a whole label set, read as seqeval reads them; strays are named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE2, Entities

from featurestore.models.scoring import Scorer
from featurestore.models.spans import recognise, spans


def written(sentence: list[tuple[str | None, int]], letters: str) -> list[str]:
    """Return the labels of pieces, each a type (None: outside) and a length, in a scheme's letters.

    ``letters`` are those of a span's first, middle and last token, and of its only one.
    """
    first, middle, last, only = letters
    labels: list[str] = []
    for kind, n in sentence:
        marks = "O" * n if kind is None else only if n == 1 else first + middle * (n - 2) + last
        labels += ["O" if kind is None else f"{mark}-{kind}" for mark in marks]
    return labels


def iob1(sentence: list[tuple[str | None, int]]) -> list[str]:
    """The same in IOB1: B only where a span follows another of its type."""
    labels: list[str] = []
    before = None
    for kind, n in sentence:
        if kind is None:
            labels += ["O"] * n
        else:
            labels += [f"{'B' if kind == before else 'I'}-{kind}"] + [f"I-{kind}"] * (n - 1)
        before = kind
    return labels


pieces = st.lists(
    st.tuples(st.sampled_from([None, "PER", "LOC", "X-Y"]), st.integers(1, 4)), min_size=1, max_size=6
)
LETTERS = {"IOB2": "BIIB", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW", "IOE2": "IIEE"}
SEQEVAL = {"IOB2": IOB2, "IOBES": IOBES, "BILOU": BILOU, "IOE2": IOE2}


def expected(sentence) -> list[tuple[str, int, int]]:
    found, position = [], 0
    for kind, n in sentence:
        if kind is not None:
            found.append((kind, position, position + n - 1))
        position += n
    return found


@pytest.mark.parametrize("scheme", LETTERS)
@settings(max_examples=60, deadline=None)
@given(sentence=pieces)
def test_every_scheme_gives_its_spans_back_as_strict_seqeval_does(scheme, sentence):
    labels = written(sentence, LETTERS[scheme])
    assert spans(labels) == expected(sentence)
    if scheme in SEQEVAL:
        (theirs,) = Entities([labels], SEQEVAL[scheme]).entities
        assert [(e.tag, e.start, e.end - 1) for e in theirs] == expected(sentence)


@settings(max_examples=60, deadline=None)
@given(sentence=pieces)
def test_iob1_gives_its_spans_back_as_seqeval_does(sentence):
    labels = iob1(sentence)
    assert spans(labels) == expected(sentence) == get_entities(labels)
    (theirs,) = Entities([labels], IOB1).entities
    assert [(e.tag, e.start, e.end - 1) for e in theirs] == expected(sentence)


PEOPLE = [("PER", 2), (None, 1), ("LOC", 1), (None, 2), ("PER", 3)]
NEIGHBOURS = [("PER", 1), ("PER", 2), (None, 1), ("LOC", 3)]


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        *[(name, [written(PEOPLE, letters)]) for name, letters in LETTERS.items() if name != "IOE2"],
        ("IOE", [written(PEOPLE, "IIEE")]),
        ("IOB1", [iob1(NEIGHBOURS)]),
        ("IO", [iob1(PEOPLE)]),
        ("IOB2", [["B", "I", "O", "B"]]),
        ("BMES", [["B", "M", "E", "S", "B", "E"]]),
        ("IOB2", [["B_PER", "I_PER", "O"]]),
        ("IOB2", [["b-per", "i-per", "o"]]),
        ("IOB2", [["B-PER", "I-PER", "0"]]),
        ("BILOU", [["B-PER", "L-PER", "_", "U-LOC"]]),
    ],
)
def test_the_scheme_is_recognised_and_counts(name, sentences):
    counts = {label: 1 for labels in sentences for label in labels}
    scorer = Scorer("token", counts)
    for labels in sentences:
        scorer.add(labels, labels)
    scores = scorer.scores()
    assert (scores.metric, scores.scheme, scores.value) == ("span_f1", name, 1.0)
    assert scores.metric_text == f"span F1 ({name})"
    assert scores.spans.n_gold > 0


def test_a_bilou_span_is_one_span_and_not_its_tokens(shared):
    text = shared("trials/bilou.conll").read_text()
    sentences = [[line.split()[1] for line in block.splitlines()] for block in text.strip().split("\n\n")]
    gold = [get_entities([label.replace("L-", "E-").replace("U-", "S-") for label in s]) for s in sentences]
    assert [spans(labels) for labels in sentences] == gold == [[("PER", 0, 1)], [("LOC", 0, 0)]]
    scorer = Scorer("token", {label: 1 for labels in sentences for label in labels})
    scorer.add(["B-PER", "L-PER", "O"], ["B-PER", "O", "O"])  # half a name is no name
    scorer.add(["U-LOC", "O"], ["U-LOC", "O"])
    assert scorer.scores().spans.f1 == pytest.approx(0.5)


def test_zero_is_outside_where_the_other_labels_are_spans(shared):
    text = shared("trials/zero-for-outside.conll").read_text()
    labels = [line.split()[1] for line in text.splitlines() if line]
    scorer = Scorer("token", dict.fromkeys(labels, 1))
    scorer.add(labels, labels)
    scores = scorer.scores()
    assert (scores.metric, scores.spans.n_gold) == ("span_f1", 2)
    assert scores.notes == ("read as outside of spans: '0'",)
    assert Scorer("token", ["0", "1", "2"]).metric == "accuracy"


def test_one_stray_label_among_thousands_is_named_and_spans_still_count():
    counts = {"B-PER": 900, "I-PER": 300, "O": 9000, "PERSON": 1}
    assert recognise(counts).is_clear
    scorer = Scorer("token", counts)
    for _ in range(20):
        scorer.add(["B-PER", "I-PER", "O"], ["B-PER", "I-PER", "O"])
    scorer.add(["B-PER", "PERSON", "I-PER"], ["B-PER", "I-PER", "I-PER"])
    scores = scorer.scores()
    assert scores.metric == "span_f1"
    assert scores.spans.n_gold == 22  # the stray label cuts a name in two
    (note, unbegun) = scores.notes
    assert note.startswith("not of the span scheme IOB2: 'PERSON' (1), 1 of 63 labels. They count as outside")
    assert unbegun.startswith("1 of 22 gold spans have no B- at their beginning")


def test_many_labels_in_the_way_are_named_and_span_f1_can_be_asked_for():
    counts = {"B-PER": 90, "I-PER": 30, "NIL": 900}
    gold = ["B-PER", "NIL", "B-PER", "I-PER"]

    def scores(metric):
        scorer = Scorer("token", counts, metric)
        scorer.add(gold, gold)
        return scorer.scores()

    assert (scores("auto").metric, scores("auto").spans) == ("accuracy", None)
    assert "but not 'NIL' (1): so each token is scored by itself" in scores("auto").notes[0]
    assert (scores("span_f1").metric, scores("span_f1").spans.n_gold) == ("span_f1", 2)
    assert "not of the span scheme IOB2: 'NIL' (1), 1 of 4 labels" in scores("span_f1").notes[0]


@pytest.mark.parametrize(
    "names",
    [
        ["S-Bahn", "E-Bike", "O"],
        ["NOUN", "VERB", "O"],
        ["B", "E", "X"],  # single letters that are not all of a scheme
        ["S", "U", "O"],
        ["O"],
        [],
    ],
)
def test_other_labels_are_no_spans(names):
    assert recognise(dict.fromkeys(names, 3)).scheme is None


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["PER-B", "PER-I", "O"], "'PER-B', 'PER-I'"),
        (["B-LOC_B", "x", "O"], None),
        (["SUB-B", "OBJ-I", "O"], None),
    ],
)
def test_a_position_behind_the_type_is_said_to_be_none(names, shown):
    scorer = Scorer("token", names)
    scorer.add(names, names)
    notes = [note for note in scorer.scores().notes if "behind the type" in note]
    assert len(notes) == (shown is not None)
    assert all(f"the labels {shown} look like spans" in note for note in notes)


@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
def test_words_that_differ_in_their_first_letter_only_are_not_mixed_up():
    """seqeval reads any label's first letter as a prefix: for it, WP and RP are the same."""
    assert get_entities(["WP", "VB"]) == get_entities(["RP", "RB"])
    scorer = Scorer("token", ["WP", "RP", "VB", "RB"])
    scorer.add(["WP", "VB"], ["RP", "RB"])
    assert (scorer.scores().metric, scorer.scores().value) == ("accuracy", 0.0)


@pytest.mark.parametrize(
    ("gold", "label"),
    [
        ([["O", "O", "B-PER"], ["O", "B-LOC"]], "O"),
        ([["S-W", "S-W", "S-W"], ["B-W", "E-W", "S-W"]], "S-W"),
        ([["B-NP", "B-NP"], ["B-NP", "I-NP"], ["B-NP"]], "B-NP"),
        ([["I-NP", "I-NP"], ["B-NP", "I-NP"], ["I-NP", "O", "I-NP"]], "I-NP"),
        ([["E-NP", "E-NP"], ["I-NP", "E-NP"]], "E-NP"),
    ],
)
def test_the_baseline_is_the_score_of_the_commonest_label(gold, label):
    names = {name: 1 for labels in gold for name in labels}
    for metric in ("accuracy", "macro_f1", "span_f1"):
        scorer, always = Scorer("token", names, metric), Scorer("token", names, metric)
        for labels in gold:
            scorer.add(labels, labels)
            always.add(labels, [label] * len(labels))
        found, baseline = scorer.scores(), always.scores()
        assert found.baseline.label == label
        assert found.baseline.value == pytest.approx(baseline.value)
        assert found.baseline.accuracy == pytest.approx(baseline.accuracy)
        assert found.baseline.span_f1 == pytest.approx(baseline.spans.f1)
        assert found.above_baseline
        assert not baseline.above_baseline


def test_tokens_without_a_gold_label_are_not_scored():
    scorer = Scorer("token", ["B-PER", "I-PER", "O"])
    scorer.add(["B-PER", None, "O"], ["B-PER", "I-PER", "O"])
    scores = scorer.scores()
    assert (scores.n_labels, scores.accuracy, scores.spans.f1) == (2, 1.0, 1.0)
