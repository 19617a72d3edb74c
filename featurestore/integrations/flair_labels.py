"""Labels of Flair sentences as labels of examples: one per sentence or token, spans in the BIO scheme."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flair.data import Sentence, Span, Token

from featurestore.corpora.contract.example import Labels
from featurestore.errors import LabelError

_KINDS = (Sentence, Token, Span)


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of one type.

    Attributes
    ----------
    label_type : str
        Flair's name of the annotation layer, such as ``upos`` or ``ner``.
    carrier : type
        What has them: ``Sentence``, ``Token`` or ``Span``.
    """

    label_type: str
    carrier: type

    @classmethod
    def of(cls, sentences: Iterable[tuple[str, Any]], label_type: str, name: str) -> LabelReader:
        """Return the reader of a label type; whether tokens, spans or sentences have it is told by the first.

        Parameters
        ----------
        sentences : iterable of (place, flair.data.Sentence)
        label_type : str
        name : str
            Of the corpus, for messages.

        Raises
        ------
        LabelError
            If no sentence has any, or something else than a sentence, a token or a span has them.
        """
        other: dict[str, None] = {}
        for place, sentence in sentences:
            for label in sentence.annotation_layers.get(label_type, ()):
                for carrier in _KINDS:
                    if isinstance(label.data_point, carrier):
                        return cls(label_type, carrier)
                raise LabelError(
                    f"{label_type!r} labels a {type(label.data_point).__name__}; expected labels of "
                    "sentences, tokens or spans",
                    path=place,
                )
            other.update(dict.fromkeys(sentence.annotation_layers))
        raise LabelError(
            f"nothing has a label of type {label_type!r}; there are: {', '.join(other) or 'none'}",
            path=name,
        )

    def of_sentence(self, sentence: Any, place: str) -> Labels:
        """Return the labels of a sentence.

        Raises
        ------
        LabelError
            If there are several for the sentence, or spans that overlap.
        """
        labels = sentence.annotation_layers.get(self.label_type, ())
        for label in labels:
            if not isinstance(label.data_point, self.carrier):
                raise LabelError(
                    f"{self.label_type!r} labels a {type(label.data_point).__name__} here, but a "
                    f"{self.carrier.__name__} before",
                    path=place,
                )
        if self.carrier is Token:
            return tuple(token.get_label(self.label_type).value for token in sentence.tokens)
        if self.carrier is Span:
            return self._in_bio(sentence, labels, place)
        if len(labels) > 1:
            raise LabelError(
                f"the sentence has {len(labels)} labels of type {self.label_type!r}, expected one: leave "
                "label_type out to read the sentences alone",
                path=place,
            )
        return labels[0].value if labels else None

    def _in_bio(self, sentence: Any, labels: Iterable[Any], place: str) -> tuple[str, ...]:
        tags = ["O"] * len(sentence)
        for label in labels:
            # A sentence that was truncated may have lost tokens of a span.
            inside = [token.idx - 1 for token in label.data_point.tokens if token.idx <= len(tags)]
            for at in inside:
                if tags[at] != "O":
                    raise LabelError(
                        f"two spans of type {self.label_type!r} overlap at token {at} "
                        f"({sentence.tokens[at].text!r}), and one label per token cannot say so",
                        path=place,
                    )
                tags[at] = f"{'B' if at == inside[0] else 'I'}-{label.value}"
        return tuple(tags)
