"""How good predicted labels are: accuracy, macro-F1, a table per label, and span F1 for BIO-like labels.

Spans are read as seqeval reads them by default, which is how the CoNLL evaluation script did: forgivingly,
so that BIO (IOB2), IOB1 and IOBES labels all work and an ``I-`` without its ``B-`` still opens a span.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from featurestore.errors import ModelError, UsageError

Metric = Literal["accuracy", "macro_f1", "span_f1"]
METRICS: tuple[str, ...] = get_args(Metric)

_SPAN_LABEL = re.compile(r"([BIES])-(.+)", re.DOTALL)


def choose_metric(label_kind: str, names: Iterable[str]) -> Metric:
    """Return the score that fits the labels.

    ``"span_f1"`` for token labels that are all ``O`` or ``B-``, ``I-``, ``E-``, ``S-`` and a type, with at
    least one ``B-`` or ``I-``: the forms of BIO, IOB1 and IOBES. ``"accuracy"`` for all others.

    Parameters
    ----------
    label_kind : str
        ``"token"`` or ``"sentence"``.
    names : iterable of str
        The label names.
    """
    matches = [_SPAN_LABEL.fullmatch(name) for name in names if name != "O"]
    spanlike = all(matches) and any(match[1] in "BI" for match in matches if match)
    return "span_f1" if label_kind == "token" and spanlike else "accuracy"


def spans(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the spans of one sentence as ``(type, first token, last token)``.

    A token opens a span if it is labelled ``B-`` or ``S-``, or follows ``O`` or the sentence's start, or
    follows ``E-`` or ``S-``, or has another type than the token before it; otherwise it continues the span.
    A label that is none of ``B-``, ``I-``, ``E-``, ``S-`` and a type counts as ``O``.
    """
    found: list[tuple[str, int, int]] = []
    previous: tuple[str, str] | None = None
    for position, label in enumerate(labels):
        match = _SPAN_LABEL.fullmatch(label)
        if match:
            prefix, kind = match[1], match[2]
            opens = prefix in "BS" or previous is None or previous[0] in "ES" or previous[1] != kind
            first = position if opens else found.pop()[1]
            found.append((kind, first, position))
        previous = (match[1], match[2]) if match else None
    return found


@dataclass(frozen=True)
class LabelScore:
    """Precision, recall and F1 of one label or span type; each 0 where it is undefined."""

    name: str
    precision: float
    recall: float
    f1: float
    n_gold: int
    n_predicted: int


@dataclass(frozen=True)
class SpanScores:
    """Micro-averaged span precision, recall and F1, and the same per type."""

    precision: float
    recall: float
    f1: float
    n_gold: int
    n_predicted: int
    per_type: tuple[LabelScore, ...]


@dataclass(frozen=True)
class Scores:
    """The scores of one model on one corpus.

    Attributes
    ----------
    metric : str
        The score that counts: ``"accuracy"``, ``"macro_f1"`` or ``"span_f1"``.
    accuracy : float
        Share of labels that are right: per token for taggers, per sentence for classifiers.
    macro_f1 : float
        Mean F1 over the labels that occur in gold or prediction.
    spans : SpanScores or None
        Where the metric is span F1, or the labels form spans.
    per_label : tuple of LabelScore
        Sorted by name.
    n_sentences, n_labels : int
        How many sentences and labels were compared.
    """

    metric: Metric
    accuracy: float
    macro_f1: float
    spans: SpanScores | None
    per_label: tuple[LabelScore, ...]
    n_sentences: int
    n_labels: int

    @property
    def value(self) -> float:
        """The score that counts."""
        if self.metric == "span_f1":
            return self.spans.f1 if self.spans else 0.0
        return self.accuracy if self.metric == "accuracy" else self.macro_f1

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values, ``value`` included."""
        return {"value": self.value, **asdict(self)}

    def summary(self) -> dict[str, Any]:
        """Return the scores without the tables."""
        tables = {"per_label", "spans"}
        short = {name: value for name, value in self.to_dict().items() if name not in tables}
        if self.spans:
            short["span_precision"] = self.spans.precision
            short["span_recall"] = self.spans.recall
            short["span_f1"] = self.spans.f1
        return short


class Scorer:
    """Takes in gold and predicted labels sentence by sentence; keeps only counts.

    Parameters
    ----------
    label_kind : str
        ``"token"`` or ``"sentence"``.
    names : iterable of str
        The model's label names: they decide whether the labels form spans (:func:`choose_metric`).
    metric : str
        The score that counts, or ``"auto"`` for the one that fits the labels.

    Raises
    ------
    UsageError
        If there is no such metric, or span F1 is asked of labels that form no spans.
    """

    def __init__(self, label_kind: str, names: Iterable[str], metric: str = "auto") -> None:
        fitting = choose_metric(label_kind, names)
        if metric not in ("auto", *METRICS):
            raise UsageError(f"there is no metric {metric!r}: choose auto, {', '.join(METRICS)}")
        if metric == "span_f1" and fitting != "span_f1":
            raise UsageError(
                "span_f1 needs token labels such as B-PER, I-PER and O: choose accuracy or macro_f1"
            )
        self.metric: Metric = fitting if metric == "auto" else cast(Metric, metric)
        self._labels = _Counts()
        self._spans = _Counts() if fitting == "span_f1" else None
        self._n_sentences = 0

    def add(self, gold: Sequence[str], predicted: Sequence[str]) -> None:
        """Take in one sentence: its labels per token, or a sequence of one for a sentence label.

        Raises
        ------
        ModelError
            If the two differ in length.
        """
        if len(gold) != len(predicted):
            raise ModelError(
                f"sentence {self._n_sentences} has {len(gold)} gold labels but {len(predicted)} predictions"
            )
        self._n_sentences += 1
        self._labels.gold.update(gold)
        self._labels.predicted.update(predicted)
        self._labels.right.update(g for g, p in zip(gold, predicted, strict=True) if g == p)
        if self._spans is not None:
            gold_spans, predicted_spans = set(spans(gold)), set(spans(predicted))
            self._spans.gold.update(kind for kind, _, _ in gold_spans)
            self._spans.predicted.update(kind for kind, _, _ in predicted_spans)
            self._spans.right.update(kind for kind, _, _ in gold_spans & predicted_spans)

    def scores(self) -> Scores:
        """Return the scores of everything taken in.

        Raises
        ------
        ModelError
            If there was nothing.
        """
        n_labels = self._labels.gold.total()
        if not n_labels:
            raise ModelError("there is nothing to score: no labelled sentence was given")
        per_label = self._labels.table()
        return Scores(
            metric=self.metric,
            accuracy=self._labels.right.total() / n_labels,
            macro_f1=sum(row.f1 for row in per_label) / len(per_label),
            spans=self._spans.micro() if self._spans is not None else None,
            per_label=per_label,
            n_sentences=self._n_sentences,
            n_labels=n_labels,
        )


class _Counts:
    """How often each name is gold, is predicted, and is both at the same place."""

    def __init__(self) -> None:
        self.gold: Counter[str] = Counter()
        self.predicted: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def table(self) -> tuple[LabelScore, ...]:
        names = sorted(self.gold.keys() | self.predicted.keys())
        return tuple(
            LabelScore(name, *_precision_recall_f1(self.right[name], self.gold[name], self.predicted[name]),
                       self.gold[name], self.predicted[name])
            for name in names
        )  # fmt: skip

    def micro(self) -> SpanScores:
        n_gold, n_predicted = self.gold.total(), self.predicted.total()
        rates = _precision_recall_f1(self.right.total(), n_gold, n_predicted)
        return SpanScores(*rates, n_gold, n_predicted, self.table())


def _precision_recall_f1(n_right: int, n_gold: int, n_predicted: int) -> tuple[float, float, float]:
    precision = n_right / n_predicted if n_predicted else 0.0
    recall = n_right / n_gold if n_gold else 0.0
    return precision, recall, 2 * n_right / (n_gold + n_predicted) if n_right else 0.0
