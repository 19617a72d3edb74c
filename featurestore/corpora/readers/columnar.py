"""Evidence that a file taken for text, by its name or by nothing, has a word on each line or labels in it.

Such a file read as text gives sound sentences of one word and its tag, and wrong vectors. So it is refused,
naming the format; whoever names the format text has it read as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.corpora.contract.whitespace import WHITESPACE, whitespace_tokens
from featurestore.corpora.readers.fasttext import PREFIX
from featurestore.corpora.tokenizing.unspaced import unparted

_DOCSTART = "-DOCSTART-"
# How the first sentence of CoNLL-U begins: with its first word, a range from it, or an empty node before it.
_FIRST_ID = re.compile(r"1|1-[0-9]+|0\.1")
SPAN_TAG = re.compile(r"[oO0]|[BIESLUM][-_]\S+|[-_]")
"""Matches a tag of the IOB family, or one that is missing."""
_CLASS_TAG = re.compile(r"[A-Z][A-Z0-9$]*(?:[-_:|=+.][A-Za-z0-9$]+)*|[^\w\s]+")
"""Matches a part of speech as treebanks write them: NOUN, NN, PRP$, V-PRS, a sign for itself."""

_NAMED_SPAN = re.compile(r"[BIESLU][-_][A-Za-z]")
_WORD_CLASSES = frozenset([
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT",
    "SCONJ", "SYM", "VERB", "X", "_",
    "CC", "CD", "DT", "EX", "FW", "IN", "JJ", "JJR", "JJS", "LS", "MD", "NN", "NNS", "NNP", "NNPS", "PDT",
    "POS", "PRP", "PRP$", "RB", "RBR", "RBS", "RP", "TO", "UH", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ",
    "WDT", "WP", "WP$", "WRB", ".", ",", ":", "``", "''", "-LRB-", "-RRB-", "$", "#", "HYPH",
])  # fmt: skip
"""The universal parts of speech, and the Penn Treebank's."""
_SEQUENCE = re.compile(r"[A-Za-z*.-]{10,}|[A-Z*.-]+")

_MOST_COLUMNS = 14
_TAGGED_SHARE = 0.9
_SAME_SHARE = 0.98
_OUTSIDE_SHARE = 0.3
_LEAST_LINES, _LEAST_ROWS = 2, 3
_LEAST_WORDS, _LONGEST_WORD = 10, 30


@dataclass(frozen=True, slots=True)
class Finding:
    """What a file is rather than text.

    Attributes
    ----------
    index : int
        The line that shows it, from 0.
    reads_as : str
        What it looks like, for the message.
    format : str
        The format to name.
    """

    index: int
    reads_as: str
    format: str


def not_text(lines: Sequence[str]) -> Finding | None:
    """Return what the first lines of a file show it to be, if not text."""
    content = [
        (index, line)
        for index, line in enumerate(lines)
        if line.strip(WHITESPACE) and not line.startswith("#")
    ]
    if not content:
        return None
    first, line = content[0]
    fields = line.split("\t")
    if line.startswith(_DOCSTART):
        return Finding(first, "CoNLL-2003, with a token on each line", "conll")
    if len(fields) == 10 and _FIRST_ID.fullmatch(fields[0]):
        return Finding(first, "CoNLL-U, with a token on each line", "conllu")
    if line.startswith(">") and _is_fasta([line for _, line in content]):
        return Finding(first, "FASTA, with a name and a sequence", "fasta")
    labelled = [index for index, line in content if line.startswith(PREFIX)]
    if 2 * len(labelled) > len(content):
        return Finding(labelled[0], "fastText's, with labels before the text", "fasttext")
    has_blank_lines = any(not line.strip(WHITESPACE) for line in lines[first : content[-1][0]])
    if _is_columns([line for _, line in content], has_blank_lines):
        return Finding(first, "a column file, with a token and its tag on each line", "conll")
    if _is_table([line for _, line in content]):
        return Finding(first, "a table, with tabs between a text and what belongs to it", "tsv")
    if has_blank_lines and _is_words([line for _, line in content]):
        return Finding(first, "a column file, with one token on each line", "conll")
    return None


def _is_table(lines: Sequence[str]) -> bool:
    """Return whether each line has the same columns between tabs, and a text in one of them."""
    rows = [line.strip(WHITESPACE.replace("\t", "")).split("\t") for line in lines]
    widths = set(map(len, rows))
    return (
        len(rows) >= _LEAST_ROWS
        and widths.isdisjoint({1})
        and len(widths) == 1
        and any(all(" " in field for field in column) for column in zip(*rows, strict=True))
    )


def _is_fasta(lines: Sequence[str]) -> bool:
    """Return whether lines are records of FASTA: names, and sequences without blanks."""
    sequences = [line.strip() for line in lines if not line.startswith(">")]
    return bool(sequences) and all(map(_SEQUENCE.fullmatch, sequences))


def _is_words(lines: Sequence[str]) -> bool:
    """Return whether each line holds one word, and no text without spaces."""
    if len(lines) < _LEAST_WORDS:
        return False
    return all(
        len(whitespace_tokens(line)) == 1 and len(line) <= _LONGEST_WORD and not unparted(line)
        for line in lines
    )


def _is_columns(lines: Sequence[str], has_blank_lines: bool) -> bool:
    """Return whether each line holds a word and its tags."""
    rows = [fields for fields in map(whitespace_tokens, lines) if not fields[0].startswith(_DOCSTART)]
    pairs = [fields for fields in rows if 1 < len(fields) <= _MOST_COLUMNS]
    if len(pairs) < max(_LEAST_LINES, _TAGGED_SHARE * len(rows)):
        return False
    last = [fields[-1] for fields in pairs]
    if _are_span_tags(last) or _is_tag_first(pairs):
        return True
    # Tags of entities without a position, of which O is the commonest.
    if all(map(_CLASS_TAG.fullmatch, last)) and last.count("O") >= _OUTSIDE_SHARE * len(last):
        return True
    lengths = [len(fields) for fields in rows]
    if lengths.count(len(pairs[0])) < _SAME_SHARE * len(rows) or not has_blank_lines:
        return False
    n_named = sum(tag[0].isalpha() for tag in last)
    if _WORD_CLASSES.issuperset(last) and 2 * n_named > len(last):
        return True
    # As many different tags as lines are no tags: a list of names may well be in capitals.
    n_tags = len(set(last))
    return 4 * n_tags <= len(last) and 2 * n_named > len(last) and all(map(_CLASS_TAG.fullmatch, last))


def _is_tag_first(pairs: Sequence[Sequence[str]]) -> bool:
    return set(map(len, pairs)) == {2} and _are_span_tags([fields[0] for fields in pairs])


def _are_span_tags(tags: Sequence[str]) -> bool:
    n_tags = sum(SPAN_TAG.fullmatch(tag) is not None for tag in tags)
    return n_tags >= _TAGGED_SHARE * len(tags) and any(tag == "O" or _NAMED_SPAN.match(tag) for tag in tags)
