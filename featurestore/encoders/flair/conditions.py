"""What besides its tokens decides the vectors of a Flair sentence, as bytes and back.

Flair keeps it all over its :class:`~flair.data.Sentence`: links to the sentences before and after, a document
boundary, a language, the spaces after each token. The part that an embedding looks at, its
:class:`Dependence`, becomes the sentence's *condition* (see :mod:`featurestore.keys`): canonical JSON of what
differs from the default. Defaults are no context, the language that is guessed from the tokens, and one blank
between tokens.

From tokens and condition :func:`flair_sentence` makes a sentence in which an embedding finds exactly that and
nothing else: its neighbours are private ones that hold the context, so neither the batch nor the caller's
sentences can become context, and no link is left on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flair.data import Sentence as FlairSentence

from featurestore.encoders.flair.languages import guess_language
from featurestore.errors import SentenceError, UsageError
from featurestore.keys import Sentence, condition_of, sentence_with
from featurestore.recipe import Recipe, canonical_json


@dataclass(frozen=True)
class Dependence:
    """What an embedding reads besides the tokens.

    Attributes
    ----------
    context : int
        Tokens it reads to each side of the sentence; 0 for none.
    document_boundaries : bool
        Context ends where a document does.
    language : bool
    whitespace : bool
        The number of blanks after each token.
    """

    context: int = 0
    document_boundaries: bool = False
    language: bool = False
    whitespace: bool = False

    def __bool__(self) -> bool:
        return self.context > 0 or self.language or self.whitespace

    @classmethod
    def of(cls, recipe: Recipe) -> Dependence:
        """Return what the vectors of a recipe depend on: on tokens alone unless it has ``depends_on``.

        Raises
        ------
        UsageError
            If they depend on something that no Flair sentence tells.
        """
        stated = recipe.get("depends_on", {})
        defaults = asdict(cls())
        sound = isinstance(stated, dict) and all(
            type(value) is type(defaults.get(name)) for name, value in stated.items()
        )
        if not sound:
            raise UsageError(
                f"the recipe of kind {recipe['kind']!r} depends on {stated!r}: expected some of "
                f"{', '.join(defaults)}, which a Flair sentence can tell"
            )
        return cls(**stated)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe's field ``depends_on``: what is set."""
        return {name: value for name, value in asdict(self).items() if value}


class TokensOnly(tuple[str, ...]):
    """The tokens of a Flair sentence, read without saying whether its vectors depend on anything else.

    A plain sentence in everything but this: an encoder whose vectors depend on context refuses it, because
    the context was left out by oversight.
    """

    __slots__ = ()


def condition_bytes(sentence: FlairSentence, dependence: Dependence) -> bytes:
    """Return what besides its tokens decides a sentence's vectors; changes nothing on it.

    Parameters
    ----------
    sentence : flair.data.Sentence
        Its context are the tokens that Flair itself would take: from the sentences it is linked to, or that
        lie beside it in its data set. Without either there is none; Flair would take whatever shares its
        batch.
    dependence : Dependence

    Returns
    -------
    bytes
        Empty where nothing differs from the default.
    """
    condition: dict[str, Any] = {}
    if dependence.context > 0:
        for side, tokens in (("left", sentence.left_context), ("right", sentence.right_context)):
            context = [token.text for token in tokens(dependence.context, dependence.document_boundaries)]
            if context:
                condition[side] = context
    if dependence.language:
        language = sentence.language_code
        if language is not None and language != guess_language([token.text for token in sentence.tokens]):
            condition["language"] = language
    if dependence.whitespace:
        # What follows the last token is stripped before the text is read.
        blanks = [int(token.whitespace_after) for token in sentence.tokens[:-1]]
        if any(n != 1 for n in blanks):
            condition["whitespace"] = blanks
    return canonical_json(condition) if condition else b""


def conditioned(sentence: FlairSentence, dependence: Dependence) -> Sentence:
    """Return a Flair sentence as one of ours: its tokens, and what else decides its vectors."""
    tokens = (token.text for token in sentence.tokens)
    return sentence_with(tokens, condition_bytes(sentence, dependence) if dependence else b"")


def flair_sentence(sentence: Sentence) -> FlairSentence:
    """Return a new Flair sentence with these tokens, in which an embedding finds what the condition says.

    Raises
    ------
    SentenceError
        If Flair would drop a token, or the condition is not one that :func:`condition_bytes` makes.
    """
    condition = _parsed(condition_of(sentence))
    private = _PrivateSentence(sentence, condition.get("language"))
    private._previous_sentence = _neighbour(condition.get("left"))
    private._next_sentence = _neighbour(condition.get("right"))
    blanks = condition.get("whitespace")
    if blanks is not None:
        if len(blanks) != len(sentence) - 1:
            raise SentenceError(
                f"a condition with {len(blanks):,} numbers of blanks does not fit a sentence of "
                f"{len(sentence):,} tokens, which needs one less than tokens: make it with condition_bytes"
            )
        for token, n in zip(private.tokens, blanks, strict=False):
            token.whitespace_after = n
    return private


class _PrivateSentence(FlairSentence):  # type: ignore[misc]
    """A sentence of our own: never linked to the batch it is in, its language the same every time."""

    language_code: str | None

    def __init__(self, tokens: Sequence[str], language: str | None) -> None:
        super().__init__(list(tokens), language_code=language)
        if [token.text for token in self.tokens] != list(tokens):
            raise SentenceError(
                f"Flair makes {len(self.tokens):,} tokens of {len(tokens):,} (starting with "
                f"{list(tokens[:5])!r}): drop empty tokens together with their labels"
            )
        # One blank each, also where Flair finds a token of blanks in the joined text one place too early.
        for token in self.tokens[:-1]:
            token.whitespace_after = 1
        # A sentence without context counts as unset, and would get its neighbours in the batch.
        self._has_context = True

    def get_language_code(self) -> str:
        """Return the language given or guessed."""
        if self.language_code is None:
            self.language_code = guess_language([token.text for token in self.tokens])
        return str(self.language_code)


def _neighbour(tokens: Sequence[str] | None) -> FlairSentence | None:
    return _PrivateSentence(tokens, None) if tokens else None


def _parsed(condition: bytes) -> Mapping[str, Any]:
    """Return the fields of a condition, checked: it may come from a file.

    Raises
    ------
    SentenceError
    """
    if not condition:
        return {}
    try:
        fields = json.loads(condition)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not fields or not all(map(_is_sound, fields, fields.values())):
        raise SentenceError(
            f"not the condition of a Flair sentence: {condition[:60]!r}; expected JSON with some of left, "
            "right, language and whitespace, as condition_bytes makes it"
        )
    return fields


def _is_sound(name: str, value: Any) -> bool:
    if name in ("left", "right"):
        return isinstance(value, list) and bool(value) and all(isinstance(t, str) and t for t in value)
    if name == "language":
        return isinstance(value, str)
    return name == "whitespace" and isinstance(value, list) and all(type(n) is int for n in value)
