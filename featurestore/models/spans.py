"""Spans in token labels: which scheme a set of labels follows, and the spans that a sentence's labels mean.

Read are IOB1, IOB2, IOE, IOBES (BIOES), BILOU (BILUO), BMES and BMEWO, with types (``B-PER``, ``B_PER``) or
without (``B``). Each letter has one of four roles: B begins a span, I continues it, E ends it, S is a span of
one token. Spans are read from the roles as seqeval reads them by default, which is how the CoNLL evaluation
script did (Tjong Kim Sang and Buchholz 2000): forgivingly, so that an ``I-`` without its ``B-`` still begins
a span. For well-formed labels that equals the strict reading of each scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Span = tuple[str, int, int]
"""Type, first token, last token."""

OUTSIDE = ("O", "o", "0", "_")
"""Labels of tokens in no span."""

NO_TYPE = "_"
"""The type of spans whose labels have none, as in seqeval."""

_ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
_TYPED = re.compile(r"([BIMELSUW])[-_](.+)", re.DOTALL | re.IGNORECASE)

_POSITION_LAST = re.compile(r"(.+)[-_]([BIMEL])", re.DOTALL)

_SCHEMES = {"IOB": "BI", "IOE": "IE", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
"""Letters of each scheme; of those that explain a set of labels equally well, the first is taken."""

_STRAY_SHARE = 0.05
"""Labels that are not of the scheme, per label of it, up to which the labels still count as spans."""


@dataclass(frozen=True)
class SpanScheme:
    """A scheme and how it is written.

    Attributes
    ----------
    name : str
        ``IOB``, ``IOE``, ``IOBES``, ``BILOU``, ``BMES`` or ``BMEWO``.
    letters : str
        That are of the scheme.
    is_typed : bool
        Whether the letters are followed by a type.
    """

    name: str
    letters: str = "".join(_ROLES)
    is_typed: bool = True
    _parts: dict[str, tuple[str, str] | None] = field(default_factory=dict, repr=False, compare=False)

    def parts(self, label: str) -> tuple[str, str] | None:
        """Return the role and the type of a label, or None if it is outside of spans."""
        if label not in self._parts:
            self._parts[label] = self._read(label)
        return self._parts[label]

    def spans(self, labels: Iterable[str]) -> list[Span]:
        """Return the spans of one sentence.

        A token begins a span if its role is B or S, if the token before it is outside or has role E or S, or
        if it has another type; otherwise it continues the span. Labels that are not of the scheme are
        outside.
        """
        found: list[Span] = []
        previous: tuple[str, str] | None = None
        for position, label in enumerate(labels):
            parts = self.parts(label)
            if parts:
                role, kind = parts
                begins = role in "BS" or previous is None or previous[0] in "ES" or previous[1] != kind
                found.append((kind, position if begins else found.pop()[1], position))
            previous = parts
        return found

    def _read(self, label: str) -> tuple[str, str] | None:
        if self.is_typed:
            match = _TYPED.fullmatch(label)
            letter, kind = (match[1].upper(), match[2]) if match else ("", "")
        else:
            letter, kind = label.upper(), NO_TYPE
        return (_ROLES[letter], kind) if letter and letter in self.letters else None


@dataclass(frozen=True)
class Recognition:
    """What scheme a set of labels follows.

    Attributes
    ----------
    scheme : SpanScheme or None
        The one that explains most labels; None if no label begins or continues a span.
    strays : mapping of str to int
        Labels that are neither of the scheme nor outside, and how often they occur, the commonest first.
    outside : tuple of str
        Those that are outside, where they are not just ``O``.
    is_clear : bool
        Whether there are few enough strays for the labels to count as spans.
    """

    scheme: SpanScheme | None
    strays: Mapping[str, int]
    outside: tuple[str, ...] = ()
    is_clear: bool = False


def recognise(counts: Mapping[str, int]) -> Recognition:
    """Return the scheme of a set of labels.

    Parameters
    ----------
    counts : mapping of str to int
        How often each label occurs; 0 for labels that may occur.
    """
    named = {name: n for name, n in counts.items() if name not in OUTSIDE}
    if not any(named.values()):
        named = dict.fromkeys(named, 1)
    strays = dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))
    candidates = [SpanScheme(name, letters) for name, letters in _SCHEMES.items()]
    if not any(map(_TYPED.fullmatch, named)):
        candidates = [SpanScheme(name, letters, False) for name, letters in _SCHEMES.items()]
    covered = {scheme.name: [name for name in named if scheme.parts(name)] for scheme in candidates}
    best = max(candidates, key=lambda s: (sum(named[n] for n in covered[s.name]), len(covered[s.name])))
    names = covered[best.name]
    roles = {best.parts(name)[0] for name in names}  # type: ignore[index]  # those that have parts
    others = {name: n for name, n in strays.items() if name not in names}
    # Single letters may mean anything, so these must follow a scheme without exception.
    if not (roles & set("BI") if best.is_typed else "B" in roles and roles & set("IE") and not others):
        return Recognition(None, strays)
    outside = tuple(name for name in OUTSIDE if name in counts)
    is_clear = sum(others.values()) <= _STRAY_SHARE * sum(named[name] for name in names)
    return Recognition(best, others, () if outside in ((), ("O",)) else outside, is_clear)


def turned_around(names: Iterable[str]) -> list[str]:
    """Return the labels with their position behind the type (``PER-B``, ``PER-I``), as no scheme has it."""
    parts = {name: match.groups() for name in names if (match := _POSITION_LAST.fullmatch(name))}
    begun = {kind for kind, position in parts.values() if position == "B"}
    going_on = {kind for kind, position in parts.values() if position != "B"}
    return sorted(name for name, (kind, _) in parts.items() if kind in begun & going_on)


_ANY = SpanScheme("any")


def spans(labels: Sequence[str]) -> list[Span]:
    """Return the spans of one sentence as ``(type, first token, last token)``, in any of the schemes.

    See :meth:`SpanScheme.spans`; a label that is not a letter of a scheme and a type counts as ``O``.
    """
    return _ANY.spans(labels)


def list_counts(counts: Mapping[str, int], most: int = 5) -> str:
    """Return the first labels of a mapping with their counts, for a message."""
    shown = [f"{name!r} ({n:,})" if n else repr(name) for name, n in list(counts.items())[:most]]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")
