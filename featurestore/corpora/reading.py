"""What was read of a corpus: its first sentence, its commonest labels, and what is implausible about it.

A reader cannot know that a file was read the wrong way: one word per line as one sentence per line gives
sound sentences, and wrong vectors, labels and scores. Whoever reads a corpus lets an :class:`Observer` see
the examples as they pass and shows people the :class:`Reading` in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from featurestore.corpora.contract.example import IGNORED, Example
from featurestore.corpora.corpus import Corpus
from featurestore.corpora.readers.marks import marks
from featurestore.keys import Sentence

COMMONEST = 5
"""Labels that a reading names."""

_MOST_FIRST_TOKENS = 50
_MOST_DISTINCT_LABELS = 50_000
"""With more, labels are not counted any further."""

_LONG_SENTENCE = 1000
"""Tokens beyond which a sentence is rather a file without sentence boundaries: the longest of the Universal
Dependencies have several hundred."""

_LONG_ONLY_SENTENCE = 200
"""The same for the only sentence of a file of columns."""

_FEW = 5
"""Fewer sentences say nothing about the kind of a file."""

_WITHHELD_SHARE = 0.01
"""Lines of underscores may separate parts of a text; if they are more than this share, words are missing."""

_MOST_COLUMNS = 12
_SAME_SHARE = 0.95
"""Share of the lines that must have equally many fields to look like a file of columns."""

_LABELS_OF_TOKENS, _LABELS_OF_SENTENCES = 100, 8
"""Fewer labels say nothing about how many different ones there are."""

_FEW_LABELS = 10
"""Labels that may all be equal by chance."""

_COLUMN_FORMATS = ("conll", "conllu")
_TABLE_FORMATS = ("csv", "tsv")
_FASTTEXT = "__label__"


@dataclass(frozen=True)
class ReadingWarning:
    """Something implausible about what was read.

    Attributes
    ----------
    kind : str
        ``word-per-line``, ``column-lines``, ``long-sentence``, ``withheld-text``, ``label-prefix``,
        ``one-label`` or ``many-labels``; ``tagged-words``, ``markup`` or ``same-beginning``; of an extraction
        also ``cut-tokens``.
    path : str
        The corpus.
    count : int
        Sentences, tokens or labels that it is about.
    message : str
        What is implausible, and the option that mends it.
    """

    kind: str
    path: str
    count: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Reading:
    """What was read of one corpus.

    Attributes
    ----------
    path : str
    format : str
    n_sentences, n_tokens : int
    n_skipped : int
        Rows, objects and tokens that were left out because they are empty.
    longest, longest_line : int
        Tokens of the longest sentence, and the line on which it starts.
    first_tokens : tuple of str
        The first tokens of the first sentence.
    first_labels : str, tuple of str, or None
        Their labels, None for one that is missing and ignored; or the sentence's label.
    first_line : int
    n_labels, n_distinct_labels : int
        Labels read, and how many different ones; 0 if the corpus was opened without.
    commonest_labels : tuple of (str, int)
        The most frequent labels, and how often each was read.
    warnings : tuple of ReadingWarning
    """

    path: str
    format: str
    n_sentences: int
    n_tokens: int
    n_skipped: int
    longest: int
    longest_line: int
    first_tokens: tuple[str, ...]
    first_labels: str | tuple[str | None, ...] | None
    first_line: int
    n_labels: int
    n_distinct_labels: int
    commonest_labels: tuple[tuple[str, int], ...]
    warnings: tuple[ReadingWarning, ...]


class Observer:
    """Sees the examples of one corpus as they pass, and keeps counts of them.

    Parameters
    ----------
    corpus : Corpus
        It is not read; only its name and format are used, and how much the pass left out.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._path, self._format = corpus.path, corpus.format
        self._first: Example | None = None
        self._longest: Example | None = None
        self._n_tokens = 0
        self._lengths: Counter[int] = Counter()
        self._token_labels: Counter[str] = Counter()
        self._sentence_labels: Counter[str] = Counter()
        self._last_fields: Counter[str] = Counter()
        self._n_withheld = self._n_prefixed = 0
        self._first_sentences: list[Sentence] = []

    def see(self, chunk: Sequence[Example]) -> None:
        """Take note of the next examples of the corpus."""
        if not chunk:
            return
        if self._first is None:
            self._first = self._longest = chunk[0]
            self._first_sentences = [example.tokens for example in chunk]
        sentences = [example.tokens for example in chunk]
        lengths = list(map(len, sentences))
        self._n_tokens += sum(lengths)
        self._lengths.update(lengths)
        longest = max(lengths)
        if self._longest is not None and longest > len(self._longest.tokens):
            self._longest = chunk[lengths.index(longest)]
        for tokens in [tokens for tokens in sentences if tokens[0][0] == "_"]:
            self._n_withheld += not any(token.strip("_") for token in tokens)
            self._n_prefixed += tokens[0].startswith(_FASTTEXT)
        if self._format == "text" and self._is_even():
            self._last_fields.update([tokens[-1] for tokens in sentences])
        if any(example.labels is not None for example in chunk):
            self._see_labels(chunk)

    def _is_even(self) -> bool:
        """Return whether nearly all sentences have the same length, as the lines of a column file have."""
        [(length, n_same)] = self._lengths.most_common(1)
        return 1 < length <= _MOST_COLUMNS and n_same >= _SAME_SHARE * self._lengths.total()

    def _see_labels(self, chunk: Sequence[Example]) -> None:
        if len(self._token_labels) + len(self._sentence_labels) > _MOST_DISTINCT_LABELS:
            return
        labels = [example.labels for example in chunk if example.labels is not None]
        try:
            self._sentence_labels.update(given for given in labels if isinstance(given, str))
            words = chain.from_iterable(given for given in labels if not isinstance(given, str))
            self._token_labels.update(label for label in words if label is not IGNORED)
        except TypeError:
            pass  # examples made in memory with what is no label, which whoever uses labels refuses

    def reading(self) -> Reading:
        """Return what was read so far."""
        first, longest = self._first or Example(()), self._longest or Example(())
        shown: str | tuple[str | None, ...] | None
        if isinstance(first.labels, (str, type(None))):
            shown = first.labels
        else:
            shown = tuple(None if label is IGNORED else label for label in first.labels)
        labels = self._token_labels or self._sentence_labels
        return Reading(
            path=self._path,
            format=self._format,
            n_sentences=self._lengths.total(),
            n_tokens=self._n_tokens,
            n_skipped=self._corpus.n_skipped,
            longest=len(longest.tokens),
            longest_line=longest.line,
            first_tokens=tuple(first.tokens[:_MOST_FIRST_TOKENS]),
            first_labels=shown[:_MOST_FIRST_TOKENS] if isinstance(shown, tuple) else shown,
            first_line=first.line,
            n_labels=labels.total(),
            n_distinct_labels=len(labels),
            commonest_labels=tuple(labels.most_common(COMMONEST)),
            warnings=tuple(self._warnings()),
        )

    def _warnings(self) -> Iterator[ReadingWarning]:
        yield from self._of_lines()
        yield from self._of_boundaries()
        yield from self._of_text()
        for kind, count, message in marks(self._first_sentences):
            yield self._warning(kind, count, message)
        yield from self._of_labels()

    def _warning(self, kind: str, count: int, message: str) -> ReadingWarning:
        return ReadingWarning(kind, self._path, count, message)

    def _of_lines(self) -> Iterator[ReadingWarning]:
        """Warn of words read as sentences."""
        n_sentences = self._lengths.total()
        if n_sentences < _FEW:
            return
        ones = self._lengths[1]
        if 2 * ones > n_sentences:
            yield self._warning(
                "word-per-line",
                ones,
                f"{ones:,} of {n_sentences:,} sentences are a single word: {self._one_word_advice()}",
            )
            return
        [(length, n_same)] = self._lengths.most_common(1)
        if self._is_even() and 0 < 2 * len(self._last_fields) <= n_sentences:
            yield self._warning(
                "column-lines",
                n_same,
                f"{n_same:,} of {n_sentences:,} lines have {length} fields, the last with few values, such "
                f"as {self._last_fields.most_common(1)[0][0]!r:.40}: if these are columns, with a word on "
                "each line, give --format conll (and --text-column, --label)",
            )

    def _one_word_advice(self) -> str:
        if self._format == "text":
            return "text has a sentence on each line; for a file with a word on each line give --format conll"
        if self._format in _TABLE_FORMATS:
            return (
                "a table has a sentence in each row; for one with a word in each row give --format conll "
                "--text-column N --label N if its columns are separated by tabs or blanks, else join the "
                "words of each sentence; or name the column of the text (--text-column)"
            )
        if self._format in _COLUMN_FORMATS:
            return "blank lines end sentences; are there some between the words of a sentence?"
        return "is each word an object or a list of its own? A sentence is the list of its words"

    def _of_boundaries(self) -> Iterator[ReadingWarning]:
        """Warn of a sentence that is rather a document."""
        if self._longest is None:
            return
        n_tokens, is_columns = len(self._longest.tokens), self._format in _COLUMN_FORMATS
        is_whole = is_columns and self._lengths.total() == 1 and n_tokens > _LONG_ONLY_SENTENCE
        if n_tokens <= _LONG_SENTENCE and not is_whole:
            return
        n_long = sum(n for length, n in self._lengths.items() if length > _LONG_SENTENCE) or 1
        where = f" on line {self._longest.line:,}" if self._longest.line else ""
        advice = {
            "conll": "blank lines end sentences: put one after each, or let them end at full stops and after "
            "a number of words at the latest, --boundaries punctuation,100 (in Python boundaries=)",
            "conllu": "blank lines end sentences: put one after each, or read the file as --format conll "
            "--text-column 2 --boundaries punctuation",
            "text": "text has a sentence on each line: --tokenize splits raw text into sentences, or cut the "
            "lines yourself",
        }.get(self._format, "cut the text into sentences first")
        yield self._warning(
            "long-sentence",
            n_long,
            f"the longest sentence{where} has {n_tokens:,} tokens: are sentence boundaries missing? "
            f"{advice[0].upper()}{advice[1:]}. Long sentences take far more time and memory",
        )

    def _of_text(self) -> Iterator[ReadingWarning]:
        """Warn of sentences that hold no text, or more than the text."""
        if self._n_withheld > _WITHHELD_SHARE * self._lengths.total():
            reads_column = self._format in ("conll", *_TABLE_FORMATS)
            yield self._warning(
                "withheld-text",
                self._n_withheld,
                f"{self._n_withheld:,} of {self._lengths.total():,} sentences are nothing but underscores: "
                "the words were left out of this file; its publisher says how to put them back"
                + (", or another column holds them (--text-column)" if reads_column else ""),
            )
        if self._n_prefixed:
            yield self._warning(
                "label-prefix",
                self._n_prefixed,
                f"{self._n_prefixed:,} sentences begin with fastText's {_FASTTEXT}, which is read as a word: "
                "give --format fasttext (--label label)",
            )

    def _of_labels(self) -> Iterator[ReadingWarning]:
        """Warn of labels that nothing can be learned from."""
        for labels, least, noun in (
            (self._token_labels, _LABELS_OF_TOKENS, "words"),
            (self._sentence_labels, _LABELS_OF_SENTENCES, "sentences"),
        ):
            total = labels.total()
            if len(labels) == 1 and total >= _FEW_LABELS:
                [only] = labels
                yield self._warning(
                    "one-label",
                    total,
                    f"all {total:,} {noun} have the label {only!r}: is it another column that holds the "
                    "labels (--label)?",
                )
            elif total >= least and 2 * len(labels) > total:
                yield self._warning(
                    "many-labels",
                    len(labels),
                    f"{total:,} {noun} have {len(labels):,} different labels ({next(iter(labels))!r:.40}, "
                    "...): is it another column that holds them (--label)?",
                )
