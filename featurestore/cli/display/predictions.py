"""How ``predict`` writes labelled sentences: as the name of its file says, so that they are read back.

Everything of the input that a format can hold is kept: of CoNLL-U its comments, multiword ranges, empty nodes
and other columns, of JSON Lines all other fields.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Protocol

from featurestore.cli.display.render import json_text
from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.corpora.corpus import Corpus, FileCorpus
from featurestore.corpora.formats import make_reader
from featurestore.corpora.joined import JoinedCorpus
from featurestore.errors import CorpusError, NotReadBackError, UsageError

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_KEYED = ("feats", "misc")

_NOT_IN_FIELD = re.compile("[\t\r\n\ud800-\udfff]")
_NOT_IN_TEXT = re.compile(f"[{WHITESPACE}\ud800-\udfff]")
"""What a field must not hold, and what a token in a text of several must not: lone surrogates neither."""

_NOT_IN_ITEM = re.compile("[\t\r\n|\ud800-\udfff]")
_COLUMN_FILES = (".conll", ".conllup", ".bio", ".iob", ".iob2")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


class Form(Protocol):
    """One way of writing labelled sentences."""

    @property
    def begin(self) -> str:
        """What the file begins with."""

    @property
    def reads_as(self) -> tuple[str, ReadOptions] | None:
        """The format and the options by which the file is read back; None if it is not read back."""

    def text(self, example: Example) -> str:
        """Return a labelled sentence as lines."""


def form_of(output: str, label: str | None, kind: str, corpus: Corpus, *, names: bool = False) -> Form:
    """Return the form that the name of an output file means.

    Parameters
    ----------
    output : str
        The file, ``-`` for standard output.
    label : str or None
        What the model calls its label.
    kind : {"token", "sentence"}
        What has a label.
    corpus : Corpus
        The input.
    names : bool
        Whether a column file names its columns, so that every token stays one: otherwise ``-DOCSTART-`` is a
        mark between documents.

    Raises
    ------
    UsageError
        If labels of this kind do not fit that form.
    """
    name = output.lower()
    if name.endswith(_COMPRESSED):
        raise UsageError(
            f"{output}: predictions are written uncompressed: leave out {name[name.rindex('.') :]}"
        )
    if name.endswith((".jsonl", ".ndjson")):
        return JsonLines(output, kind, corpus)
    if name.endswith((".csv", ".tsv")):
        if kind == "token":
            raise UsageError(
                f"{output}: a table has one sentence a row, and no place for a label per token: name the "
                "output .conllu, .conll or .jsonl"
            )
        return Table(output, label, name[-3:])
    if name.endswith(".conllu") or (kind == "sentence" and name.endswith(_COLUMN_FILES)):
        if kind == "sentence":
            raise UsageError(
                f"{output}: a file of one token a line has no place for the label of a sentence: name the "
                "output .jsonl, .csv or .tsv"
            )
        return Conllu(output, label, corpus)
    return Lines(output, kind, names or name.endswith(".conllup"))


def write(predicted: Iterable[Example], form: Form, stream: IO[str]) -> None:
    """Write labelled sentences, and read them back on the way.

    Raises
    ------
    UsageError
        If a sentence does not fit the form, or (NotReadBackError) would be read back as another one.
    """
    stream.write(form.begin)
    if form.reads_as is None:
        for example in predicted:
            stream.write(form.text(example))
        return
    format_name, options = form.reads_as
    written: deque[Example] = deque()

    def lines() -> Iterator[str]:
        yield from form.begin.splitlines()
        for example in predicted:
            text = form.text(example)
            stream.write(text)
            written.append(example)
            # Not splitlines(), which also cuts where no line of a corpus ends.
            yield from text.split("\n")[:-1]

    try:
        for found in make_reader(format_name, options)(lines()):
            example = written.popleft()
            if tuple(found.tokens) != tuple(example.tokens) or found.labels != example.labels:
                raise _not_read_back(example, options)
    except CorpusError as error:
        raise NotReadBackError(
            f"{options.path} would not be read back: {error}. Name the output .jsonl, which holds every token"
        ) from error
    if written:
        raise _not_read_back(written[0], options)


def _not_read_back(example: Example, options: ReadOptions) -> NotReadBackError:
    return NotReadBackError(
        f"{example.place}: the sentence {' '.join(example.tokens[:8])!r} would not be read back from "
        f"{options.path}: name the output .jsonl, which holds every token"
    )


class Lines:
    """A line "token TAB label" per token and an empty one after each sentence, or "label TAB text" lines."""

    def __init__(self, output: str, kind: str, names: bool = False) -> None:
        self.begin = "# global.columns = FORM LABEL\n" if names and kind == "token" else ""
        self.reads_as = None
        if kind == "token" and output != "-":
            self.reads_as = ("conll", ReadOptions(output, label="LABEL" if names else "2"))

    def text(self, example: Example) -> str:
        """Return a labelled sentence as lines of tab-separated fields.

        Raises
        ------
        UsageError
            If one would not be read back: a token or label with a tab, a line end or a lone surrogate in it,
            or a token with a blank in a line of tokens.
        """
        if isinstance(example.labels, str):
            _require_fitting(example, "token", example.tokens, _NOT_IN_TEXT)
            _require_fitting(example, "label", (example.labels,), _NOT_IN_FIELD)
            return f"{example.labels}\t{' '.join(example.tokens)}\n"
        labels = _labels(example)
        _require_fitting(example, "token", example.tokens, _NOT_IN_FIELD)
        _require_fitting(example, "label", labels, _NOT_IN_FIELD)
        rows = zip(example.tokens, labels, strict=True)
        return "".join(f"{token}\t{label}\n" for token, label in rows) + "\n"


class Table:
    """A table of two columns, the label and the text, with a row that names them."""

    def __init__(self, output: str, label: str | None, extension: str) -> None:
        # A number is a column's place in the input, and would be one here.
        name = label if label and label != "text" and not label.isdigit() else "label"
        self._is_csv = extension == "csv"
        self.begin = self._row(name, "text")
        self.reads_as = (extension, ReadOptions(output, label=name))

    def text(self, example: Example) -> str:
        """Return a labelled sentence as a row.

        Raises
        ------
        UsageError
            If a token has a blank in it, or the label does not fit into a field.
        """
        label = str(example.labels)
        _require_fitting(example, "token", example.tokens, _NOT_IN_TEXT)
        _require_fitting(example, "label", (label,), _NOT_IN_FIELD)
        return self._row(label, " ".join(example.tokens))

    def _row(self, label: str, text: str) -> str:
        if not self._is_csv:
            return f"{label}\t{text}\n"
        row = io.StringIO()
        csv.writer(row, lineterminator="\n").writerow([label, text])
        return row.getvalue()


class JsonLines:
    """An object per sentence: the input's own, where that was JSON, with tokens and labels put in."""

    begin = ""

    def __init__(self, output: str, kind: str, corpus: Corpus) -> None:
        self._name = "label" if kind == "sentence" else "labels"
        self.reads_as = None
        if output != "-":
            options = ReadOptions(output, text_column="tokens", label=self._name)
            self.reads_as = ("jsonl", options)
        files = _files(corpus, "jsonl")
        self._input = ((f.path, number, line) for f in files for number, line in enumerate(f.lines(), 1))

    def text(self, example: Example) -> str:
        """Return a labelled sentence as a line of JSON."""
        fields = {"id": example.id} if example.id else {}
        for path, number, line in self._input:
            if number == example.line and path == example.path:
                fields = json.loads(line)
                break
        return json_text({**fields, "tokens": example.tokens, self._name: example.labels}) + "\n"


class Conllu:
    """CoNLL-U: the input's own lines, where it is CoNLL-U, with the labels put where they are read from."""

    begin = ""

    def __init__(self, output: str, label: str | None, corpus: Corpus) -> None:
        column, dot, key = (label or "").partition(".")
        self._column, self._key = len(CONLLU_COLUMNS) - 1, "label"
        if dot and column.lower() in _KEYED and key:
            self._column, self._key = CONLLU_COLUMNS.index(column.lower()), key
        elif column.lower() in CONLLU_COLUMNS[2:]:
            self._column, self._key = CONLLU_COLUMNS.index(column.lower()), ""
        elif corpus.format == "conllu" and column.isdigit() and 3 <= int(column) <= len(CONLLU_COLUMNS):
            self._column, self._key = int(column) - 1, ""
        name = CONLLU_COLUMNS[self._column]
        self.reads_as = (
            "conllu",
            ReadOptions(output, label=f"{name}.{self._key}" if self._key else name),
        )
        self._blocks = (
            (file.path, *block) for file in _files(corpus, "conllu") for block in _blocks(file.lines())
        )

    def text(self, example: Example) -> str:
        """Return a labelled sentence with what belongs to it.

        Raises
        ------
        UsageError
            If a token or label does not fit into its column.
        """
        labels = _labels(example)
        _require_fitting(example, "token", example.tokens, _NOT_IN_FIELD)
        _require_fitting(example, "label", labels, _NOT_IN_ITEM if self._key else _NOT_IN_FIELD)
        kept = ""
        for path, start, lines in self._blocks:
            if start + len(lines) > example.line and path == example.path:
                return kept + self._relabelled(lines, example, labels)
            if not any(_is_word(line) for line in lines):
                kept += "".join(f"{line}\n" for line in lines) + "\n"
        comment = f"# sent_id = {example.id}\n" if example.id and "\n" not in example.id else ""
        rows = []
        for number, (token, label) in enumerate(zip(example.tokens, labels, strict=True), 1):
            fields = [str(number), token, *["_"] * (len(CONLLU_COLUMNS) - 2)]
            rows.append(self._row(fields, label))
        return comment + "".join(rows) + "\n"

    def _relabelled(self, lines: Sequence[str], example: Example, labels: Sequence[str]) -> str:
        remaining = iter(labels)
        n_words = sum(map(_is_word, lines))
        if n_words != len(labels):
            raise NotReadBackError(
                f"{example.place}: {n_words} rows with a word number for {len(labels)} tokens: the labels "
                "cannot be put into a copy of these lines; name the output .conll or .jsonl"
            )
        rows = (
            self._row(line.split("\t"), next(remaining)) if _is_word(line) else f"{line}\n" for line in lines
        )
        return "".join(rows) + "\n"

    def _row(self, fields: list[str], label: str) -> str:
        if not self._key:
            fields[self._column] = label
        else:
            items = [] if fields[self._column] == "_" else fields[self._column].split("|")
            others = [item for item in items if not item.startswith(f"{self._key}=")]
            at = next((i for i, item in enumerate(items) if item not in others), len(others))
            # Of FEATS, an underscore says that the word has no such feature.
            is_absent = label == "_" and CONLLU_COLUMNS[self._column] == "feats"
            others[at:at] = [] if is_absent else [f"{self._key}={label}"]
            fields[self._column] = "|".join(others) or "_"
        return "\t".join(fields) + "\n"


def _files(corpus: Corpus, format: str) -> list[FileCorpus]:
    """Return the files of a corpus, all of which have a format that consists of lines; none otherwise."""
    parts = corpus.parts if isinstance(corpus, JoinedCorpus) else (corpus,)
    files = [part for part in parts if isinstance(part, FileCorpus) and part.format == format]
    return files if len(files) == len(parts) else []


def _blocks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the lines of each part between blank lines."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(lines, 1):
        if line.strip(WHITESPACE):
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number + 1 - len(block), block


def _is_word(line: str) -> bool:
    return line.partition("\t")[0].strip().isdigit()


def _labels(example: Example) -> tuple[str, ...]:
    labels = example.labels
    return () if labels is None or isinstance(labels, str) else tuple(map(str, labels))


def _require_fitting(example: Example, what: str, texts: Sequence[str], unfit: re.Pattern[str]) -> None:
    for text in texts:
        if unfit.search(text):
            raise UsageError(
                f"{example.place}: the {what} {text!r} does not fit into lines and tabs: use --json"
            )
