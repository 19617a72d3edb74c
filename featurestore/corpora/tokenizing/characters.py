r"""One token per character, for proteins and for scripts that write no spaces between words.

A character is what a reader sees as one: a base with its combining marks, an emoji sequence, a flag, a
Hangul syllable written as jamo (close to the extended grapheme clusters of Unicode's UAX #29, without its
prepended marks). Whitespace and the zero-width space are dropped; nothing else is changed or lost.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from featurestore.keys import Sentence

ZERO_WIDTH_SPACE = "\u200b"
"""Stands between words in some Khmer, Burmese and Thai texts; Python does not count it as whitespace."""

_BETWEEN = re.compile(rf"[\s{ZERO_WIDTH_SPACE}]+")


def character_tokens(text: str) -> Sentence:
    """Return the characters of a text, whitespace left out."""
    if text.isascii():
        return tuple("".join(text.split()))
    return tuple(_pattern().findall(_BETWEEN.sub("\n", text)))


@lru_cache(maxsize=1)
def combining_marks() -> str:
    """Return every combining mark of the scripts below U+1E000, for a regular expression's class."""
    return "".join(chr(c) for c in range(0x300, 0x1E000) if unicodedata.category(chr(c))[0] == "M")


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    # The vowels am of Thai and Lao count as letters, but extend the character before them.
    extending = rf"[{combining_marks()}\u0e33\u0eb3\u200c\U0001F3FB-\U0001F3FF\U000E0020-\U000E007F]*"
    return re.compile(
        rf"""
        [\U0001F1E6-\U0001F1FF]{{2}} {extending}
      | [\u1100-\u115f\ua960-\ua97c]+ [\u1160-\u11a7\ud7b0-\ud7c6]* [\u11a8-\u11ff\ud7cb-\ud7fb]* {extending}
      | \S {extending} (?:\u200d\S{extending})*
        """,
        re.VERBOSE,
    )
