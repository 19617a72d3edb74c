"""fastText's training files: a sentence per line, with its label as a word ``__label__NAME``.

Words stand between ASCII whitespace; each that begins with ``__label__`` is a label, wherever it stands, as
fastText has it. Lines without words are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import Reader, ReadOptions
from featurestore.corpora.contract.whitespace import whitespace_tokens
from featurestore.corpora.tokenizing.tokenizers import make_tokenizer
from featurestore.errors import LabelError, UsageError

PREFIX = "__label__"
_NAMES = ("label", PREFIX)


def fasttext_reader(options: ReadOptions) -> Reader:
    """Return a reader of fastText's files; their label is called ``label``.

    With ``tokenize`` the text without its labels is tokenised, as one sentence.

    Raises
    ------
    UsageError
        If another label, a text column or a header row is asked for.
    """
    if options.text_column is not None:
        raise UsageError(f"{options.path}: fastText's files have no columns: leave the text column out")
    if options.label is not None and options.label not in _NAMES:
        raise UsageError(
            f"{options.path}: the label of fastText's files is called label: expected --label label, found "
            f"{options.label!r}"
        )
    tokenizer = make_tokenizer(options)

    def read(lines: Iterable[str]) -> Iterator[Example]:
        for number, line in enumerate(lines, 1):
            words = whitespace_tokens(line)
            labels = [word for word in words if word.startswith(PREFIX)]
            tokens = tuple(word for word in words if not word.startswith(PREFIX)) if labels else words
            if tokenizer is not None:
                tokens = tokenizer.tokens(" ".join(tokens), number)
            if not tokens:
                continue
            label = None if options.label is None else _label(labels, options, number)
            yield Example(tokens, label, options.path, number)

    return read


def _label(labels: list[str], options: ReadOptions, number: int) -> str:
    names = [label.removeprefix(PREFIX) for label in labels]
    if len(names) != 1 or not names[0]:
        found = "none" if not names else ", ".join(map(repr, names))
        raise LabelError(
            f"expected one label ({PREFIX}NAME) on the line, found {found}: several labels of one sentence "
            "are not read",
            path=options.path,
            line=number,
        )
    return names[0]
