"""Finding the sentence that a command line means: by text, by JSON tokens, by the first digits of its key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from featurestore.cli.display import render
from featurestore.errors import MissingSentence, MissingSentencesError, UsageError

if TYPE_CHECKING:
    from featurestore.keys import Sentence
    from featurestore.store.store import Store

_MOST_COMPARED = 50_000
"""Sentences compared when a text is not found."""

_MOST_COPIES = 10
"""Sentences of the same tokens that are listed at most."""


def parse_sentence(text: str, as_tokens: bool) -> Sentence:
    """Return the sentence of a text, split as a line of a text corpus, or of a JSON list of tokens."""
    from featurestore.corpora.contract.whitespace import whitespace_tokens
    from featurestore.keys import require_sentence

    if not as_tokens:
        return require_sentence(whitespace_tokens(text))
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
    """Return the shard and row of a sentence; where it is missing, the error names what is like it.

    In a store whose vectors depend on more than the tokens, the one sentence with these tokens is found
    whatever its condition.
    """
    from featurestore.keys import sentence_key

    key = sentence_key(sentence)
    locations = store.locate([key])
    if not locations.found[0]:
        copies = conditioned_copies(store, sentence)
        if len(copies) == 1:
            return copies[0].shard, copies[0].row
        if copies:
            raise UsageError(
                f"{store.path} has {' '.join(sentence)!r} in {len(copies)} contexts: name one by --key"
                + "".join(f"\n  {line}" for line in listed_copies(copies))
            )
        near = "".join(f"\n  like it: {spelled(tokens)}" for tokens in near_sentences(store, sentence))
        raise MissingSentencesError(
            f"{' '.join(sentence)!r} ({len(sentence)} tokens) is not in {store.path}{near}\n"
            f"List the sentences: featurestore ls {store.path} --contains TEXT",
            sentences=[MissingSentence(sentence, key)],
            n_missing=1,
            n_wanted=1,
            store=store.path,
        )
    shard, row = int(locations.shard[0]), int(locations.row[0])
    store.reader_of(shard, row, key)
    return shard, row


class Copy(NamedTuple):
    """A stored sentence that has a condition: its place, its key, and the condition."""

    shard: int
    row: int
    key: bytes
    condition: bytes


def conditioned_copies(store: Store, sentence: Sentence) -> list[Copy]:
    """Return every stored sentence that has these tokens and a condition.

    Empty, without looking, where the recipe depends on the tokens alone.
    """
    import numpy as np

    from featurestore.keys import token_bytes
    from featurestore.store.missing import depends_on

    if not depends_on(store.recipe):
        return []
    tokens, copies = token_bytes(sentence), []
    for shard in range(len(store.manifest.shards)):
        reader = store.reader(shard)
        for row in np.flatnonzero(np.diff(reader.offsets) == len(tokens)).tolist():
            if reader.same_tokens(row, tokens) and reader.condition(row):
                copies.append(Copy(shard, row, reader.key(row), reader.condition(row)))
    return copies


def listed_copies(copies: Sequence[Copy]) -> list[str]:
    """Return a line for each of the first few: the key and what is special about the sentence."""
    lines = [f"{copy.key.hex()}  {shown_condition(copy.condition)}" for copy in copies[:_MOST_COPIES]]
    return [*lines, "..."] if len(copies) > _MOST_COPIES else lines


def condition_text(condition: bytes) -> str | None:
    """Return a condition as text, None if there is none. It should be JSON, and may be any bytes."""
    return condition.decode("utf-8", "replace") if condition else None


def shown_condition(condition: bytes, most: int = 100) -> str:
    """Return a condition as one line of at most ``most`` characters for people, empty if there is none."""
    text = condition_text(condition[: 8 * most]) or ""
    shown = render.printable(text)
    return shown if len(shown) <= most else shown[: most - 4] + " ..."


def find_key(store: Store, digits: str) -> tuple[int, int]:
    """Return the shard and row of the one sentence whose key begins with these hexadecimal digits."""
    digits = digits.lower()
    if not 4 <= len(digits) <= 32 or any(digit not in "0123456789abcdef" for digit in digits):
        raise UsageError(f"--key wants 4 to 32 hexadecimal digits, found {digits!r}")
    found = [
        (shard, row)
        for shard, row in store.with_prefix(digits)
        if store.reader(shard).key(row).hex().startswith(digits)
    ]
    if not found:
        raise MissingSentencesError(
            f"no sentence of {store.path} has a key that starts with {digits}",
            n_missing=1,
            n_wanted=1,
            store=store.path,
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} keys start with {digits}: give more digits")
    return found[0]


def near_sentences(store: Store, sentence: Sentence) -> list[Sentence]:
    """Return a few stored sentences with the same text but other tokens or another case: the usual reasons.

    Only the first 50,000 sentences are compared: on a large store an answer now is worth more than all.
    """
    from itertools import islice

    wanted = _squeezed(sentence)
    compared = islice(store.sentences(), _MOST_COMPARED)
    near = (tokens for _, _, tokens in compared if _squeezed(tokens) == wanted)
    return list(islice(near, 3))


def spelled(tokens: Sentence) -> str:
    """Return a sentence as its text, or as ``--tokens`` takes it if its text would not show its tokens.

    What it depends on beside the tokens follows.
    """
    from featurestore.corpora.contract.whitespace import whitespace_tokens
    from featurestore.keys import condition_of

    text, condition = " ".join(tokens), shown_condition(condition_of(tokens))
    is_plain = text.isprintable() and list(whitespace_tokens(text)) == list(tokens)
    plain = text if is_plain else json.dumps(tokens)
    return f"{plain}  with {condition}" if condition else plain


def _squeezed(tokens: Sentence) -> str:
    return "".join("".join(tokens).split()).casefold()
