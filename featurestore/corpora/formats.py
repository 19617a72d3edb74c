"""The corpus formats: their names, the file names that mean them, their readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featurestore.corpora.columns.conll import conll_reader
from featurestore.corpora.columns.conllu import conllu_reader
from featurestore.corpora.compression import without_compression
from featurestore.corpora.containers import advice_by_name
from featurestore.corpora.contract.options import Reader, ReadOptions
from featurestore.corpora.readers.fasta import fasta_reader
from featurestore.corpora.readers.fasttext import fasttext_reader
from featurestore.corpora.readers.jsonl import jsonl_reader
from featurestore.corpora.readers.text import text_reader
from featurestore.corpora.source import STDIN
from featurestore.corpora.tables.reader import csv_reader, tsv_reader
from featurestore.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Format:
    make_reader: Callable[[ReadOptions], Reader]
    extensions: tuple[str, ...]
    takes: tuple[str, ...] = ()


_FORMATS = {
    "text": _Format(text_reader, (".txt", ".text", ".tok")),
    "conll": _Format(
        conll_reader,
        (".conll", ".conllup", ".bio", ".iob", ".iob2", ".cupt"),
        ("header", "comments", "missing_label", "empty_token", "boundaries"),
    ),
    "conllu": _Format(conllu_reader, (".conllu",), ("missing_label", "empty_token")),
    "csv": _Format(csv_reader, (".csv",), ("header", "separator", "quotes", "document")),
    "tsv": _Format(tsv_reader, (".tsv",), ("header", "separator", "quotes", "document")),
    "jsonl": _Format(jsonl_reader, (".jsonl", ".ndjson"), ("missing_label", "empty_token", "document")),
    "fasttext": _Format(fasttext_reader, (".fasttext", ".ft.txt")),
    "fasta": _Format(fasta_reader, (".fasta", ".fa", ".faa", ".fas", ".fna")),
}

FORMAT_NAMES = tuple(_FORMATS)


def format_of(path: str, asked: str | None) -> str:
    """Return the name of a file's format.

    Parameters
    ----------
    path : str
        The file; ``.gz``, ``.bz2``, ``.xz`` or ``.zst`` at its end is ignored. Standard input is plain text.
    asked : str or None
        The format the caller names, which goes before the file name's.

    Raises
    ------
    UsageError
        If there is no such format, or the file name tells none.
    """
    if asked is not None:
        if asked not in _FORMATS:
            raise UsageError(f"no corpus format {asked!r}: expected one of {', '.join(FORMAT_NAMES)}")
        return asked
    if path == STDIN:
        return "text"
    name = without_compression(path)
    fitting = [
        (len(extension), format_name)
        for format_name, format_ in _FORMATS.items()
        for extension in format_.extensions
        if name.endswith(extension)
    ]
    if fitting:
        return max(fitting)[1]
    advice = advice_by_name(name)
    if advice is not None:
        raise UsageError(f"{path}: {advice}")
    known = ", ".join(f"{name} ({' '.join(format_.extensions)})" for name, format_ in _FORMATS.items())
    raise UsageError(
        f"{path}: the file name does not tell its format: name one with --format (in Python format=): {known}"
    )


def make_reader(format_name: str, options: ReadOptions) -> Reader:
    """Return the reader of a format.

    Raises
    ------
    UsageError
        If the options make no sense for the format.
    """
    found = _FORMATS[format_name]
    plain = ReadOptions("")
    for name in sorted({name for format_ in _FORMATS.values() for name in format_.takes}):
        if getattr(options, name) != getattr(plain, name) and name not in found.takes:
            takers = ", ".join(other for other, format_ in _FORMATS.items() if name in format_.takes)
            raise UsageError(
                f"{options.path}: {name.replace('_', ' ')} makes no sense for the format {format_name}, only "
                f"for {takers}: leave it out"
            )
    return found.make_reader(options)
