"""How good predicted labels are: accuracy, macro-F1, a table per label, span F1, and a baseline beside them.

Spans are read as :mod:`featurestore.models.spans` says. The baseline is the score of the commonest label,
given to everything: a model that scores no more has learned nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from featurestore.corpora.contract.example import MissingLabel
from featurestore.errors import ModelError, UsageError
from featurestore.models.spans import Recognition, Span, SpanScheme, list_counts, recognise, turned_around
from featurestore.models.spans import spans as spans

Metric = Literal["accuracy", "macro_f1", "span_f1"]
METRICS: tuple[str, ...] = get_args(Metric)


def choose_metric(label_kind: str, names: Iterable[str] | Mapping[str, int]) -> Metric:
    """Return the score that fits the labels.

    ``"span_f1"`` for token labels that follow a span scheme (:func:`featurestore.models.spans.recognise`),
    with at most one label in twenty that does not; ``"accuracy"`` for all others.

    Parameters
    ----------
    label_kind : str
        ``"token"`` or ``"sentence"``.
    names : iterable of str, or mapping of str to int
        The label names, or how often each occurs.
    """
    return "span_f1" if label_kind == "token" and recognise(_counted(names)).is_clear else "accuracy"


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
class Baseline:
    """The scores of one label given to everything: the commonest of the gold labels.

    Attributes
    ----------
    label : str
    value : float
        By the metric that counts.
    accuracy, macro_f1 : float
    span_f1 : float or None
    """

    label: str
    value: float
    accuracy: float
    macro_f1: float
    span_f1: float | None


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
    baseline : Baseline
        What always the commonest gold label scores.
    scheme : str or None
        Of the spans: ``IOB1``, ``IOB2``, ``IO``, ``IOE``, ``IOBES``, ``BILOU``, ``BMES`` or ``BMEWO``.
    notes : tuple of str
        What about the labels makes the scores easy to misread.
    """

    metric: Metric
    accuracy: float
    macro_f1: float
    spans: SpanScores | None
    per_label: tuple[LabelScore, ...]
    n_sentences: int
    n_labels: int
    baseline: Baseline
    scheme: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def metric_text(self) -> str:
        """The score that counts, in words: ``accuracy``, ``macro-F1`` or ``span F1 (IOB2)``."""
        if self.metric == "span_f1":
            return f"span F1 ({self.scheme})"
        return {"accuracy": "accuracy", "macro_f1": "macro-F1"}[self.metric]

    @property
    def value(self) -> float:
        """The score that counts."""
        if self.metric == "span_f1":
            return self.spans.f1 if self.spans else 0.0
        return self.accuracy if self.metric == "accuracy" else self.macro_f1

    @property
    def above_baseline(self) -> bool:
        """Whether the score that counts is higher than the baseline's.

        Span F1 must be reached with no fewer labels right: random labels, too, hit a span now and then.
        """
        guesses = self.metric == "span_f1" and self.accuracy < self.baseline.accuracy
        return self.value > self.baseline.value and not guesses

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values, ``value`` included."""
        return {"value": self.value, **asdict(self)}

    def summary(self) -> dict[str, Any]:
        """Return the scores without the tables and notes."""
        tables = {"per_label", "spans", "notes"}
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
    names : iterable of str, or mapping of str to int
        The label names, or how often each occurs in the corpus: they decide whether the labels form spans
        (:func:`choose_metric`).
    metric : str
        The score that counts, or ``"auto"`` for the one that fits the labels.

    Raises
    ------
    UsageError
        If there is no such metric, or span F1 is asked of labels of which none begins or continues a span.
    """

    def __init__(
        self, label_kind: str, names: Iterable[str] | Mapping[str, int], metric: str = "auto"
    ) -> None:
        if metric not in ("auto", *METRICS):
            raise UsageError(f"there is no metric {metric!r}: choose auto, {', '.join(METRICS)}")
        recognised = recognise(_counted(names)) if label_kind == "token" else Recognition(None, {})
        if metric == "span_f1" and recognised.scheme is None:
            found = f", found {list_counts(recognised.strays)}" if recognised.strays else ""
            raise UsageError(
                f"span_f1 needs token labels such as B-PER, I-PER and O{found}: choose accuracy or macro_f1"
            )
        fitting: Metric = "span_f1" if recognised.is_clear else "accuracy"
        self.metric: Metric = fitting if metric == "auto" else cast(Metric, metric)
        self._recognised = recognised
        self._labels = _Counts()
        scores_spans = recognised.scheme and (recognised.is_clear or metric == "span_f1")
        self._spans = _SpanCounts(recognised.scheme) if recognised.scheme and scores_spans else None
        self._n_sentences = 0

    def add(self, gold: Sequence[str | MissingLabel | None], predicted: Sequence[str]) -> None:
        """Take in one sentence: its labels per token, or a sequence of one for a sentence label.

        A token whose gold label is missing (``IGNORED`` or None) is not scored; for spans, it is outside of
        all.

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
        pairs = [(g, p) for g, p in zip(gold, predicted, strict=True) if isinstance(g, str)]
        self._labels.gold.update(g for g, _ in pairs)
        self._labels.predicted.update(p for _, p in pairs)
        self._labels.right.update(g for g, p in pairs if g == p)
        if self._spans is not None:
            if len(pairs) < len(gold):
                scored = zip(gold, predicted, strict=True)
                predicted = [p if isinstance(g, str) else "O" for g, p in scored]
            self._spans.add([g if isinstance(g, str) else "O" for g in gold], predicted)

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
            baseline=self._baseline(),
            scheme=self._spans.scheme_name if self._spans is not None else None,
            notes=tuple(self._notes()),
        )

    def _baseline(self) -> Baseline:
        gold = self._labels.gold
        label, n = max(gold.items(), key=lambda item: (item[1], item[0]))
        accuracy = n / gold.total()
        macro_f1 = _precision_recall_f1(n, n, gold.total())[2] / len(gold)
        span_f1 = None if self._spans is None else self._spans.f1_of_one_label(label, gold.total())
        by_metric = {"accuracy": accuracy, "macro_f1": macro_f1, "span_f1": span_f1 or 0.0}
        return Baseline(label, by_metric[self.metric], accuracy, macro_f1, span_f1)

    def _notes(self) -> Iterator[str]:
        recognised, gold = self._recognised, self._labels.gold
        strays = Counter({name: gold[name] for name in recognised.strays if gold[name]})
        shown = list_counts(strays)
        if recognised.scheme is None:
            if turned := turned_around(strays):
                yield (
                    f"the labels {', '.join(map(repr, turned[:4]))} look like spans with the position "
                    "behind the type: each token is scored by itself, by accuracy; write B-TYPE, I-TYPE"
                )
            return
        if self._spans is None:
            yield (
                f"some labels look like spans ({recognised.scheme.name}), but not {shown}: so each token "
                "is scored by itself, by accuracy; --metric span_f1 counts these as outside"
            )
            return
        if strays:
            yield (
                f"not of the span scheme {self._spans.scheme_name}: {shown}, {strays.total():,} of "
                f"{gold.total():,} labels. They count as outside: tokens with them are in no span, and a "
                "span that one of them interrupts is cut in two"
            )
        if recognised.outside:
            yield f"read as outside of spans: {', '.join(map(repr, recognised.outside))}"
        yield from self._spans.notes()


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


class _SpanCounts(_Counts):
    """The same of spans, by type, and how the gold ones are written."""

    def __init__(self, scheme: SpanScheme) -> None:
        super().__init__()
        self._scheme = scheme
        self._single: Counter[str] = Counter()
        self._whole: Counter[str] = Counter()
        self._n_sentences = 0
        self._n_begun, self._n_unbegun, self._n_redundant = 0, 0, 0

    def add(self, gold: Sequence[str], predicted: Sequence[str]) -> None:
        """Take in one sentence."""
        spans_of_gold = self._scheme.spans(gold)
        gold_spans, predicted_spans = set(spans_of_gold), set(self._scheme.spans(predicted))
        self.gold.update(kind for kind, _, _ in gold_spans)
        self.predicted.update(kind for kind, _, _ in predicted_spans)
        self.right.update(kind for kind, _, _ in gold_spans & predicted_spans)
        self._n_sentences += 1
        before: Span = ("", -1, -1)
        for span in spans_of_gold:
            kind, first, last = span
            role = self._scheme.parts(gold[first])
            if role is not None and role[0] in "BS":
                self._n_begun += 1
                self._n_redundant += before[0] != kind or before[2] != first - 1
            else:
                self._n_unbegun += 1
            self._single[kind] += first == last
            self._whole[kind] += first == 0 and last == len(gold) - 1
            before = span

    @property
    def scheme_name(self) -> str:
        """The name of the scheme; of IOB, which one the gold labels follow."""
        if self._scheme.name != "IOB":
            return self._scheme.name
        if not self._n_unbegun:
            return "IOB2"
        if not self._n_begun:
            return "IO"
        return "IOB2" if self._n_redundant else "IOB1"

    def notes(self) -> Iterator[str]:
        """Say what is not well formed."""
        name = self.scheme_name
        if self._n_unbegun and name not in ("IO", "IOB1", "IOE"):
            yield (
                f"{self._n_unbegun:,} of {self._n_unbegun + self._n_begun:,} gold spans have no B- at their "
                f"beginning, as {name} wants it: they count as spans, as in seqeval and the CoNLL script"
            )

    def f1_of_one_label(self, label: str, n_tokens: int) -> float:
        """Return the F1 where every token has one label."""
        parts = self._scheme.parts(label)
        if parts is None:
            return 0.0
        role, kind = parts
        # The same I- again continues a span, any other role ends or begins one at each token.
        n_right, n_predicted = (
            (self._whole[kind], self._n_sentences) if role == "I" else (self._single[kind], n_tokens)
        )
        return _precision_recall_f1(n_right, self.gold.total(), n_predicted)[2]


def _counted(names: Iterable[str] | Mapping[str, int]) -> Mapping[str, int]:
    return names if isinstance(names, Mapping) else dict.fromkeys(names, 1)


def _precision_recall_f1(n_right: int, n_gold: int, n_predicted: int) -> tuple[float, float, float]:
    precision = n_right / n_predicted if n_predicted else 0.0
    recall = n_right / n_gold if n_gold else 0.0
    return precision, recall, 2 * n_right / (n_gold + n_predicted) if n_right else 0.0
