"""Plain text: one sentence per line.

Lines without tokens are skipped. A file that only its name, or nothing, makes text is refused where its first
lines show another format: a word and its tag on each line, labels before the text, names and sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import Reader, ReadOptions
from featurestore.corpora.contract.sample import read_ahead
from featurestore.corpora.contract.whitespace import WHITESPACE as WHITESPACE
from featurestore.corpora.contract.whitespace import whitespace_tokens as whitespace_tokens
from featurestore.corpora.readers.columnar import not_text
from featurestore.corpora.tokenizing.tokenizers import make_tokenizer
from featurestore.errors import CorpusError, UsageError

_SAMPLE_LINES = 200


def text_reader(options: ReadOptions) -> Reader:
    """Return a reader of plain text.

    With ``tokenize`` a line may hold a whole paragraph, which is split into its sentences.

    Raises
    ------
    UsageError
        If a text column, labels or a header row are asked for, which plain text does not have.
    """
    for what, value in (("labels", options.label), ("a text column", options.text_column)):
        if value is not None:
            raise UsageError(
                f"{options.path}: plain text has no columns, but {what} {value!r} was asked for: "
                "for a column file name the format, conll or conllu"
            )
    tokenizer = make_tokenizer(options)

    def read(lines: Iterable[str]) -> Iterator[Example]:
        if options.format_is_guessed:
            first, lines, _ = read_ahead(lines, _SAMPLE_LINES, len)
            _refuse_other_formats(first, options.path)
        for number, line in enumerate(lines, 1):
            if tokenizer is None:
                if tokens := whitespace_tokens(line):
                    yield Example(tokens, None, options.path, number)
                continue
            for tokens in tokenizer.sentences(line, number):
                if tokens:
                    yield Example(tokens, None, options.path, number)

    return read


def _refuse_other_formats(lines: list[str], path: str) -> None:
    found = not_text(lines)
    if found is not None:
        raise CorpusError(
            f"reads as {found.reads_as}: give --format {found.format} (in Python "
            f"format={found.format!r}), or the format text if each line is a sentence nevertheless",
            path=path,
            line=found.index + 1,
        )
