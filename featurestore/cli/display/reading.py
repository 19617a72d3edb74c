"""What was read of a corpus, for people: the first sentence, the commonest labels, what is implausible."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import click

from featurestore.cli.display import render
from featurestore.corpora.reading import Reading, ReadingWarning

_MOST_CHARACTERS = 100
_MOST_CORPORA = 3


def first_sentence(reading: Reading) -> str:
    """Return the beginning of the first sentence on one line, each token with its label."""
    labels = reading.first_labels
    tokens = [_shown(token) for token in reading.first_tokens]
    if isinstance(labels, tuple) and len(labels) == len(tokens):
        tokens = [f"{token}/{_shown(str(label))}" for token, label in zip(tokens, labels, strict=True)]
    text = " ".join(tokens)
    if len(text) > _MOST_CHARACTERS:
        text = text[: _MOST_CHARACTERS - 4] + " ..."
    return f"{text}  ({_shown(labels)})" if isinstance(labels, str) else text


def commonest_labels(reading: Reading) -> str:
    """Return the most frequent labels with their shares, on one line; empty if no labels were read."""
    if not reading.n_labels:
        return ""
    listed = ", ".join(f"{_shown(label)} {n / reading.n_labels:.0%}" for label, n in reading.commonest_labels)
    more = reading.n_distinct_labels - len(reading.commonest_labels)
    return f"{reading.n_distinct_labels:,}: {listed}{f' and {more:,} more' if more > 0 else ''}"


def reading_rows(readings: Sequence[Reading]) -> list[tuple[str, str]]:
    """Return rows of a table that show what was read of the first corpora: sentences and commonest labels."""
    shown = readings[:_MOST_CORPORA]
    rows = [("begins", "\n".join(map(first_sentence, shown)))]
    labels = [text for text in map(commonest_labels, shown) if text]
    return [*rows, ("labels", "\n".join(labels))] if labels else rows


def say_reading(reading: Reading) -> None:
    """Say on standard error what was read of a corpus, in one or two lines, and what is implausible."""
    click.echo(f"{reading.path} begins  {first_sentence(reading)}", err=True)
    if labels := commonest_labels(reading):
        click.echo(f"{reading.path} labels  {labels}", err=True)
    say_warnings(reading.warnings)


def say_warnings(warnings: Iterable[ReadingWarning]) -> None:
    """Say on standard error what is implausible."""
    for warning in warnings:
        click.echo(f"warning: {render.printable(str(warning))}", err=True)


def _shown(text: str) -> str:
    """Return a token or label so that its ends are seen: with quotes if it holds blanks."""
    shown = json.dumps(text, ensure_ascii=False) if " " in text or not text else text
    return render.printable(shown[:_MOST_CHARACTERS])
