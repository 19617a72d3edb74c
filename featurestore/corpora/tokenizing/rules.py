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
always gives the same tokens. For languages without spaces see
:mod:`featurestore.corpora.tokenizing.unspaced`; to match a treebank exactly, bring your own tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

from featurestore.corpora.tokenizing.characters import combining_marks
from featurestore.keys import Sentence

_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Messrs|Dr|Prof|Sr|Jr|St|Rev|Hon|Gen|Col|Lt|Sgt|Capt|Gov|Sen|Rep|Mt|Inc|Ltd|Co|Corp|Bros|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|vs|etc|cf|approx"
)
_CAPITALS = "[A-ZÀ-ÖØ-ÞΑ-ΩА-Я]"
_CAPITAL = re.compile(_CAPITALS)
_INITIAL = re.compile(rf"{_CAPITALS}\.\s+{_CAPITALS}")
_CLITIC = re.compile(r"(?<=\w)(?:n['’]t|['’](?:s|m|d|ll|re|ve))$", re.IGNORECASE)
_ENDS_SENTENCE = re.compile(r"[.!?…]+")
_CLOSES = frozenset("\"'”’»)]}")
_URL_TAIL = ".,;:!?'\"”’»]}"


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    """Compile the tokens' pattern; made at first use, since it goes through every combining mark."""
    # Python's \w leaves combining marks out, without which decomposed é or Devanagari words would fall apart.
    marks = combining_marks()
    letter = rf"[\w{marks}\u00ad]"
    # Joiners are the apostrophe, the hyphens, and the invisible joiners of Persian and Indic scripts.
    inner = r"(?:[-'’\u2010\u2011\u200c\u200d]|(?<=\d)[.,:/](?=\d))"
    modifiers = rf"[{marks}\U0001F3FB-\U0001F3FF]*"
    # The part before an e-mail's @ is bounded (64, as in RFC 5321) so that no text takes quadratic time.
    return re.compile(
        rf"""
        (?P<url>   (?:https?://|ftp://|www\.) [^\s<>]+ )
      | (?P<email> [\w.+-]{{1,64}} @ [\w-]+ (?:\.[\w-]+)+ )
      | (?P<tag>   (?<!\w) [@\#] {letter}+ )
      | (?P<face>  (?<!\w) [:;] -? (?: [()|\\/] | [DPp](?!\w) ) )
      | (?P<short> (?<!\w) (?:
            (?:[^\W\d_]\.){{2,}} | (?:{_ABBREVIATIONS})\. | (?!I){_CAPITALS}\.(?=\s+{_CAPITALS})
        ) )
      | (?P<word>  {letter}+ (?:{inner}{letter}+)* )
      | (?P<run>   (?P<sign>[.\-*_=~\#]) (?P=sign)+ | [!?]+ )
      | (?P<flag>  [\U0001F1E6-\U0001F1FF]{{2}} )
      | (?P<other> \S {modifiers} (?:\u200d\S{modifiers})* )
        """,
        re.VERBOSE,
    )


class _Pieces(dict[str, tuple[str, ...]]):
    """The tokens of pieces of text without whitespace, the latest remembered: most of a text is few words.

    Parameters
    ----------
    behind : str
        What stands behind each piece, beginning with whitespace; no token reaches beyond that.
    """

    def __init__(self, behind: str) -> None:
        self._behind = behind

    def __missing__(self, piece: str) -> tuple[str, ...]:
        tokens = tuple(_tokens(piece + self._behind, len(piece)))
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        if len(piece) <= _LONGEST_REMEMBERED:
            self[piece] = tokens
        return tokens


_MOST_REMEMBERED, _LONGEST_REMEMBERED = 1 << 15, 64
# Only the pattern of an initial looks beyond a piece: at whether a capital follows.
_alone, _before_capital = _Pieces(""), _Pieces(" A")


def _pieces(text: str) -> Iterable[tuple[str, ...]]:
    """Return the tokens of a text, apart wherever whitespace is."""
    pieces = text.split()
    if _INITIAL.search(text) is None:
        return map(_alone.__getitem__, pieces)
    return [
        (_before_capital if _CAPITAL.match(following) else _alone)[piece]
        for piece, following in zip(pieces, [*pieces[1:], ""], strict=True)
    ]


def _tokens(text: str, end: int) -> Iterator[str]:
    """Yield the tokens that begin before an index, which may look at what is behind it."""
    pattern = _pattern()
    start = 0
    while start < end and (match := pattern.search(text, start)):
        token, kind = match.group(), match.lastgroup
        if kind == "url":
            token = _without_tail(token)
        start = match.start() + len(token)
        if kind == "word":
            yield from _split_contraction(token)
        else:
            yield token


def _ends_sentence(piece: tuple[str, ...]) -> bool:
    """Return whether a piece's last token ends a sentence, closing quotes and brackets behind it left out."""
    first, *others = piece
    last = next((token for token in reversed(others) if token not in _CLOSES), first)
    return _ENDS_SENTENCE.fullmatch(last) is not None


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
    return tuple(chain.from_iterable(_pieces(text)))


def split_sentences(text: str) -> list[Sentence]:
    """Split a raw text into sentences and tokenise them.

    A sentence ends after a token of ``. ! ? …`` and the closing quotes and brackets that touch it, if
    whitespace and something else than a lower-case letter follow. A point that belongs to an abbreviation
    ends no sentence.
    """
    sentences: list[Sentence] = []
    tokens: list[str] = []
    ended = False
    for piece in _pieces(text):
        if ended and not piece[0][0].islower():
            sentences.append(tuple(tokens))
            tokens = []
        tokens += piece
        # Most pieces are words, which is quickly seen.
        ended = not piece[-1][-1].isalnum() and _ends_sentence(piece)
    if tokens:
        sentences.append(tuple(tokens))
    return sentences
