"""Scripts that write no spaces between words, and ICU's dictionaries, which part them.

ICU (International Components for Unicode) has word lists for Chinese and Japanese, Thai, Lao, Khmer and
Burmese. It is the one library that parts all six, comes as a wheel (``icu4py``, the extra ``icu``), and needs
no model. Another version of ICU may part a text in other places: its sentences are then encoded anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from featurestore.corpora.tokenizing import rules
from featurestore.corpora.tokenizing.characters import ZERO_WIDTH_SPACE
from featurestore.errors import UsageError
from featurestore.keys import Sentence

EXTRA = "pip install 'featurestore[icu]'"
"""What brings ICU."""

_MAX_LETTERS = 4
"""Letters that one word may have in a line of an unspaced script: of Chinese words almost none has more."""

# Han, Hiragana and Katakana; Thai, Lao, Burmese, Khmer; then what ICU has no dictionary for: Tai Le, New Tai
# Lue, Tai Tham, Tai Viet, Ahom.
_DICTIONARY = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0edf\u1000-\u1049\u1050-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"
    "\u1780-\u17d3\u17dd"
)
_OTHERS = "\u1950-\u19df\u1a20-\u1aad\uaa80-\uaadf\U00011700-\U0001174f"
_RUN = re.compile(f"[{_DICTIONARY}]+")
_UNPARTED = re.compile(f"[{_DICTIONARY}{_OTHERS}]{{{_MAX_LETTERS + 1}}}")
_UNPARTED_BY_ICU = re.compile(f"[{_OTHERS}]{{{_MAX_LETTERS + 1}}}")
_LETTER = re.compile(f"[{_DICTIONARY}{_OTHERS}]")
# Where these end a sentence, no space follows; before a closing quote they may end only what is quoted.
_SENTENCE_END = re.compile(r"[。！？｡။។៕]+(?![」』”’）》】〉])")


def unparted(text: str, *, by_icu: bool = False) -> str | None:
    """Return a stretch of a text without spaces that no rule can part into words; None if it has none.

    A name of such a script inside a text of another one is left alone: only a text whose letters are mostly
    of such scripts counts.

    Parameters
    ----------
    by_icu : bool
        Whether ICU's dictionaries part the text: then only scripts that it has none for count.
    """
    if text.isascii():
        return None
    found = (_UNPARTED_BY_ICU if by_icu else _UNPARTED).search(text)
    if found is None or 2 * len(_LETTER.findall(text)) <= sum(map(str.isalpha, text)):
        return None
    return text[found.start() : found.start() + 20].split()[0]


def icu_tokens(text: str) -> Sentence:
    """Return the tokens of a text: by rules, and stretches of unspaced scripts parted by ICU.

    Zero-width spaces, which part words in some texts, count as whitespace.

    Raises
    ------
    UsageError
        If ICU is not installed.
    """
    return tuple(_parted(rules.tokenize(text.replace(ZERO_WIDTH_SPACE, " "))))


def icu_sentences(text: str) -> list[Sentence]:
    """Return the sentences of a text as tokens; they also end after the full stops of unspaced scripts.

    Raises
    ------
    UsageError
        If ICU is not installed.
    """
    text = text.replace(ZERO_WIDTH_SPACE, " ")
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [tuple(_parted(sentence)) for part in parts for sentence in rules.split_sentences(part)]


def _parted(tokens: Sentence) -> Iterator[str]:
    for token in tokens:
        if token.isascii() or _RUN.search(token) is None:
            yield token
            continue
        end = 0
        for run in _RUN.finditer(token):
            if run.start() > end:
                yield token[end : run.start()]
            yield from _words(run.group())
            end = run.end()
        if end < len(token):
            yield token[end:]


@lru_cache(maxsize=1 << 14)
def _words(run: str) -> tuple[str, ...]:
    return tuple(_breaker()(run))


@lru_cache(maxsize=1)
def _breaker() -> Callable[[str], Iterator[str]]:
    try:
        from icu4py.breakers import WordBreaker
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "icu4py":
            raise
        raise UsageError(
            "the tokeniser icu needs the package icu4py (Python 3.11 or newer), which is not installed: "
            f"{EXTRA}; "
            "or take --tokenize characters, or bring your own tokens"
        ) from error

    def words(run: str) -> Iterator[str]:
        # Its segments() count in UTF-16 units; iterating gives the words themselves.
        found: Iterator[str] = iter(WordBreaker(run, "en"))
        return found

    return words
