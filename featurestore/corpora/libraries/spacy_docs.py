"""Documents of spaCy as corpora: Doc objects, a DocBin, a ``.spacy`` file.

A sentence is what spaCy takes for one. Labels are ``tag`` (or ``xpos``), ``pos`` (``upos``), ``lemma``,
``dep`` (``deprel``), ``morph`` (``feats``), ``ent`` (``ner``): entities as BIO, cut where a sentence ends;
and ``cats``: of the document, which is then one sentence, the one category that is true.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from featurestore import limits
from featurestore.corpora.contract.corpus import Corpus
from featurestore.corpora.contract.example import IGNORED, DocumentExample, Example, Labels, MissingLabel
from featurestore.corpora.contract.identity import identity_of_reading
from featurestore.corpora.contract.label_names import named
from featurestore.corpora.contract.options import IGNORE, SKIP, SKIP_ADVICE, ReadOptions
from featurestore.corpora.contract.sizes import check_size
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.corpora.files.source import Source
from featurestore.errors import CorpusChangedError, CorpusError, LabelError, UsageError

EXTRA = "pip install 'featurestore[spacy]'"
"""What brings spaCy."""

_ATTRIBUTES = {
    "tag": "tag_", "xpos": "tag_", "pos": "pos_", "upos": "pos_", "lemma": "lemma_", "dep": "dep_",
    "deprel": "dep_", "morph": "morph", "feats": "morph",
}  # fmt: skip
_ENTITIES, _CATEGORIES = ("ent", "ner"), "cats"
_TRUE = 0.5
_BAD_FILE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)
"""What spaCy raises for a file that is not sound."""


class Docs:
    """Documents that can be had again: a list of them, a DocBin, or a file of one."""

    def __init__(self, given: Any, path: str) -> None:
        self._given, self._path = given, path

    def __iter__(self) -> Iterator[Any]:
        """Yield the documents."""
        if hasattr(self._given, "get_docs"):
            yield from _docs_of(self._given, self._path)
        elif hasattr(self._given, "sents"):
            yield self._given
        else:
            yield from self._given


class DocsFile:
    """The documents of a ``.spacy`` file, which is read whole."""

    def __init__(self, path: str, source: Source) -> None:
        self._path, self._source = path, source

    def __iter__(self) -> Iterator[Any]:
        """Yield the documents.

        Raises
        ------
        CorpusError
            If the file is no DocBin, or damaged.
        UsageError
            If spaCy is missing.
        """
        docbin_type = _docbin_type(self._path)
        data = self._source.read_whole()
        _require_size(data, self._path)
        try:
            docs = docbin_type().from_bytes(data)
        except _BAD_FILE as error:
            raise _damaged(self._path, error) from error
        yield from _docs_of(docs, self._path)


class DocsCorpus(Corpus):
    """The sentences of documents.

    Parameters
    ----------
    options : ReadOptions
    docs : iterable of spacy.tokens.Doc, optional
        In memory; by default those of the file at the options' path.

    Raises
    ------
    CorpusError
        If there is no such file, or it may not be read.
    UsageError
        If there is no such label.
    """

    format = "spacy"

    def __init__(self, options: ReadOptions, docs: Iterable[Any] | None = None) -> None:
        self.path, self._options = options.path, options
        self._source: Source | None = None
        if docs is None:
            self._source = Source(options.path)
            docs = DocsFile(options.path, self._source)
        self._docs = docs
        self._first_content: str | None = None
        known = (*_ATTRIBUTES, *_ENTITIES, _CATEGORIES)
        if options.label is not None and options.label not in known:
            raise UsageError(
                f"{self.path}: no label {options.label!r} in documents of spaCy: expected one of "
                f"{', '.join(known)}"
            )

    def __iter__(self) -> Iterator[Example]:
        n_sentences = 0
        names = self._options.label_names
        for example in examples_of_docs(self._docs, self._options):
            check_size(example)
            n_sentences += 1
            yield example if names is None else named(example, names)
        if self._source is not None and self._first_content is None:
            self._first_content = self._source.content
        if not n_sentences:
            raise CorpusError("no sentences in it, read as spacy: is it empty?", path=self.path)

    def check_unchanged(self) -> None:
        """Raise CorpusChangedError if a file changed between the first complete pass and the latest."""
        if self._source is not None and self._source.content != self._first_content:
            raise CorpusChangedError(
                "the file changed between two passes over it: leave it alone while it is read, and run again",
                path=self.path,
            )

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read by the latest pass."""
        return 0 if self._source is None else self._source.bytes_read

    @property
    def n_bytes(self) -> int | None:
        """Size of the file; None for documents in memory."""
        return None if self._source is None else self._source.n_bytes

    @property
    def n_skipped(self) -> int:
        """How many tokens the latest complete pass left out because they are blank."""
        return self._options.n_skipped

    def identity(self) -> dict[str, Any] | None:
        """Return a hash of the file's bytes and what else decides; None in memory, where documents change."""
        return self._identity(None if self._source is None else self._source.content_hash())

    def identity_read(self) -> dict[str, Any] | None:
        """Return the identity of the bytes that the latest complete pass has read."""
        return self._identity(None if self._source is None else self._source.content)

    def _identity(self, content: str | None) -> dict[str, Any] | None:
        if content is None:
            return None
        return {
            "content": content,
            **identity_of_reading(self._options, self.format),
            "spacy": _version(),
        }

    def findings(self) -> dict[str, Any]:
        """Return what was warned of and left out."""
        return self._options.findings()

    def recall(self, identity: Mapping[str, Any], findings: Mapping[str, Any]) -> None:
        """Be as after a pass over the file, which is not read: see :meth:`Corpus.recall`."""
        content = str(identity["content"])
        self._options.recall(findings)
        if self._source is not None:
            self._source.passed(content)
            self._first_content = self._first_content or content


def examples_of_docs(docs: Iterable[Any], options: ReadOptions) -> Iterator[Example]:
    """Yield the sentences of documents.

    Raises
    ------
    CorpusError
        If a document has no sentence boundaries, or a token is blank.
    LabelError
        If a label is missing.
    """
    n_blank, first_blank = 0, 0
    for number, doc in enumerate(docs, 1):
        if not hasattr(doc, "has_annotation"):
            raise CorpusError(
                f"a {type(doc).__name__} among documents of spaCy: expected Doc objects, all of them",
                path=options.path,
                line=number,
                unit="document",
            )
        for start, end in _sentences(doc, number, options):
            tokens = [token for token in doc[start:end] if token.text.strip(WHITESPACE)]
            n_here = end - start - len(tokens)
            if n_here and options.empty_token != SKIP:
                blank = next(token for token in doc[start:end] if not token.text.strip(WHITESPACE))
                raise CorpusError(
                    f"token {blank.i} is blank ({blank.text!r}): {SKIP_ADVICE}",
                    path=options.path,
                    line=number,
                    unit="document",
                )
            n_blank, first_blank = n_blank + n_here, first_blank or (number if n_here else 0)
            if tokens:
                yield DocumentExample(
                    tuple(token.text for token in tokens),
                    _labels(doc, tokens, number, options),
                    options.path,
                    number,
                    "",
                    str(number),
                )
    options.skipped(n_blank, first_blank, "blank tokens", "document")


def _sentences(doc: Any, number: int, options: ReadOptions) -> Iterator[tuple[int, int]]:
    """Yield where each sentence of a document begins and ends."""
    if options.label == _CATEGORIES or not len(doc):
        ends = [len(doc)] if len(doc) else []
    elif doc.has_annotation("SENT_START"):
        ends = [token.i for token in doc if token.i and token.is_sent_start] + [len(doc)]
    elif options.boundaries is None:
        raise CorpusError(
            "no sentence boundaries are set: let a parser, senter or sentencizer set them, or give "
            "--boundaries punctuation (in Python boundaries=), or none where each document is a sentence",
            path=options.path,
            line=number,
            unit="document",
        )
    else:
        ends = [len(doc)]
    start = 0
    for end in ends:
        if options.boundaries is None or options.label == _CATEGORIES:
            yield start, end
        else:
            begin = start
            for cut in options.boundaries.ends([token.text for token in doc[start:end]]):
                yield begin, start + cut
                begin = start + cut
        start = end


def _labels(doc: Any, tokens: list[Any], number: int, options: ReadOptions) -> Labels:
    label = options.label
    if label is None:
        return None
    if label == _CATEGORIES:
        return _category(doc, number, options)
    if label in _ENTITIES:
        found = [_entity(token, first=token is tokens[0]) for token in tokens]
    else:
        found = [str(getattr(token, _ATTRIBUTES[label])) for token in tokens]
    labels: list[str | MissingLabel] = []
    for token, value in zip(tokens, found, strict=True):
        if not value and options.missing_label != IGNORE:
            raise LabelError(
                f"token {token.i} ({token.text!r}) has no {label}; --missing-label ignore leaves tokens "
                "without one out",
                path=options.path,
                line=number,
                unit="document",
            )
        labels.append(value or IGNORED)
    return tuple(labels)


def _entity(token: Any, first: bool) -> str:
    """Return a token's label as BIO, empty if nothing is known; an entity begins anew with a sentence."""
    kind = token.ent_iob_
    if kind in ("", "O"):
        return str(kind)
    return f"{'B' if first else kind}-{token.ent_type_}" if token.ent_type_ else str(kind)


def _category(doc: Any, number: int, options: ReadOptions) -> str:
    true = [str(name) for name, value in doc.cats.items() if value >= _TRUE]
    if len(true) != 1:
        raise LabelError(
            f"{len(true)} of its {len(doc.cats)} categories are true"
            + (f" ({', '.join(true[:5])})" if true else "")
            + ": expected one, of value 0.5 or more",
            path=options.path,
            line=number,
            unit="document",
        )
    return true[0]


# --- Files ---


def _docbin_type(path: str) -> Any:
    try:
        from spacy.tokens import DocBin
    except ImportError as error:
        raise UsageError(
            f"{path}: .spacy files are read by spaCy, which is not installed: {EXTRA}"
        ) from error
    return DocBin


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("spacy")
    except PackageNotFoundError:
        return ""


def _docs_of(docs: Any, path: str) -> Iterator[Any]:
    from spacy.vocab import Vocab

    found = docs.get_docs(Vocab())
    while True:
        try:
            doc = next(found)
        except StopIteration:
            return
        except _BAD_FILE as error:
            raise _damaged(path, error) from error
        yield doc


def _require_size(data: bytes, path: str) -> None:
    """Refuse what would take more memory than a file of documents may, before it is unpacked."""
    unpacking, n_bytes = zlib.decompressobj(), 0
    try:
        while data and n_bytes <= limits.MAX_DOCUMENTS_BYTES:
            n_bytes += len(unpacking.decompress(data, 1 << 20))
            data = unpacking.unconsumed_tail
    except zlib.error as error:
        raise _damaged(path, error) from error
    if n_bytes > limits.MAX_DOCUMENTS_BYTES:
        raise CorpusError(
            f"it unpacks to more than {limits.MAX_DOCUMENTS_BYTES:,} bytes, which spaCy holds in memory at "
            "once: cut it into several files",
            path=path,
        )


def _damaged(path: str, error: Exception) -> CorpusError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CorpusError(f"is no sound DocBin ({reason}): write it again with DocBin.to_disk", path=path)
