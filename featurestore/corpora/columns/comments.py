"""Lines that begin with ``#`` before a sentence: comments, or words such as ``#`` and ``#NFL``.

Comments, whatever the file (see :data:`CONVENTION`): ``# name = value`` and ``# newpar`` of CoNLL-U, ``#begin
document`` and ``#end document`` of CoNLL-2012, ``#FORMAT=`` and ``#Text=`` of WebAnno, ``###MEDLINE:1`` of
GENIA. Of the others:

1. Where ``# global.columns`` names the columns, a line that has them all, with tabs, is a word. Where a
   column numbers the words, a line without such a number is a comment (GermEval: ``#``, tab, source).
2. A line of another number of fields than the rows below it is a comment.
3. A line whose last field is one that other rows of the file end in, or is ``#`` itself, is a word.
4. Where tabs separate the columns, so is a line whose first field is more than ``#`` and holds no space
   (``#NFL``).
5. Of what is left, in files with spaces between columns, ``#`` before what does not look like a label begins
   a comment (``# doc1``), with a warning. Anything else may be either and is refused, naming the options.
"""

from __future__ import annotations

import re
from enum import Enum

CONVENTION = re.compile(
    r"# +[A-Za-z][\w.:-]* +=(?: |$)|# *new(?:doc|par)(?: +id *=.*)? *$|# *(?:begin|end) document\b"
    r"|#(?:FORMAT|Text|Sentence\.\w+|T_SP|T_CH|T_RL)=|### *MEDLINE:"
)
"""What begins a comment in any file."""

GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=(.*)", re.IGNORECASE)
"""The comment of CoNLL-U Plus that names the columns."""

DOCUMENT = re.compile(r"# *(?:begin|end) document\b")
"""A comment of CoNLL-2012 that also ends a sentence."""

_NEW_DOCUMENT = re.compile(
    r"# *newdoc(?: +id *= *(\S.*?))? *$|# *begin document\b *(.*?) *$"
    r"|# *(?:[\w-]+:)?document_id *= *(\S.*?) *$"
)


def new_document(text: str) -> str | None:
    """Return the name of the document that a comment begins, "" if it has none; None if it begins none.

    ``# newdoc`` and ``# newdoc id = NAME`` of CoNLL-U, ``#begin document (NAME); part N`` of CoNLL-2012,
    ``# hipe2022:document_id = NAME`` of HIPE.
    """
    found = _NEW_DOCUMENT.match(text)
    return None if found is None else found[1] or found[2] or found[3] or ""


_LIKE_A_LABEL = re.compile(r"[BIESLUM]-.*|[^a-z0-9]+")


class Verdict(Enum):
    """What a line that begins with ``#`` is."""

    COMMENT = "a comment"
    PROBABLY_COMMENT = "a comment, to be mentioned"
    WORD = "a word"
    UNCLEAR = "either"


def judge(fields: list[str], n_columns: int, *, tabs: bool, is_known: bool) -> Verdict:
    """Tell what a line is by the rules 2 to 5.

    Parameters
    ----------
    fields : list of str
        The line's.
    n_columns : int
        How many fields the rows below it have.
    tabs : bool
        Whether tabs separate the columns.
    is_known : bool
        Whether another row of the file ends in the same field.
    """
    if len(fields) != n_columns:
        ragged_word = tabs and len(fields) > 1 and not _holds_space(fields[0]) and len(fields[0]) > 1
        return Verdict.UNCLEAR if ragged_word else Verdict.COMMENT
    if n_columns == 1 or is_known or fields[-1] == "#" or fields[-1] == fields[0]:
        return Verdict.WORD
    if tabs:
        return Verdict.UNCLEAR if fields[0] == "#" or _holds_space(fields[0]) else Verdict.WORD
    is_comment = fields[0] == "#" and not _LIKE_A_LABEL.fullmatch(fields[-1])
    return Verdict.PROBABLY_COMMENT if is_comment else Verdict.UNCLEAR


def _holds_space(field: str) -> bool:
    return " " in field.strip(" ")
