"""The corpus formats: their names, the file names that mean them, their readers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from featurestore.corpora.columns.conll import conll_reader
from featurestore.corpora.columns.conllu import conllu_reader
from featurestore.corpora.contract.corpus import Corpus
from featurestore.corpora.contract.options import Reader, ReadOptions
from featurestore.corpora.files.compression import without_compression
from featurestore.corpora.files.containers import advice_by_name
from featurestore.corpora.files.source import STDIN
from featurestore.corpora.libraries.arrow import ArrowFiles
from featurestore.corpora.libraries.data_sets import is_saved, saved_table
from featurestore.corpora.libraries.spacy_docs import DocsCorpus
from featurestore.corpora.libraries.table import TableCorpus
from featurestore.corpora.readers.fasta import fasta_reader
from featurestore.corpora.readers.fasttext import fasttext_reader
from featurestore.corpora.readers.jsonl import jsonl_reader
from featurestore.corpora.readers.text import text_reader
from featurestore.corpora.tables.reader import csv_reader, tsv_reader
from featurestore.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Format:
    """Either ``make_reader``, of lines, or ``open`` is there."""

    make_reader: Callable[[ReadOptions], Reader] | None
    extensions: tuple[str, ...]
    takes: tuple[str, ...] = ()
    open: Callable[[ReadOptions], Corpus] | None = None


def _parquet(options: ReadOptions) -> Corpus:
    return TableCorpus(ArrowFiles(options.path, "parquet", [options.path]), options)


def _arrow(options: ReadOptions) -> Corpus:
    return TableCorpus(ArrowFiles(options.path, "arrow", [options.path]), options)


def _saved(options: ReadOptions) -> Corpus:
    return TableCorpus(saved_table(options.path), options)


_OF_ROWS = ("missing_label", "empty_token", "document", "sentence")

DATASETS = "datasets"

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
    "parquet": _Format(None, (".parquet", ".pq"), _OF_ROWS, _parquet),
    "arrow": _Format(None, (".arrow", ".feather", ".ipc"), _OF_ROWS, _arrow),
    DATASETS: _Format(None, (), _OF_ROWS, _saved),
    "spacy": _Format(None, (".spacy",), ("missing_label", "empty_token", "boundaries"), DocsCorpus),
}
_IN_MEMORY = {"pandas": "arrow", "polars": "arrow"}
"""Formats that no file has, and the one whose options they take."""


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
    found = format_by_name(path)
    if found is not None:
        return found
    advice = advice_by_name(without_compression(path))
    if advice is not None:
        raise UsageError(f"{path}: {advice}")
    known = ", ".join(f"{name} ({' '.join(format_.extensions)})" for name, format_ in _FORMATS.items())
    raise UsageError(
        f"{path}: the file name does not tell its format: name one with --format (in Python format=): {known}"
    )


def format_by_name(path: str) -> str | None:
    """Return the format that the name of a file means, ``datasets`` for a folder it saved; None for none."""
    if os.path.isdir(path):
        return DATASETS if is_saved(path) else None
    name = without_compression(path)
    fitting = [
        (len(extension), format_name)
        for format_name, format_ in _FORMATS.items()
        for extension in format_.extensions
        if name.endswith(extension)
    ]
    return max(fitting)[1] if fitting else None


def require_options(format_name: str, options: ReadOptions) -> None:
    """Refuse options that make no sense for a format.

    Raises
    ------
    UsageError
        Naming the formats they are for.
    """
    takes = _FORMATS[_IN_MEMORY.get(format_name, format_name)].takes
    plain = ReadOptions("")
    for name in sorted({name for format_ in _FORMATS.values() for name in format_.takes}):
        if getattr(options, name) != getattr(plain, name) and name not in takes:
            takers = ", ".join(other for other, format_ in _FORMATS.items() if name in format_.takes)
            raise UsageError(
                f"{options.path}: {name.replace('_', ' ')} makes no sense for the format {format_name}, only "
                f"for {takers}: leave it out"
            )


def opened_whole(format_name: str, options: ReadOptions) -> Corpus | None:
    """Return the corpus of a file that does not consist of lines; None for the format of one that does.

    Raises
    ------
    UsageError
        If the options make no sense for the format, or a package is missing.
    CorpusError
        If the file cannot be read.
    """
    make = _FORMATS[format_name].open
    if make is None:
        return None
    require_options(format_name, options)
    return make(options)


def make_reader(format_name: str, options: ReadOptions) -> Reader:
    """Return the reader of a format that consists of lines.

    Raises
    ------
    UsageError
        If the options make no sense for the format.
    """
    require_options(format_name, options)
    make = _FORMATS[format_name].make_reader
    if make is None:
        raise UsageError(f"{options.path}: the format {format_name} has no lines")
    return make(options)
