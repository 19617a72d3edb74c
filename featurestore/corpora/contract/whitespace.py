r"""The rule by which a line falls into tokens: ASCII whitespace separates them, and nothing else.

That is space, tab, carriage return, line feed, vertical tab and form feed, so that a no-break space or
another Unicode space inside a token (``10\u00a0000``) stays there.
"""

from __future__ import annotations

import re

from featurestore.keys import Sentence

WHITESPACE = " \t\r\n\v\f"
_TOKEN = re.compile(f"[^{WHITESPACE}]+")


def whitespace_tokens(text: str) -> Sentence:
    """Return the tokens of a text that ASCII whitespace separates, unchanged."""
    return tuple(_TOKEN.findall(text))
