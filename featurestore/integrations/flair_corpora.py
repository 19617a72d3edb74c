"""Flair's corpora as input of an extraction: the very sentences that a Flair model trains on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flair.data

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus
from featurestore.encoders.flair.conditions import Dependence, TokensOnly, conditioned
from featurestore.encoders.loading import encoder_recipe
from featurestore.errors import CorpusChangedError, CorpusError, SentenceError, UsageError
from featurestore.integrations.flair_labels import LabelReader
from featurestore.keys import sentence_key
from featurestore.recipe import Recipe

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """Some of a corpus's sentences.

    Attributes
    ----------
    name : str
        What messages call it.
    sentences : sequence of flair.data.Sentence
        A list or a Flair dataset; one that is lazy makes a sentence whenever it is asked for it.
    """

    name: str
    sentences: Any

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield each sentence with its place."""
        for number in range(len(self.sentences)):
            place = f"{self.name}, sentence {number + 1}"
            sentence = self.sentences[number]
            # A lazy dataset gives None for a line without text.
            if sentence is not None and not isinstance(sentence, flair.data.Sentence):
                raise CorpusError(
                    f"the sentence is a {type(sentence).__name__}, expected a Sentence: give the sentences "
                    "that the model embeds, as a list",
                    path=place,
                )
            yield place, sentence


@dataclass(frozen=True, slots=True)
class FlairExample(Example):
    """An example made from a Flair sentence, with the place of that sentence.

    Attributes
    ----------
    origin : str
        The corpus, the split and the number of the sentence in it, from 1.
    """

    origin: str = ""

    @property
    def place(self) -> str:
        """The origin, for messages."""
        return self.origin


class FlairCorpus(Corpus):
    """The sentences of a Flair corpus; made by :func:`from_flair`.

    Nothing of it is held here: every pass asks Flair again. Sentences without tokens, on which Flair's
    training fails and which its ``predict`` leaves out, are skipped; the first pass says how many.
    """

    format = "flair"

    def __init__(
        self, name: str, splits: Sequence[Split], label_type: str | None, depends: Dependence | None
    ) -> None:
        self.path = name
        self._splits, self._depends = tuple(splits), depends
        self._labels = None if label_type is None else LabelReader.of(self._all_sentences(), label_type, name)
        self._first_digest: bytes | None = None
        self._latest_digest: bytes | None = None

    def _all_sentences(self) -> Iterator[tuple[str, Any]]:
        for split in self._splits:
            for place, sentence in split:
                if sentence is not None and len(sentence):
                    yield place, sentence

    def __iter__(self) -> Iterator[Example]:
        digest = hashlib.blake2b(digest_size=16)
        depends = self._depends or Dependence()
        n_examples = n_alone = 0
        for place, sentence in self._all_sentences():
            try:
                tokens = conditioned(sentence, depends)
                if self._depends is None:
                    tokens = TokensOnly(tokens)
                digest.update(sentence_key(tokens))
            except SentenceError as error:
                raise CorpusError(str(error), path=place) from error
            n_alone += depends.context > 0 and not sentence.is_context_set()
            n_examples += 1
            labels = None if self._labels is None else self._labels.of_sentence(sentence, place)
            yield FlairExample(tokens, labels, origin=place)
        self._latest_digest = digest.digest()
        if self._first_digest is None:
            self._first_digest = self._latest_digest
            self._warn(n_examples, n_alone)

    def _warn(self, n_examples: int, n_alone: int) -> None:
        n_empty = sum(len(split.sentences) for split in self._splits) - n_examples
        if n_empty:
            logger.warning(
                "%s: %s sentences without tokens are left out; training on them fails unless you call "
                "corpus.filter_empty_sentences()",
                self.path,
                f"{n_empty:,}",
            )
        if n_alone and n_examples > 1:
            logger.warning(
                "%s: the vectors depend on neighbouring sentences, but %s of %s sentences are linked to none "
                "and are taken as standing alone. Flair's predict and its evaluation in training link such "
                "sentences to whatever is in the same batch, and would then ask for other vectors: call "
                "set_context(corpus) before extraction and training",
                self.path,
                f"{n_alone:,}",
                f"{n_examples:,}",
            )

    def check_unchanged(self) -> None:
        """Compare the sentences of the latest complete pass with those of the first.

        Raises
        ------
        CorpusChangedError
            If tokens, or something else that vectors depend on, are not the same.
        """
        if self._latest_digest != self._first_digest:
            raise CorpusChangedError(
                "the sentences, or what they depend on, changed between two passes over them: leave the "
                "corpus alone while it is read, and run again",
                path=self.path,
            )

    @property
    def bytes_read(self) -> int:
        """Always 0: Flair does not tell."""
        return 0

    @property
    def n_bytes(self) -> None:
        """Not known."""
        return None


def from_flair(
    corpus: Any,
    *,
    splits: Sequence[str] = SPLITS,
    label_type: str | None = None,
    encoder_or_dependence: Any = None,
) -> FlairCorpus:
    """Return the sentences of a Flair corpus, as :func:`featurestore.extract` takes them.

    They have the tokens that Flair will train on, whatever tokeniser, truncation or filter made them, and,
    if the encoder looks further than the tokens, the context, language or spaces that it would see::

        encoder = FlairEncoder(embedding)
        extract(from_flair(corpus, encoder_or_dependence=encoder), encoder, "STORE")

    Parameters
    ----------
    corpus : flair.data.Corpus, Flair dataset, or list of flair.data.Sentence
        Read as often as the result is iterated; a lazy one is streamed.
    splits : sequence of str
        Of a corpus; those it does not have are left out.
    label_type : str, optional
        Read these labels: one per sentence; one per token, ``O`` where there is none; or, where Flair has
        spans, one per token in the BIO scheme. Extraction needs none.
    encoder_or_dependence : Encoder or str, Store, Recipe, embedding of ours, or Dependence, optional
        What the vectors depend on beside the tokens. If it is left out sentences are their tokens, and an
        encoder that looks further refuses them; ``Dependence()`` says that nothing else shall matter.

    Returns
    -------
    FlairCorpus

    Raises
    ------
    UsageError
        If it is not one of these, or has none of the splits.
    CorpusError
        When it is read: if something in it is no sentence, or no sentence that can be stored.
    LabelError
        If nothing has such labels; when it is read, if a sentence has several where there can be one.
    """
    name = str(getattr(corpus, "name", "") or type(corpus).__name__)
    parts = [Split(f"{name} {split}".strip(), data) for split, data in splits_of(corpus, splits).items()]
    return FlairCorpus(name, parts, label_type, _dependence(encoder_or_dependence))


def splits_of(corpus: Any, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """Return the datasets of a Flair corpus by the names of its splits; one under no name if it is a dataset.

    Raises
    ------
    UsageError
        See :func:`from_flair`.
    """
    if isinstance(corpus, flair.data.Corpus):
        names = (splits,) if isinstance(splits, str) else tuple(splits)
        unknown = [name for name in names if name not in SPLITS]
        if unknown or not names:
            raise UsageError(f"splits are some of {', '.join(SPLITS)}; found {', '.join(unknown) or 'none'}")
        found = {name: getattr(corpus, name) for name in names if getattr(corpus, name) is not None}
        if not found:
            raise UsageError(f"the corpus {corpus.name!r} has no split {' or '.join(names)}")
        return found
    if isinstance(corpus, (flair.data.DataPoint, str)) or not (
        hasattr(corpus, "__getitem__") and hasattr(corpus, "__len__")
    ):
        raise UsageError(
            f"from a {type(corpus).__name__} no sentences can be read: expected a Flair corpus, one of its "
            "datasets, or a list of Sentences"
        )
    return {"": corpus}


def _dependence(given: Any) -> Dependence | None:
    if given is None or isinstance(given, Dependence):
        return given
    if isinstance(given, str):
        return Dependence.of(encoder_recipe(given))
    recipe = given if isinstance(given, Recipe) else getattr(given, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise UsageError(
            f"what the vectors depend on cannot be told from a {type(given).__name__}: expected an encoder "
            "(of an embedding of Flair, FlairEncoder(embedding)), its specification, a store, a recipe or a "
            "Dependence"
        )
    return Dependence.of(recipe)
