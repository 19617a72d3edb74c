"""Options of commands that read corpora: how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from featurestore.cli.completing import formats, words
from featurestore.cli.flags import options
from featurestore.corpora.contract.options import (
    EMPTY_TOKEN,
    MISSING_LABEL,
    QUOTES,
    REFUSE,
    RULES,
    TOKENIZERS,
)
from featurestore.errors import UsageError

if TYPE_CHECKING:
    from featurestore.corpora.corpus import Corpus

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNITS = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for unit, base in (("B", 1000), ("", 1024), ("IB", 1024))
}


@dataclass(frozen=True)
class Reading:
    """How a command reads its corpora: the values of :data:`reading_options`.

    Attributes
    ----------
    format, text_column, tokenize, header, separator, comments, missing_label, empty_token, boundaries
    quotes, document, sentence_column
        As :func:`featurestore.open_corpus` takes them.
    label_names : str or None
        The names, separated by commas.
    """

    format: str | None = None
    text_column: str | None = None
    tokenize: str | None = None
    header: bool | None = None
    separator: str | None = None
    label_names: str | None = None
    comments: bool | None = None
    missing_label: str = REFUSE
    empty_token: str = REFUSE
    boundaries: str | None = None
    quotes: str | None = None
    document: str | None = None
    sentence_column: str | None = None

    def open(self, path: str, label: str | None = None) -> Corpus:
        """Open a corpus with these options."""
        from featurestore.corpora.corpus import open_corpus

        given = {**vars(self), "tokenize": self.tokenize or False}
        if self.label_names is not None:
            given["label_names"] = self.label_names.split(",")
        return open_corpus(path, label=label, **given)

    def arguments(self) -> list[str]:
        """Return words of a command line that mean the same."""
        words = [] if self.format is None else ["--format", self.format]
        words += [] if self.text_column is None else ["--text-column", self.text_column]
        if self.tokenize is not None:
            words += ["--tokenize"] if self.tokenize == RULES else ["--tokenize", self.tokenize]
        words += [] if self.separator is None else ["--separator", self.separator]
        for name, value in (("header", self.header), ("comments", self.comments)):
            words += [] if value is None else [f"--{name}" if value else f"--no-{name}"]
        words += [] if self.empty_token == REFUSE else ["--empty-token", self.empty_token]
        words += [] if self.boundaries is None else ["--boundaries", self.boundaries]
        words += [] if self.quotes is None else ["--quotes", self.quotes]
        words += [] if self.sentence_column is None else ["--sentence-column", self.sentence_column]
        return words


READING_NAMES = tuple(field.name.replace("_", "-") for field in fields(Reading))
"""The options' names, without the dashes before them."""


class _TokenizeOption(click.Option):
    """``--tokenize``, whose value may be left out: a next word that names no tokeniser is an argument."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        option = parser._long_opt["--tokenize"]
        process = option.process

        def put_back(value: Any, state: Any) -> None:
            if isinstance(value, str) and value not in TOKENIZERS:
                if value.isalpha() and not os.path.exists(value):
                    raise UsageError(f"no tokeniser or file {value!r}: expected {', '.join(TOKENIZERS)}")
                state.rargs.insert(0, value)
                value = RULES
            process(value, state)

        option.process = put_back


def _with_reading(command: _Command) -> _Command:
    @wraps(command)
    def with_reading(*arguments: Any, **values: Any) -> Any:
        names = {field.name: "format_" if field.name == "format" else field.name for field in fields(Reading)}
        reading = Reading(**{name: values.pop(value) for name, value in names.items()})
        return command(*arguments, reading=reading, **values)

    return cast(_Command, with_reading)


reading_options = options(
    click.option("--format", "format_", metavar="NAME", shell_complete=formats,
                 help="Corpus format: text, conll, conllu, csv, tsv, jsonl, fasttext, fasta, parquet, arrow, "
                 "datasets (a folder) or spacy; by default, by the file name; standard input is text."),
    click.option("--text-column", metavar="NAME|N", help="Column or field with the text or the tokens."),
    click.option("--header/--no-header", default=None,
                 help="Whether the first row of a table or a column file names the columns.  [default: as "
                 "the rows show]"),
    click.option("--separator", metavar="NAME", shell_complete=words("comma", "semicolon", "tab", "pipe"),
                 help="What separates the fields of a table: comma, semicolon, tab or pipe.  "
                 "[default: by the format, or as the rows show]"),
    click.option("--quotes", type=click.Choice(QUOTES),
                 help="What quote marks of a table are: csv, signs around a field; text, signs of the text.  "
                 "[default: csv for csv; for tsv as the rows show]"),
    click.option("--label-names", metavar="NAME,NAME,...",
                 help="What labels that are integers from 0 stand for."),
    click.option("--comments/--no-comments", default=None,
                 help="Whether lines of a column file that begin with # before a sentence are comments, not "
                 "words.  [default: as the rows show]"),
    click.option("--document", metavar="NAME|N",
                 help="Column or field that names a sentence's document (csv, tsv, jsonl, parquet, arrow, "
                 "datasets)."),
    click.option("--sentence-column", metavar="NAME|N",
                 help="Column that tells sentences apart, where a row of parquet, arrow or datasets is a "
                 "token.  [default: a row is a sentence]"),
    click.option("--missing-label", type=click.Choice(MISSING_LABEL), default=REFUSE, show_default=True,
                 help="What is done with words that have no label: stop, or ignore them in training and "
                 "evaluation."),
    click.option("--empty-token", type=click.Choice(EMPTY_TOKEN), default=REFUSE, show_default=True,
                 help="What is done with rows that have no token: stop, or skip and count them."),
    click.option("--boundaries", metavar="[punctuation|N|punctuation,N|none]",
                 help="Where sentences of a column file end beside its blank lines, and documents of spaCy "
                 "beside their own: behind sentence-final punctuation, after N words at the latest, both, or "
                 "nowhere."),
    click.option("--tokenize", cls=_TokenizeOption, is_flag=False, flag_value=RULES,
                 metavar="[rules|icu|characters]",
                 help="The text is raw: split it into tokens. rules, the default, is for languages that "
                 "write spaces between words; icu also splits Chinese, Japanese, Thai, Lao, Khmer and "
                 "Burmese "
                 "(extra featurestore[icu]); characters makes every character a token."),
    _with_reading,
)  # fmt: skip
"""Options that say how corpora are read; the command gets them as ``reading``, a :class:`Reading`."""


def parse_size(text: str) -> int:
    """Return the bytes that a size such as ``64MiB`` or ``500 MB`` means.

    Raises
    ------
    UsageError
        If it means nothing.
    """
    stripped = text.strip().replace(" ", "")
    digits = stripped.rstrip("BKMGTIbkmgti")
    unit = stripped[len(digits) :].upper()
    try:
        n_bytes = int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a size: write 67108864, 64MiB or 500MB") from error
    if n_bytes < 1:
        raise UsageError(f"a size of {text!r} is less than a byte")
    return n_bytes
