"""Marks that were read as words: tags glued to words, lines of markup, a sign before each sentence.

A reader takes them for what they may be, words; whoever looks at many sentences sees what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from featurestore.keys import Sentence

_LEAST_SENTENCES, _LEAST_TOKENS = 5, 20
"""Fewer say nothing."""

_TAGGED_SHARE = 0.98
_MOST_TAGS = 1 / 3
"""Share of the tokens that may have tags of their own."""

_MARKUP_SHARE = 0.02


def marks(sentences: Sequence[Sentence]) -> Iterator[tuple[str, int, str]]:
    """Yield what the sentences of a corpus, or its first ones, hold that is no text.

    Parameters
    ----------
    sentences : sequence of tuple of str

    Yields
    ------
    kind : str
        ``tagged-words``, ``markup`` or ``same-beginning``.
    count : int
        Tokens or sentences it is about.
    message : str
    """
    tokens = list(chain.from_iterable(sentences))
    if len(tokens) >= _LEAST_TOKENS:
        for sign in "/_|":
            parts = [token.rpartition(sign) for token in tokens]
            tags = [tag for word, _, tag in parts if word and tag]
            if len(tags) >= _TAGGED_SHARE * len(tokens) and len(set(tags)) <= _MOST_TAGS * len(tags):
                yield (
                    "tagged-words",
                    len(tags),
                    f"{len(tags):,} of the first {len(tokens):,} tokens end in {sign!r} and one of "
                    f"{len(set(tags)):,} tags, as in {tokens[0]!r:.40}: the tags are read as part of the "
                    "words; write word and tag into two columns (--format conll)",
                )
                break
    markup = [s for s in sentences if s[0][0] == "<" and s[-1][-1] == ">"]
    if len(markup) >= max(1, _MARKUP_SHARE * len(sentences)):
        yield (
            "markup",
            len(markup),
            f"{len(markup):,} of the first {len(sentences):,} sentences are between angle brackets, as "
            f"{' '.join(markup[0])!r:.60}: markup is read as words; take it out first",
        )
    if len(sentences) >= _LEAST_SENTENCES and len({s[0] for s in sentences}) == 1:
        first = sentences[0][0]
        if not any(map(str.isalnum, first)):
            yield (
                "same-beginning",
                len(sentences),
                f"all of the first {len(sentences):,} sentences begin with {first!r:.40}, which is read as a "
                "word: if it begins a comment or marks a sentence, take it out first",
            )
