"""Stored sentences that are a missing one but for a space, a quote, case or Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.keys import Sentence
from featurestore.store.store import Store

_QUOTES = {
    **dict.fromkeys("“”„‟«»″〝〞＂", '"'),
    **dict.fromkeys("‘’‚‛`´′‹›＇", "'"),
}
_AS_ONE = str.maketrans(_QUOTES)


def _one_quote(text: str) -> str:
    # Two single signs stand for a double one in the Penn Treebank.
    return text.translate(_AS_ONE).replace("''", '"')


def _unspaced(text: str) -> str:
    return "".join(text.split())


# What a difference is called, and what makes it vanish; in this order, for NFKC takes some quotes apart.
_REASONS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("quotes", _one_quote),
    ("Unicode form", lambda text: unicodedata.normalize("NFKC", text)),
    ("case", str.casefold),
)

_SLACK = 4
"""Bytes by which sentences of one normal form may differ in length, beyond what :func:`_possible` allows."""


class Like(NamedTuple):
    """A stored sentence that is like a missing one, and in what the two differ."""

    tokens: Sentence
    differs_in: tuple[str, ...]


def normal_form(tokens: Sentence) -> str:
    """Return a sentence without what people do not see: kind of quotes, Unicode form, case, spaces."""
    return _unspaced(_without("".join(tokens)))


def _without(text: str, but: str = "") -> str:
    """Return a text with all kinds of differences taken away but the one that ``but`` names."""
    for name, normal in _REASONS:
        if name != but:
            text = normal(text)
    return text


def differs_in(one: Sentence, other: Sentence) -> tuple[str, ...]:
    """Return in what two sentences of the same normal form differ; "tokens": in where they are split."""
    texts = " ".join(one), " ".join(other)
    found = [name for name, _ in _REASONS if len({_unspaced(_without(text, name)) for text in texts}) > 1]
    if not found:  # what two kinds take away, such as a ligature, is of the first of them
        found = [name for name, normal in _REASONS if len(set(map(_unspaced, texts))) > 1
                 and len({_unspaced(normal(text)) for text in texts}) == 1][:1]  # fmt: skip
    if len({_without(text) for text in texts}) > 1 or (not found and tuple(one) != tuple(other)):
        found.append("tokens")
    return tuple(found)


def stored_likes(
    store: Store, missing: Iterable[Sentence], *, most: int = 3
) -> Mapping[Sentence, list[Like]]:
    """Return for each missing sentence the stored ones of the same normal form, ``most`` at most.

    Sentences of the store are compared by their bytes first: a few milliseconds for each missing sentence
    and million stored ones.
    """
    wanted = {tokens: normal_form(tokens) for tokens in missing}
    found: dict[Sentence, list[Like]] = {}
    for shard in range(len(store.manifest.shards)) if wanted else ():
        reader = store.passing(shard)
        text, edges = reader.token_text, reader.token_offsets[reader.offsets].astype(np.int64)
        sizes, firsts, lasts = np.diff(edges), text[edges[:-1]], text[edges[1:] - 1]
        for tokens, form in wanted.items():
            for row in _possible(form, sizes, firsts, lasts).tolist():
                likes = found.setdefault(tokens, [])
                stored = reader.tokens(row)
                if len(likes) < most and normal_form(stored) == form and stored != tokens:
                    likes.append(Like(stored, differs_in(tokens, stored)))
    return {tokens: likes for tokens, likes in found.items() if likes}


def _possible(
    form: str, sizes: NDArray[np.int64], firsts: NDArray[np.uint8], lasts: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the rows whose bytes may be a sentence of a normal form, by their number, first and last."""
    n_bytes = len(form.encode("utf-8", "surrogatepass"))
    # A quote has three bytes at most, and what is not ASCII may be written with three more.
    room = 3 * sum(not character.isascii() or character in "\"'" for character in form) + _SLACK
    possible = (sizes >= n_bytes - room) & (sizes <= n_bytes + room)
    for ends, character in ((firsts, form[:1]), (lasts, form[-1:])):
        if character.isascii() and character.isalnum():
            possible &= (ends == ord(character)) | (ends == ord(character.upper())) | (ends >= 0x80)
    return np.flatnonzero(possible)
