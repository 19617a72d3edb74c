"""HDF5 files with a dataset for each line of a text, named by its number: AllenNLP's and bilm-tf's.

AllenNLP 0.x (``allennlp/commands/elmo.py``, ``ElmoEmbedder.embed_file``): ``"0"``, ``"1"``, ... float32,
(n_layers, n_tokens, dim) with ``--all``, else (n_tokens, dim). A line is split at every Unicode blank.
``sentence_to_index`` is a JSON object from the line to its number; of repeated lines the last. With
``--forget-sentences`` it is missing; with ``--use-sentence-keys`` datasets are named by their line, in which
``/`` makes groups.

bilm-tf (``bilm/model.py``, ``dump_bilm_embeddings``): the same numbers, (n_layers, n_tokens, dim), no
sentences. A blank line has a number too, and a dataset of no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import Corpus, FileCorpus
from featurestore.disk.strict_json import parse_json
from featurestore.errors import AlignmentError, CorpusError, UsageError
from featurestore.exchange.incoming.hdf5 import VectorFile
from featurestore.exchange.incoming.source import Arrival, Source, of_other_length
from featurestore.keys import Sentence

INDEX = "sentence_to_index"
_SHOWN = 3


class Hdf5Source(Source):
    """An HDF5 file of a dataset a sentence, layers first: what all of these have in common."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        self.path, self.corpus = path, corpus
        self.file = VectorFile(path)
        self.n_stored = self.file.n_names
        self.stated: dict[str, Any] = {"attributes": self.file.attributes()}

    def refuse_allennlp(self) -> None:
        """Refuse a file that AllenNLP or our export wrote, whose sentences would not be heard of.

        Raises
        ------
        UsageError
        """
        if self.file.is_text(INDEX):
            raise UsageError(f"{self.path} has a {INDEX}, as AllenNLP writes it: --from allennlp-hdf5")

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def vectors(self, arrival: Arrival) -> NDArray[np.floating]:
        """Return a sentence's vectors, tokens first."""
        values = self.file.vectors(str(arrival.name))
        if values.ndim == 2:
            return values
        return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 0, 2))

    def examples(self, why: str) -> Iterator[Example]:
        """Return the sentences of the corpus.

        Raises
        ------
        UsageError
            If none was given; the message says why one is needed.
        """
        if self.corpus is None:
            raise UsageError(f"{self.path}: {why}: give the corpus that was encoded (--corpus FILE)")
        return iter(self.corpus)

    def present(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        """Yield the sentences that have vectors, and raise at the end if some have none."""
        missing: list[Arrival] = []
        n_missing = n_read = 0
        for arrival in arrivals:
            n_read += 1
            if self.file.has(str(arrival.name)):
                yield arrival
                continue
            n_missing += 1
            if len(missing) < _SHOWN:
                missing.append(arrival)
        if n_missing:
            raise self.absent(missing, n_missing, n_read)

    def require_lengths(self, arrivals: Iterator[Arrival]) -> None:
        """Raise for the first sentence whose dataset has another number of vectors than it has tokens."""
        for arrival in arrivals:
            if self.file.has(str(arrival.name)):
                found = self.file.shape(str(arrival.name))[-2]
                if found != len(arrival.tokens):
                    raise of_other_length(self.path, arrival, found)

    def absent(self, missing: list[Arrival], n_missing: int, n_read: int) -> AlignmentError:
        """Return the error of sentences that have no vectors, with the first of them."""
        shown = "".join(
            f"\n  {m.place}: {' '.join(m.tokens[:12])} (sought as {str(m.name)[:80]!r})" for m in missing
        )
        return AlignmentError(
            f"{n_missing:,} of {n_read:,} sentences have no vectors in {self.path}; the first:{shown}\n"
            "Give the corpus that was encoded, with the same tokens; or leave these sentences out",
            path=missing[0].path or None,
            line=missing[0].line or None,
        )


class AllenNlp(Hdf5Source):
    """What ``allennlp elmo`` writes, and our own export of that format."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        super().__init__(path, corpus)
        self.index = self._read_index()
        # Found by the tokens alone, where blanks of the line were more or others than single spaces.
        self._by_tokens = {
            tokens: number
            for line, number in (self.index or {}).items()
            if (tokens := " ".join(line.split())) != line
        }
        self.n_stored -= self.index is not None
        self._in_order: bool | None = None
        last = str(self.n_stored - 1)
        self.is_numbered = self.index is not None or (self.file.has("0") and self.file.has(last))

    def _read_index(self) -> dict[str, str] | None:
        # Where datasets are named by their lines, a line may be this word.
        text = self.file.text(INDEX) if self.file.is_text(INDEX) or self.file.has("0") else None
        if text is None:
            return None
        try:
            index = parse_json(text.encode("utf-8"), most_values=1 << 30)
            if not isinstance(index, dict) or not all(str(number).isdecimal() for number in index.values()):
                raise ValueError("expected an object from sentences to numbers")
        except ValueError as error:
            raise CorpusError(f"{INDEX} is damaged: {error}", path=self.path) from error
        return {sentence: str(int(number)) for sentence, number in index.items()}

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences of the corpus; without one those of ``sentence_to_index``."""
        if self.corpus is None:
            return self.present(self._named_by_the_file())
        if not self.is_numbered:
            return self.present(Arrival.of(e, " ".join(e.tokens)) for e in self.corpus)
        if self.index is None or self._is_in_order():
            return self._in_place()
        return self.present(
            Arrival.of(e, self._number_of(e.tokens) or " ".join(e.tokens)) for e in self.corpus
        )

    def _named_by_the_file(self) -> Iterator[Arrival]:
        if self.index is not None:
            named = sorted(self.index.items(), key=lambda item: int(item[1]))
        elif not self.is_numbered:
            named = [(name, name) for name in self.file.names()]
        else:
            self.examples(f"it has no {INDEX}, so it does not say which sentences it is of")
        for sentence, name in named:
            yield Arrival(self._tokens(sentence, name), name, f"{self.path}, {name[:80]}", str(self.path))

    def _tokens(self, sentence: str, name: str) -> Sentence:
        """Return the tokens of a line: split at spaces where that fits the vectors, else as AllenNLP does."""
        at_spaces, at_blanks = sentence.split(" "), sentence.split()
        is_odd = at_spaces != at_blanks and all(at_spaces) and self.file.has(name)
        if is_odd and self.file.shape(name)[-2] == len(at_spaces):
            return tuple(at_spaces)
        if not at_blanks:
            raise CorpusError(f"dataset {name!r} is of an empty sentence", path=self.path)
        return tuple(at_blanks)

    def _number_of(self, tokens: Sentence) -> str | None:
        index = self.index or {}
        line = " ".join(tokens)
        return index.get(line) or index.get(split := " ".join(line.split())) or self._by_tokens.get(split)

    def _is_in_order(self) -> bool:
        """Return whether the corpus is the text that was encoded, line by line, so repeats have numbers."""
        if self._in_order is None:
            n_read = 0
            self._in_order = True
            for n_read, example in enumerate(self.examples(""), 1):
                number = self._number_of(example.tokens)
                if number is None or int(number) < n_read - 1:
                    self._in_order = False
                    break
            self._in_order = self._in_order and n_read == self.n_stored
        return self._in_order

    def _in_place(self) -> Iterator[Arrival]:
        n_read, examples = 0, self.examples("")
        for n_read, example in enumerate(examples, 1):
            arrival = Arrival.of(example, str(n_read - 1))
            if n_read > self.n_stored or not self.file.has(str(n_read - 1)):
                raise arrival.misaligned(f"{self.path} has no dataset {n_read - 1} for sentence {n_read}")
            yield arrival
        if n_read != self.n_stored:
            self.require_lengths(Arrival.of(e, str(n)) for n, e in enumerate(self.examples("")))
            raise _of_other_number(self, str(n_read))


class BilmTf(Hdf5Source):
    """What ``dump_bilm_embeddings`` writes: with a text, numbers are of its lines, blank ones included."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        super().__init__(path, corpus)
        self.refuse_allennlp()
        if self.file.has("embedding") and not self.file.has("0"):
            raise CorpusError(
                "holds token embeddings of a vocabulary (dump_token_embeddings), not vectors of sentences",
                path=path,
            )

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences of the corpus."""
        examples = self.examples("bilm-tf's files do not hold the sentences")
        by_line = isinstance(self.corpus, FileCorpus) and self.corpus.format == "text"
        expected = 0
        for n_read, example in enumerate(examples):
            number = example.line - 1 if by_line else n_read
            arrival = Arrival.of(example, str(number))
            if number < expected:
                raise UsageError(f"{arrival.place}: bilm-tf reads a line as one sentence: do not tokenize")
            self._require_blank(expected, number)
            if number >= self.n_stored or not self.file.has(str(number)):
                raise arrival.misaligned(f"{self.path} has no dataset {number} for this line")
            yield arrival
            expected = number + 1
        self._require_blank(expected, self.n_stored)

    def _require_blank(self, start: int, stop: int) -> None:
        """Raise unless the datasets that no sentence asks for are those of blank lines."""
        for number in range(start, min(stop, self.n_stored)):
            if self.file.has(str(number)) and self.file.shape(str(number))[-2]:
                by_line = isinstance(self.corpus, FileCorpus) and self.corpus.format == "text"
                self.require_lengths(
                    Arrival.of(e, str(e.line - 1 if by_line else n)) for n, e in enumerate(self.examples(""))
                )
                raise _of_other_number(self, str(number))


def _of_other_number(source: Hdf5Source, name: str) -> AlignmentError:
    corpus = source.corpus.path if source.corpus is not None else ""
    n_tokens = source.file.shape(name)[-2] if source.file.has(name) else 0
    return AlignmentError(
        f"{source.path} holds {source.n_stored:,} datasets, of which {name!r} ({n_tokens} tokens) belongs "
        f"to no sentence of {corpus}: give the very text that was encoded, with all its lines in order",
        path=corpus or None,
    )
