r"""Plain text: one sentence per line, and the rule by which a line falls into tokens.

Tokens are separated by ASCII whitespace only (space, tab, carriage return, line feed, vertical tab, form
feed), so that a no-break space or another Unicode space inside a token (``10\u00a0000``) stays there.
Lines without tokens are skipped. A file whose first line is that of a column file is refused, unless the
caller says that it is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from featurestore.corpora.example import Example
from featurestore.corpora.options import Reader, ReadOptions
from featurestore.corpora.tokenizing.tokenizers import make_tokenizer
from featurestore.errors import CorpusError, UsageError
from featurestore.keys import Sentence

WHITESPACE = " \t\r\n\v\f"
_TOKEN = re.compile(f"[^{WHITESPACE}]+")
# How the first sentence of CoNLL-U begins: with its first word, a range from it, or an empty node before it.
_FIRST_ID = re.compile(r"1|1-[0-9]+|0\.1")


def whitespace_tokens(text: str) -> Sentence:
    """Return the tokens of a text that ASCII whitespace separates, unchanged."""
    return tuple(_TOKEN.findall(text))


def text_reader(options: ReadOptions) -> Reader:
    """Return a reader of plain text.

    With ``tokenize`` a line may hold a whole paragraph, which is split into its sentences.

    Raises
    ------
    UsageError
        If a text column or labels are asked for, which plain text does not have.
    """
    for what, value in (("labels", options.label), ("a text column", options.text_column)):
        if value is not None:
            raise UsageError(
                f"{options.path}: plain text has no columns, but {what} {value!r} was asked for: "
                "for a column file name the format, conll or conllu"
            )

    tokenizer = make_tokenizer(options)

    def read(lines: Iterable[str]) -> Iterator[Example]:
        undecided = options.format_is_guessed
        for number, line in enumerate(lines, 1):
            if undecided and line.strip(WHITESPACE) and not line.startswith("#"):
                undecided = False
                _refuse_columns(line, options.path, number)
            sentences = tokenizer.sentences(line, number) if tokenizer else [whitespace_tokens(line)]
            for tokens in sentences:
                if tokens:
                    yield Example(tokens, None, options.path, number)

    return read


def _refuse_columns(line: str, path: str, number: int) -> None:
    """Refuse a file of columns, whose lines are tokens and not sentences, by its first line of content."""
    fields = line.split("\t")
    if line.startswith("-DOCSTART-"):
        found, advice = "CoNLL-2003", "conll"
    elif len(fields) == 10 and _FIRST_ID.fullmatch(fields[0]):
        found, advice = "CoNLL-U", "conllu"
    else:
        return
    raise CorpusError(
        f"reads as {found}, with a token on each line: give --format {advice} (in Python format={advice!r}), "
        "or the format text if each line is a sentence nevertheless",
        path=path,
        line=number,
    )
