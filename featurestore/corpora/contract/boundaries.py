"""Where the sentences of a file end that has no blank lines between them.

A file with a word on each line marks the end of a sentence by a blank line; some, such as those made of
digitised newspapers, do not. Then a sentence may end behind a row of sentence-final punctuation, or after a
number of rows, as the caller says. The words alone decide it, never the labels: a corpus has the same
sentences whether its labels are read or not. A span that crosses such a boundary becomes two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featurestore import limits
from featurestore.corpora.contract.example import Example
from featurestore.errors import UsageError

PUNCTUATION, NONE = "punctuation", "none"

_FINAL = re.compile(
    r"[.!?\u2026\u203c\u2047-\u2049\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u06d4\u061f\u0589\u1362\u1367\u104b\u17d4\u17d5]+"
)
"""Full stops, exclamation and question marks, of any script, alone in a row."""

_WITH_FINAL = re.compile(r"[^\W\d_]{4,}[.!?\u2026]+[\"'\u201c\u201d\u00bb\u00ab)\]]*")
"""The same behind a word; shorter ones are rather abbreviations."""

_CLOSING = {")", "]", "}", "-RRB-", "-RSB-", "-RCB-", "''", "\u201d", "\u203a"}
"""What belongs to the sentence that a mark before it ends."""

_OPENED_BY = {
    "\u00bb": "\u00ab",
    "\u00ab": "\u00bb",
    "\u201c": "\u201e",
    "\u2019": "\u2018",
    "\u2018": "\u201a",
}
"""Quotation marks that open in one language and close in another."""

_ALIKE = {'"', "'"}
"""Marks that open and close."""


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Where sentences end, beside the ends that the file itself marks.

    Attributes
    ----------
    punctuation : bool
        Whether behind a row that is nothing but sentence-final punctuation, and the closing quotation marks
        and brackets that follow it; where most such marks stand behind words instead, as in the German and
        Dutch files of Europeana, behind a word of four letters and a mark that no small letter follows.
    most : int or None
        After how many tokens at the latest.
    """

    punctuation: bool
    most: int | None

    def ends(self, tokens: Sequence[str]) -> Iterator[int]:
        """Yield the index behind the last token of each sentence; the last is the number of tokens."""
        n_tokens, begin = len(tokens), 0
        finals = _finals(tokens) if self.punctuation else []
        for final in [*finals, n_tokens - 1]:
            if final < begin:
                continue  # a mark behind another one, which the sentence before took with it
            end = final + 1
            while end < n_tokens and (
                _FINAL.fullmatch(tokens[end]) or _is_closing(tokens[end], tokens[begin:end])
            ):
                end += 1
            while self.most is not None and end - begin > self.most:
                begin += self.most
                yield begin
            yield end
            begin = end

    def parts(self, example: Example, numbers: Sequence[int]) -> Iterator[Example]:
        """Yield the sentences of an example whose tokens stand on the lines of these numbers."""
        tokens, labels, begin = example.tokens, example.labels, 0
        for end in self.ends(tokens):
            part = labels if labels is None or isinstance(labels, str) else tuple(labels[begin:end])
            yield Example(
                tuple(tokens[begin:end]), part, example.path, numbers[begin], example.id, example.document
            )
            begin = end


def _finals(tokens: Sequence[str]) -> list[int]:
    """Return where final marks are: alone in a row or, where most are not, behind a word."""
    alone = [at for at, token in enumerate(tokens) if _FINAL.fullmatch(token)]
    behind = [at for at, token in enumerate(tokens) if _WITH_FINAL.fullmatch(token)]
    if len(behind) <= len(alone):
        return alone  # words with a full stop are abbreviations
    following = [*tokens[1:], ""]
    return sorted([*alone, *(at for at in behind if not following[at][:1].islower())])


def _is_closing(token: str, before: Sequence[str]) -> bool:
    """Return whether a token behind a final mark belongs to the sentence that the tokens before it are."""
    if token in _CLOSING:
        return True
    if token in _ALIKE:
        return sum(other == token for other in before) % 2 == 1
    opening = _OPENED_BY.get(token)
    return opening is not None and before.count(opening) > before.count(token)


def boundaries_of(given: object) -> Boundaries | None:
    """Return where sentences end as the readers take it; None for where the file says.

    Parameters
    ----------
    given : str, int or None
        ``punctuation``, a number of tokens, or both, separated by a comma; or ``none``, nowhere else than
        where the corpus says, or at the end of a document that says nothing.

    Raises
    ------
    UsageError
        If it is something else.
    """
    if given is None:
        return None
    if given == NONE:
        return Boundaries(False, None)
    words = [word.strip() for word in str(given).split(",")] if isinstance(given, (str, int)) else []
    numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
    is_known = len(numbers) + words.count(PUNCTUATION) == len(words) and len(set(words)) == len(words)
    if isinstance(given, bool) or not words or not is_known or len(numbers) > 1:
        raise UsageError(
            f"boundaries is {given!r}: expected {PUNCTUATION}, a number of tokens, or both as in "
            f"{PUNCTUATION},100; or {NONE}"
        )
    most = numbers[0] if numbers else None
    if most is not None and not 1 <= most <= limits.MAX_SENTENCE_TOKENS:
        raise UsageError(
            f"boundaries is {given!r}: a sentence has from 1 to {limits.MAX_SENTENCE_TOKENS:,} tokens"
        )
    return Boundaries(PUNCTUATION in words, most)
