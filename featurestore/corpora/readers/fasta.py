"""FASTA: proteins or nucleotides, one token per residue, as protein models (SeqVec) were trained on them.

A record is a line ``>name description`` and its sequence on the lines behind it, wrapped anywhere. The name
(up to the first blank) becomes the example's ``id``. As SeqVec does, residues are made upper case (lower case
marks repeats) and gaps (``-``, ``.``) are dropped, and so is the ``*`` for the stop at the end of a sequence;
each of these is said once. Lines that begin with ``;`` are comments. A label is the value of ``KEY=value`` in
the description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NoReturn

from featurestore import limits
from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.options import CHARACTERS, Reader, ReadOptions
from featurestore.errors import CorpusError, LabelError, UsageError

_GAPS = str.maketrans("", "", "-.")
_OTHER_SIGN = re.compile(r"[^A-Za-z*.-]")
_SHOWN = 60


def fasta_reader(options: ReadOptions) -> Reader:
    """Return a reader of FASTA.

    Raises
    ------
    UsageError
        If a text column, a header row or a tokeniser other than ``characters`` is asked for.
    """
    if options.text_column is not None:
        raise UsageError(f"{options.path}: FASTA has no columns: leave the text column out")
    if options.tokenize not in (None, CHARACTERS):
        raise UsageError(
            f"{options.path}: each residue of FASTA is a token: leave tokenize out (or --tokenize characters)"
        )

    def read(lines: Iterable[str]) -> Iterator[Example]:
        header, start, parts, n_residues = "", 0, list[str](), 0
        for number, line in enumerate(lines, 1):
            if line.startswith(">"):
                if start:
                    yield _record(header, start, parts, options)
                header, start, parts, n_residues = line[1:].strip(), number, [], 0
            elif line.startswith(";") or not (sequence := "".join(line.split())):
                continue
            elif not start:
                raise CorpusError(
                    f"expected '>' and the name of a record, found {line[:_SHOWN]!r}: is this FASTA?",
                    path=options.path,
                    line=number,
                )
            else:
                parts.append(_checked(sequence, number, options))
                n_residues += len(parts[-1])
                if n_residues > limits.MAX_SENTENCE_TOKENS:
                    raise CorpusError(
                        f"the record has over {limits.MAX_SENTENCE_TOKENS:,} residues: cut it into pieces",
                        path=options.path,
                        line=start,
                    )
        if start:
            yield _record(header, start, parts, options)

    return read


def _checked(sequence: str, number: int, options: ReadOptions) -> str:
    """Return a line's residues in upper case, without gaps; only ``*`` is left beside them."""
    if other := _OTHER_SIGN.search(sequence):
        raise CorpusError(
            f"{other.group()!r} is not a residue: expected letters, gaps (- or .), or * at the end",
            path=options.path,
            line=number,
        )
    residues = sequence.upper()
    if residues != sequence:
        options.warn_once("residues in lower case are read in upper case, first on line %d", number)
    if "-" in residues or "." in residues:
        options.warn_once(
            "gaps are dropped: labels of residues must do without them; first on line %d", number
        )
        residues = residues.translate(_GAPS)
    return residues


def _record(header: str, start: int, parts: list[str], options: ReadOptions) -> Example:
    name = header.split(maxsplit=1)[0] if header else ""
    if not name:
        raise CorpusError("a record without a name: expected '>' and its name", path=options.path, line=start)
    sequence = "".join(parts)
    residues = sequence.removesuffix("*")
    if residues != sequence:
        options.warn_once("the * for the stop at the end of sequences is dropped, first of %s", name)
    if "*" in residues:
        raise CorpusError(
            f"a stop (*) within the sequence of {name}, at residue {residues.index('*') + 1}: translate the "
            "right frame, or split the record there",
            path=options.path,
            line=start,
        )
    if not residues:
        _refuse_empty(name, start, options)
    label = None if options.label is None else _label(name, header, start, options)
    return Example(tuple(residues), label, options.path, start, name)


def _refuse_empty(name: str, start: int, options: ReadOptions) -> NoReturn:
    raise CorpusError(
        f"the record {name} has no sequence: expected its residues on the lines behind the name",
        path=options.path,
        line=start,
    )


def _label(name: str, header: str, start: int, options: ReadOptions) -> str:
    found = re.search(rf"(?:^|\s){re.escape(str(options.label))}=(\S+)", header)
    if found is None:
        raise LabelError(
            f"no {options.label}=VALUE, asked for as label, in the description: {header[:_SHOWN]!r}",
            path=options.path,
            line=start,
        )
    return found[1]
