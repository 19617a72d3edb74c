"""Finding the sentence that a command line means: by text, by JSON tokens, by the first digits of its key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from featurestore.cli import render
from featurestore.errors import MissingSentencesError, UsageError

if TYPE_CHECKING:
    from featurestore.keys import Sentence
    from featurestore.store.store import Store

_LOOK_AT = 50_000
"""Sentences compared when a text is not found."""


def parse_sentence(text: str, as_tokens: bool) -> Sentence:
    """Return the sentence of a text split at spaces, or of a JSON list of tokens."""
    from featurestore.keys import require_sentence

    if not as_tokens:
        return require_sentence(text.split())
    try:
        tokens = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f'--tokens wants a JSON list such as ["a", "b"], found {text[:60]!r}: {error}'
        ) from error
    if not isinstance(tokens, list):
        raise UsageError(f'--tokens wants a JSON list such as ["a", "b"], found a {type(tokens).__name__}')
    return require_sentence(tokens)


def find_sentence(store: Store, sentence: Sentence) -> tuple[int, int]:
    """Return the shard and row of a sentence; where it is missing, the error names what is like it."""
    from featurestore.keys import sentence_key

    key = sentence_key(sentence)
    locations = store.locate([key])
    if not locations.found[0]:
        near = "".join(f"\n  like it: {spelled(tokens)}" for tokens in near_sentences(store, sentence))
        raise MissingSentencesError(
            f"{' '.join(sentence)!r} ({len(sentence)} tokens) is not in {store.path}{near}\n"
            f"List what is there: featurestore ls {store.path} --contains TEXT"
        )
    shard, row = int(locations.shard[0]), int(locations.row[0])
    store.reader_of(shard, row, key)
    return shard, row


def find_key(store: Store, digits: str) -> tuple[int, int]:
    """Return the shard and row of the one sentence whose key begins with these hexadecimal digits."""
    digits = digits.lower()
    if not 4 <= len(digits) <= 32 or any(digit not in "0123456789abcdef" for digit in digits):
        raise UsageError(f"--key wants 4 to 32 hexadecimal digits, found {digits!r}")
    found = [
        (shard, row)
        for shard, row in store.index.with_prefix(digits)
        if store.reader(shard).key(row).hex().startswith(digits)
    ]
    if not found:
        raise MissingSentencesError(f"no sentence of {store.path} has a key that starts with {digits}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} keys start with {digits}: give more digits")
    return found[0]


def near_sentences(store: Store, sentence: Sentence) -> list[Sentence]:
    """Return a few stored sentences with the same text but other tokens or another case: the usual reasons.

    Looks at the first so many sentences only: on a large store an answer is worth more than a complete one.
    """
    from itertools import islice

    wanted = _squeezed(sentence)
    looked_at = islice(store.sentences(), _LOOK_AT)
    near = (tokens for _, _, tokens in looked_at if _squeezed(tokens) == wanted)
    return list(islice(near, 3))


def spelled(tokens: Sentence) -> str:
    """Return a sentence as its text, or as ``--tokens`` takes it if its text would not show its tokens."""
    text = " ".join(tokens)
    return render.printable(text) if tuple(text.split()) == tokens else json.dumps(tokens)


def _squeezed(tokens: Sentence) -> str:
    return "".join("".join(tokens).split()).casefold()
