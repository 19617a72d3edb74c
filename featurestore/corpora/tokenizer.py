"""A small rule tokeniser for raw text in languages that write spaces between words.

What becomes one token:

- URLs (``https://x.org/a``), e-mail addresses, ``@names`` and ``#tags``;
- numbers with inner ``. , : /`` and the letters that touch them (``1,000.50``, ``10:30``, ``60cm``);
- abbreviations: letters each with a point (``U.S.``, ``e.g.``), a short English list (``Mr.``, ``etc.``), and
  a single capital letter with a point before a capital (``J. Smith``), except ``I.``;
- words, with inner hyphens, apostrophes and combining marks (``well-known``, ``O'Brien``);
- runs of one repeated sign (``...``, ``--``), runs of ``!`` and ``?``, simple emoticons, joined emoji;
- every other sign by itself.

English contractions are split as in the Penn Treebank: ``do n't``, ``it 's``, ``we 'll``, ``can not``.
No character is changed or lost: the tokens put together are the text without its whitespace. The same text
always gives the same tokens. For languages without spaces, or to match a treebank exactly, bring your own
tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from featurestore.keys import Sentence

_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Messrs|Dr|Prof|Sr|Jr|St|Rev|Hon|Gen|Col|Lt|Sgt|Capt|Gov|Sen|Rep|Mt|Inc|Ltd|Co|Corp|Bros|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|vs|etc|cf|approx"
)
_CLITIC = re.compile(r"(?<=\w)(?:n['’]t|['’](?:s|m|d|ll|re|ve))$", re.IGNORECASE)
_ENDS_SENTENCE = re.compile(r"[.!?…]+")
_CLOSES = frozenset("\"'”’»)]}")
_URL_TAIL = ".,;:!?'\"”’»]}"


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    """Compile the tokens' pattern; made at first use, since it looks at every combining mark."""
    # Python's \w leaves combining marks out, without which decomposed é or Devanagari words would fall apart.
    marks = "".join(chr(c) for c in range(0x300, 0x1E000) if unicodedata.category(chr(c))[0] == "M")
    letter = rf"[\w{marks}\u00ad]"
    # Joiners are the apostrophe, the hyphens, and the invisible joiners of Persian and Indic scripts.
    inner = r"(?:[-'’\u2010\u2011\u200c\u200d]|(?<=\d)[.,:/](?=\d))"
    capital = "[A-ZÀ-ÖØ-ÞΑ-ΩА-Я]"
    modifiers = rf"[{marks}\U0001F3FB-\U0001F3FF]*"
    # The part before an e-mail's @ is bounded (64, as in RFC 5321) so that no text takes quadratic time.
    return re.compile(
        rf"""
        (?P<url>   (?:https?://|ftp://|www\.) [^\s<>]+ )
      | (?P<email> [\w.+-]{{1,64}} @ [\w-]+ (?:\.[\w-]+)+ )
      | (?P<tag>   (?<!\w) [@\#] {letter}+ )
      | (?P<face>  (?<!\w) [:;] -? (?: [()|\\/] | [DPp](?!\w) ) )
      | (?P<short> (?<!\w) (?:
            (?:[^\W\d_]\.){{2,}} | (?:{_ABBREVIATIONS})\. | (?!I){capital}\.(?=\s+{capital})
        ) )
      | (?P<word>  {letter}+ (?:{inner}{letter}+)* )
      | (?P<run>   (?P<sign>[.\-*_=~\#]) (?P=sign)+ | [!?]+ )
      | (?P<flag>  [\U0001F1E6-\U0001F1FF]{{2}} )
      | (?P<other> \S {modifiers} (?:\u200d\S{modifiers})* )
        """,
        re.VERBOSE,
    )


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the tokens, each with whether whitespace (or the start of the text) stands before it."""
    pattern = _pattern()
    end = 0
    spaced = True
    while match := pattern.search(text, end):
        token, kind = match.group(), match.lastgroup
        spaced = spaced or match.start() > end
        if kind == "url":
            token = _without_tail(token)
        end = match.start() + len(token)
        for part in _split_contraction(token) if kind == "word" else (token,):
            yield part, spaced
            spaced = False


def _without_tail(url: str) -> str:
    """Return a URL without the punctuation of the sentence around it."""
    while url[-1] in _URL_TAIL or (url[-1] == ")" and url.count(")") > url.count("(")):
        url = url[:-1]
    return url


def _split_contraction(word: str) -> list[str]:
    if word.lower() == "cannot":
        return [word[:3], word[3:]]
    clitics: list[str] = []
    end = len(word)
    # No clitic has more than three characters; searching all of a long word again and again would be slow.
    while match := _CLITIC.search(word, max(0, end - 3), end):
        clitics.append(match.group())
        end = match.start()
    return [word[:end], *reversed(clitics)]


def tokenize(text: str) -> Sentence:
    """Return the tokens of a raw text, by the rules of this module; none for a text without any."""
    return tuple([token for token, _ in _tokens(text)])


def split_sentences(text: str) -> list[Sentence]:
    """Split a raw text into sentences and tokenise them.

    A sentence ends after a token of ``. ! ? …`` and the closing quotes and brackets that touch it, if
    whitespace and something else than a lower-case letter follow. A point that belongs to an abbreviation
    ends no sentence.
    """
    sentences: list[Sentence] = []
    tokens: list[str] = []
    ended = False
    for token, spaced in _tokens(text):
        if ended and spaced and not token[0].islower():
            sentences.append(tuple(tokens))
            tokens = []
        if spaced or token not in _CLOSES:
            ended = _ENDS_SENTENCE.fullmatch(token) is not None
        tokens.append(token)
    if tokens:
        sentences.append(tuple(tokens))
    return sentences
