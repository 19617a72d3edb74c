"""Corpora: a file or standard input as a re-iterable stream of examples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import xxhash

from featurestore.corpora.contract.boundaries import boundaries_of
from featurestore.corpora.contract.corpus import Corpus
from featurestore.corpora.contract.example import Example
from featurestore.corpora.contract.identity import identity_of_reading
from featurestore.corpora.contract.label_names import checked_label_names, named
from featurestore.corpora.contract.lines import read_lines
from featurestore.corpora.contract.options import (
    ReadOptions,
    column_text,
    empty_token_name,
    missing_label_name,
    quotes_name,
    separator_sign,
    tokenizer_name,
)
from featurestore.corpora.contract.sizes import check_size
from featurestore.corpora.files.expanding import expanded, means_several
from featurestore.corpora.files.source import STDIN, Source
from featurestore.corpora.foreign import refuse_foreign
from featurestore.corpora.formats import (
    DATASETS,
    format_by_name,
    format_of,
    make_reader,
    opened_whole,
    require_options,
)
from featurestore.corpora.joined import JoinedCorpus
from featurestore.corpora.libraries.objects import corpus_of, format_of_object, kind_of, name_of
from featurestore.errors import CorpusChangedError, CorpusError, UsageError

__all__ = ["Corpus", "FileCorpus", "open_corpus"]


class FileCorpus(Corpus):
    """A corpus read from a file or standard input, a few lines at a time.

    Iterating raises :class:`CorpusError` (or its subclass :class:`LabelError`) for what is wrong in the
    file, after the examples before it; at the end also if the file held no sentence.

    Parameters
    ----------
    options : ReadOptions
        The file and how to read it.
    format_name : str or None
        One of the names of :mod:`featurestore.corpora.formats`; None for the one that the file's name tells.

    Raises
    ------
    CorpusError
        If there is no such file, or it may not be read.
    UsageError
        If there is no such format, its name tells none, or the options make no sense for it.
    """

    def __init__(self, options: ReadOptions, format_name: str | None) -> None:
        self.path = options.path
        self._options = options
        # Before the format is found by the name, which does not matter for a missing file or a directory.
        self._source = Source(options.path)
        self.format = format_of(options.path, format_name)
        self._reader = make_reader(self.format, options)
        self._first_digest: bytes | None = None
        self._latest_digest: bytes | None = None

    def __iter__(self) -> Iterator[Example]:
        digest = xxhash.xxh3_128()
        n_sentences = 0
        with closing(self._source.chunks(digest)) as chunks:
            for example in self._examples(chunks):
                check_size(example)
                n_sentences += 1
                yield example
        self._passed(digest.digest())
        if not n_sentences:
            raise CorpusError(
                f"no sentences in the file, read as {self.format}: is it empty, or of another format?",
                path=self.path,
            )

    def _passed(self, digest: bytes) -> None:
        self._latest_digest = digest
        if self._first_digest is None:
            self._first_digest = digest

    def lines(self) -> Iterator[str]:
        """Yield the lines of the file, decoded, without their ends: for what no example holds."""
        with closing(self._source.chunks(xxhash.xxh3_128())) as chunks:
            yield from read_lines(chunks, self._options)

    def _examples(self, chunks: Iterable[bytes]) -> Iterator[Example]:
        examples = self._reader(read_lines(chunks, self._options))
        names = self._options.label_names
        return examples if names is None else (named(example, names) for example in examples)

    def check_unchanged(self) -> None:
        """Compare the latest complete pass over the file with the first one.

        Raises
        ------
        CorpusChangedError
            If they read different bytes (of a compressed file: different uncompressed bytes).
        """
        if self._latest_digest != self._first_digest:
            raise CorpusChangedError(
                "the file changed between two passes over it: leave it alone while it is read, and run again",
                path=self.path,
            )

    def identity(self) -> dict[str, Any] | None:
        """Return a hash of the file's bytes, its name, the options, and a hash of the readers' code.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        return self._identity(self._source.content_hash())

    def identity_read(self) -> dict[str, Any] | None:
        """Return the identity of the bytes that the latest complete pass has read."""
        return self._identity(self._source.content)

    def _identity(self, content: str | None) -> dict[str, Any] | None:
        if content is None:
            return None
        return {"content": content, **identity_of_reading(self._options, self.format)}

    def findings(self) -> dict[str, Any]:
        """Return what was warned of and left out, and the digest of the uncompressed bytes."""
        digest = self._latest_digest or b""
        return {**self._options.findings(), "digest": digest.hex()}

    def recall(self, identity: Mapping[str, Any], findings: Mapping[str, Any]) -> None:
        """Be as after a pass over the file, which is not read: see :meth:`Corpus.recall`."""
        content, digest = str(identity["content"]), bytes.fromhex(findings["digest"])
        self._options.recall(findings)
        self._source.passed(content)
        self._passed(digest)

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read by the latest pass (compressed bytes, for a compressed file)."""
        return self._source.bytes_read

    @property
    def n_bytes(self) -> int | None:
        """Size of the file on disk; None for standard input or a pipe before the first pass."""
        return self._source.n_bytes

    @property
    def n_skipped(self) -> int:
        """How many rows, objects and tokens the latest complete pass left out because they are empty."""
        return self._options.n_skipped


def open_corpus(
    path: str | os.PathLike[str] | Any,
    *,
    format: str | None = None,
    text_column: str | int | None = None,
    label: str | int | None = None,
    tokenize: bool | str = False,
    header: bool | None = None,
    separator: str | None = None,
    label_names: Sequence[str] | None = None,
    comments: bool | None = None,
    missing_label: str = "error",
    empty_token: str = "error",
    boundaries: str | int | None = None,
    quotes: str | None = None,
    document: str | int | None = None,
    sentence_column: str | int | None = None,
) -> Corpus:
    """Open a file of sentences, or what holds them in another library; it is read when it is iterated.

    Files of text are UTF-8 (a byte order mark and CRLF line ends are accepted) and may be compressed: gzip,
    bzip2, xz or Zstandard.

    Parameters
    ----------
    path : str, path or object
        The file, or ``-`` for standard input, which is kept in a temporary file to be readable again; a
        folder, for the files in it and below it, or a pattern such as ``data/*.conllu``; a folder that
        ``Dataset.save_to_disk`` made; or an object: a Dataset of datasets, a frame of pandas or polars, a
        table of pyarrow, a Doc or DocBin of spaCy.
    format : str, optional
        ``text``, ``conll``, ``conllu``, ``csv``, ``tsv``, ``jsonl``, ``fasttext``, ``fasta``, ``parquet``,
        ``arrow``, ``datasets`` or ``spacy``; by default what the file name's extension means, and ``text``
        for standard input.
    text_column : str or int, optional
        Where the text or tokens are: the name of a column or of a JSON field, or the column's 1-based number
        (not of a JSON field; in a table, where no column has that name).
    label : str or int, optional
        Where the labels are, in the same way; for CoNLL also ``last``, for CoNLL-U also ``feats.KEY`` and
        ``misc.KEY``, for spaCy ``tag``, ``pos``, ``lemma``, ``dep``, ``morph``, ``ent`` or ``cats``. Without
        it no labels are read. Integers that a ClassLabel of datasets names get their names.
    tokenize : bool or str
        Tokenise raw text: True or ``rules`` by :mod:`featurestore.corpora.tokenizing.rules`; ``icu`` also
        parts scripts that write no spaces between words (:mod:`featurestore.corpora.tokenizing.unspaced`);
        ``characters`` takes every character. Otherwise a text's tokens are what whitespace separates.
    comments : bool, optional
        Whether lines of a column file that begin with ``#`` before the first word of a sentence are comments,
        not words; by default decided by the rows.
    missing_label : str
        What is done with a word that has no label, such as an XPOS of ``_`` or a key missing in MISC:
        ``error``, or ``ignore``: its label is :data:`~featurestore.corpora.contract.example.IGNORED`, which
        counts neither in training nor in evaluation.
    empty_token : str
        What is done with an empty token, that is a row of a column file or of CoNLL-U without one, or an
        empty string in a list of JSON Lines: ``error``, or ``skip``, which leaves it out with its label and
        counts it (``Corpus.n_skipped``).
    boundaries : str or int, optional
        Where sentences of a column file end beside its blank lines: ``punctuation``, behind a row of nothing
        but sentence-final punctuation; a number, after that many tokens at the latest; or both
        (``punctuation,100``). For files without blank lines; the words alone decide, never the labels.
    quotes : str, optional
        What quote marks in a table are: ``csv``, signs around a field, doubled inside it, or ``text``, signs
        of the text; by default ``csv`` for csv, decided by the rows for tsv.
    document : str or int, optional
        Column of a table or JSON field that names the document of a sentence. Column files mark their
        documents themselves (``# newdoc``, ``-DOCSTART-``, ``#begin document``).
    sentence_column : str or int, optional
        Column that tells sentences apart, of Parquet, Arrow, a data set or a frame with a row for each token;
        by default a row is a sentence.
    header : bool, optional
        Whether the first row of a table (csv, tsv) names its columns; by default decided by the rows.
    separator : str, optional
        The sign between the fields of a table, or its name: ``comma``, ``semicolon``, ``tab``, ``pipe``; by
        default that of the format, or another that the rows show.
    label_names : sequence of str, optional
        What labels that are integers from 0 stand for, such as ``dataset.features["ner_tags"].feature.names``
        of the package datasets.

    Returns
    -------
    Corpus
        Iterating it yields :class:`~featurestore.corpora.contract.example.Example` objects in file order.

    Raises
    ------
    UsageError
        If the format is unknown or the options make no sense for it.
    CorpusError
        If there is no such file, or it may not be read.
    """
    in_library = kind_of(path) is not None
    name = name_of(path) if in_library else _path_text(path)
    options = ReadOptions(
        name,
        text_column=column_text(text_column, "text column"),
        label=column_text(label, "label"),
        tokenize=tokenizer_name(tokenize),
        header=header,
        separator=separator_sign(separator),
        label_names=checked_label_names(label_names, label),
        comments=comments,
        missing_label=missing_label_name(missing_label),
        empty_token=empty_token_name(empty_token),
        boundaries=boundaries_of(boundaries),
        quotes=quotes_name(quotes),
        document=column_text(document, "document"),
        sentence=column_text(sentence_column, "sentence column"),
        format_is_guessed=format is None,
    )
    if in_library:
        if format is not None:
            raise UsageError(f"{name}: the format {format} is one of files: leave it out")
        require_options(format_of_object(path), options)
        return corpus_of(path, options)
    is_one = name == STDIN or format == DATASETS or format_by_name(name) == DATASETS
    if is_one or not means_several(name):
        return _opened(options, format)
    files = expanded(name, format_by_name, format)
    parts = [_opened(replace(options, path=file), format) for file in files]
    return parts[0] if len(parts) == 1 else JoinedCorpus(name, parts)


def _path_text(path: object) -> str:
    if not isinstance(path, (str, bytes, os.PathLike)):
        refuse_foreign(path)
        raise UsageError(f"a corpus path is a str or a Path, not {type(path).__name__}: {path!r:.100}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise UsageError(f"a corpus path is a str or a Path, not {type(name).__name__}: {name!r}")
    return name


def _opened(options: ReadOptions, format: str | None) -> Corpus:
    """Open one file."""
    if not os.path.lexists(options.path) and options.path != STDIN:
        Source(options.path)  # which says so, whatever the name tells of a format
    name = format_of(options.path, format)
    whole = opened_whole(name, options)
    return FileCorpus(options, format) if whole is None else whole
