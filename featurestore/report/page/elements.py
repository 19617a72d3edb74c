"""Pieces of HTML: escaped text, sentences with a token marked, tables, plots with tables behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Html(str):
    """Text that is HTML already; any other string is escaped before it is put on a page."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return anything as HTML; what a reader of the page would not see or could not show is made visible."""
    if isinstance(value, Html):
        return value
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in str(value)
    )
    return Html(escape(shown))


def tokens(sentence: Sequence[str], position: int | None = None, most: int = 40) -> Html:
    """Return a sentence, each token by itself so that none turns the direction of another's text."""
    first = 0 if position is None else max(0, position - most // 2)
    shown = [
        f"<mark><bdi>{text(token)}</bdi></mark>" if number == position else f"<bdi>{text(token)}</bdi>"
        for number, token in enumerate(sentence[first : first + most], first)
    ]
    before, after = "… " if first else "", " …" if first + most < len(sentence) else ""
    return Html(before + " ".join(shown) + after)


def table(header: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """Return a table; cells of numbers are aligned to the right by their class."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption or "table")}">'
        f"<table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f'<td class="number">{text(figure(value))}</td>' if number else f"<td>{text(value)}</td>"


def figure(value: object) -> str:
    """Return a number for people: 1,234 or 0.0123; a dash for NaN and the infinities."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.4g}"
    return str(value)


def facts(rows: Iterable[tuple[str, object]]) -> Html:
    """Return names with values."""
    listed = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in rows)
    return Html(f"<dl>{listed}</dl>")


class Plot(NamedTuple):
    """A plot: its SVG, what it shows in a sentence, and the table behind it."""

    svg: str
    says: str
    numbers: Html


def unfolded(summary: str, inside: Html) -> Html:
    """Return something that is shown when its summary is chosen."""
    return Html(f"<details><summary>{text(summary)}</summary>{inside}</details>")


def plot(drawn: Plot, name: str) -> Html:
    """Return a plot that a screen reader reads as its sentence, with its numbers to unfold and copy."""
    return Html(
        f'<figure><div role="img" aria-labelledby="{name}-says">{drawn.svg}</div>'
        f'<figcaption id="{name}-says">{text(drawn.says)}</figcaption>'
        f"{unfolded('The numbers', drawn.numbers)}</figure>"
    )


def section(title: str, name: str, *parts: object) -> Html:
    """Return a section of the page."""
    body = "".join(part if isinstance(part, Html) else f"<p>{text(part)}</p>" for part in parts if part)
    return Html(f'<section id="{name}"><h2>{text(title)}</h2>{body}</section>')


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #f2f2f0; --line: #c9c9c4;
  --mark: #ffe08a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e4; --paper: #161616; --soft: #222; --line: #4a4a46; --mark: #6b5410; }
}
* { box-sizing: border-box; }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 60rem; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none; }
a { color: inherit; }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 3px solid #0072b2; }
dl { display: grid; gap: .15rem .5rem; margin: .5rem 0; }
dl div { display: grid; grid-template-columns: 11rem 1fr; gap: 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; color: var(--ink); } figure svg { max-width: 100%; height: auto; }
figcaption { font-size: .95rem; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; } mark { background: var(--mark); color: inherit; padding: 0 .15em; }
.said { background: var(--soft); border-left: 5px solid #0072b2; padding: .6rem 1rem; margin: 1rem 0; }
.bad { border-left-color: #d55e00; } .skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; }
@media (max-width: 40rem) { dl div { grid-template-columns: 1fr; gap: 0; } }
@media print { details { display: none; } }
"""


def document(title: str, sections: Sequence[tuple[str, str, Html]], before: Html) -> str:
    """Return a whole page: it runs no script and asks for nothing, and its policy forbids both."""
    links = "".join(f'<li><a href="#{name}">{text(called)}</a></li>' for called, name, _ in sections)
    body = "".join(html for _, _, html in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the report</a><header><h1>{text(title)}</h1></header>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="main">{before}{body}</main></body></html>\n'
    )
