"""CoNLL-U, the format of Universal Dependencies: ten tab-separated columns, one word per line.

Comment lines, multiword ranges (``1-2``) and empty nodes (``8.1``) are skipped. Labels come from a column,
or from one key of FEATS or MISC (``feats.Number``, ``misc.NER``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from featurestore.corpora.example import Example
from featurestore.corpora.options import Reader, ReadOptions, parse_column, refuse_tokenize
from featurestore.corpora.readers.text import WHITESPACE
from featurestore.errors import CorpusError, LabelError, UsageError

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_KEYED = ("feats", "misc")
# In these an underscore means "not annotated"; in the others it is a value (no features, the word "_").
_NEVER_EMPTY = ("upos", "xpos", "head", "deprel")
SKIPPED_ID = re.compile(r"[0-9]+[-.][0-9]+")

_Fields = list[str]
_Place = tuple[str, int]
_GetLabel = Callable[[_Fields, _Place], str]


def conllu_reader(options: ReadOptions) -> Reader:
    """Return a reader of CoNLL-U.

    ``text_column`` is a column's name or 1-based number (default ``form``). ``label`` is the same, or
    ``feats.KEY`` or ``misc.KEY``. A word without the FEATS key has the label ``_``, since most features do
    not apply to most words; a word without the MISC key is an error.

    Raises
    ------
    UsageError
        If the options name no column, or ask to tokenise.
    """
    refuse_tokenize(options, "CoNLL-U")
    form = 1 if options.text_column is None else _column(options.text_column, "text column", options.path)
    column_name, _, key = (options.label or "").partition(".")
    feature = key if column_name.lower() == "feats" else ""
    get_label = None if options.label is None else _label_getter(options.label, options.path)

    def read(lines: Iterable[str]) -> Iterator[Example]:
        tokens: list[str] = []
        labels: list[str] = []
        start = 0
        feature_seen = False
        for number, line in enumerate(lines, 1):
            if line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != 10:
                if line.strip(WHITESPACE):
                    raise _bad_line(line, (options.path, number))
                if tokens:
                    yield _example(tokens, labels, options, start)
                    tokens, labels = [], []
                continue
            # Anything else than the next integer is rare, so the exact checks wait until then.
            if fields[0] != str(len(tokens) + 1):
                if SKIPPED_ID.fullmatch(fields[0]):
                    continue
                raise _bad_id(fields[0], len(tokens) + 1, (options.path, number))
            if not fields[form]:
                raise CorpusError(
                    f"the {COLUMNS[form].upper()} column is empty: a word needs at least one character",
                    path=options.path,
                    line=number,
                )
            if not tokens:
                start = number
            tokens.append(fields[form])
            if get_label is not None:
                label = get_label(fields, (options.path, number))
                labels.append(label)
                feature_seen = feature_seen or label != "_"
        if tokens:
            yield _example(tokens, labels, options, start)
        if feature and start and not feature_seen:
            raise LabelError(
                f"no word has the feature {feature!r} in FEATS: check the spelling (Number, Tense, ...)",
                path=options.path,
            )

    return read


def _example(tokens: list[str], labels: list[str], options: ReadOptions, line: int) -> Example:
    return Example(tuple(tokens), None if options.label is None else tuple(labels), options.path, line)


def _column(text: str, what: str, path: str) -> int:
    column = parse_column(text, what)
    if isinstance(column, str):
        column = COLUMNS.index(column.lower()) if column.lower() in COLUMNS else len(COLUMNS)
    if column >= len(COLUMNS):
        raise UsageError(
            f"{path}: {what} {text!r} is no CoNLL-U column: give 1 to 10, one of {', '.join(COLUMNS)}, "
            "or for labels feats.KEY or misc.KEY"
        )
    return column


def _label_getter(label: str, path: str) -> _GetLabel:
    column_name, dot, key = label.partition(".")
    if dot and column_name.lower() in _KEYED and key:
        return _keyed_getter(column_name.lower(), key)
    column = _column(label, "label", path)
    name = COLUMNS[column]

    def get(fields: _Fields, place: _Place) -> str:
        value = fields[column]
        if not value or (value == "_" and name in _NEVER_EMPTY):
            pairs = zip(COLUMNS[1:], fields[1:], strict=True)
            there = ", ".join(f"{column}={value}" for column, value in pairs if value not in ("", "_"))
            raise LabelError(
                f"the word has no {name.upper()}, which was asked for as label (it has {there})",
                path=place[0],
                line=place[1],
            )
        return value

    return get


def _keyed_getter(name: str, key: str) -> _GetLabel:
    column = COLUMNS.index(name)
    prefix = key + "="

    def get(fields: _Fields, place: _Place) -> str:
        items = fields[column].split("|")
        for item in items:
            if item.startswith(prefix) and len(item) > len(prefix):
                return item[len(prefix) :]
        if name == "feats":
            return "_"
        raise LabelError(
            f"the word {fields[1]!r} has no {key!r} in {name.upper()}, which was asked for as label "
            f"(it has {', '.join(items)}): write {key}=O for a word without",
            path=place[0],
            line=place[1],
        )

    return get


def _bad_line(line: str, place: _Place) -> CorpusError:
    hint = "" if "\t" in line else " (is it separated by spaces?)"
    return CorpusError(
        f"expected the 10 tab-separated columns of CoNLL-U, found {line.count(chr(9)) + 1}{hint}: "
        "for other column files give the format conll",
        path=place[0],
        line=place[1],
    )


def _bad_id(found: str, expected: int, place: _Place) -> CorpusError:
    hint = "is a blank line missing?" if found == "1" else "a sentence's words are numbered 1, 2, 3, ..."
    message = f"expected word number {expected}, found {found!r}: {hint}"
    return CorpusError(message, path=place[0], line=place[1])
