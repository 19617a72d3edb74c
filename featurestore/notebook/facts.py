"""How things look in a notebook: names with values, as a small table of HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def facts_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a titled table of names and values; every text is escaped."""
    body = "".join(
        f'<tr><th style="text-align:left">{_shown(name)}</th>'
        f'<td style="text-align:left">{_shown(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table><caption>{_shown(title)}</caption><tbody>{body}</tbody></table>"


def framed(page: str, title: str) -> str:
    """Return a whole page in a frame of its own, in which nothing runs and whose style stays inside."""
    return (
        f'<iframe title="{escape(title)}" sandbox="" style="width:100%;height:40rem;border:1px solid #999" '
        f'srcdoc="{escape(page)}"></iframe>'
    )


def _shown(value: object) -> str:
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))
