"""Objects of other libraries that hold a corpus: known by where their classes come from, none is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.corpora.contract.corpus import Corpus
from featurestore.corpora.contract.options import ReadOptions
from featurestore.corpora.libraries.arrow import ArrowTable
from featurestore.corpora.libraries.data_sets import DatasetTable, refuse_splits
from featurestore.corpora.libraries.frames import FrameTable
from featurestore.corpora.libraries.spacy_docs import Docs, DocsCorpus
from featurestore.corpora.libraries.table import TableCorpus
from featurestore.errors import UsageError

_KINDS = {
    "datasets": ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict"),
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch"),
    "spacy": ("Doc", "DocBin"),
}


def kind_of(given: object) -> tuple[str, str] | None:
    """Return the library and the class of an object that is a corpus, None for others."""
    for base in type(given).__mro__:
        library = base.__module__.partition(".")[0]
        if base.__name__ in _KINDS.get(library, ()):
            return library, base.__name__
    return None


def is_document(given: object) -> bool:
    """Return whether something is a Doc of spaCy."""
    return kind_of(given) == ("spacy", "Doc")


def name_of(given: object) -> str:
    """Return what messages call such an object."""
    library, kind = kind_of(given) or ("", type(given).__name__)
    return f"({'spaCy' if library == 'spacy' else library} {kind})"


def format_of_object(given: object) -> str:
    """Return the name of the format that such an object has."""
    library, _ = kind_of(given) or ("", "")
    return "arrow" if library == "pyarrow" else library


def corpus_of(given: Any, options: ReadOptions) -> Corpus:
    """Return the corpus that such an object holds.

    Parameters
    ----------
    given : object
        For which :func:`kind_of` is not None.
    options : ReadOptions
        Their path is what messages call it.

    Raises
    ------
    UsageError
        For a DatasetDict, of which one split is a corpus, and where a package is missing.
    CorpusError, LabelError
        If a column that is asked for is not there.
    """
    library, kind = kind_of(given) or ("", "")
    path = options.path
    if library == "spacy":
        return DocsCorpus(options, Docs(given, path))
    if isinstance(given, Mapping) and library == "datasets":
        refuse_splits(given, path)
    if library == "datasets":
        return TableCorpus(DatasetTable(given, path), options)
    if library == "pyarrow":
        return TableCorpus(ArrowTable(given, path), options)
    if kind == "Series":
        given = given.to_frame(_series_name(given, options))
    if library in ("pandas", "polars"):
        return TableCorpus(FrameTable(given, path, library), options)
    raise UsageError(f"a {type(given).__name__} is no corpus")


def _series_name(series: Any, options: ReadOptions) -> str:
    """Return what to call the one column of a series, so that it is found."""
    if options.text_column is not None and options.text_column == str(series.name):
        return options.text_column
    return "text" if options.tokenize else "tokens"
