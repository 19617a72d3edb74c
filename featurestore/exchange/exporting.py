"""Exporting: a store, some sentences of it or a corpus, into a file or folder of another format."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featurestore.corpora.corpus import Corpus
from featurestore.disk.atomic import building
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.places import free_bytes, local_path
from featurestore.errors import StoreWriteError, UsageError
from featurestore.exchange.allennlp_hdf5 import write_allennlp
from featurestore.exchange.arrays import write_npy, write_safetensors
from featurestore.exchange.columns import write_arrow, write_parquet
from featurestore.exchange.data_sets import write_data_set, write_splits
from featurestore.exchange.sentences import Exported, ExportedSentence
from featurestore.exchange.word_vectors import write_projector, write_word2vec
from featurestore.store.maintenance.derived import require_outside_stores
from featurestore.store.maintenance.selection import Selection
from featurestore.store.store import Store

Writer = Callable[..., None]

FORMATS: dict[str, Writer] = {
    "npy": write_npy,
    "safetensors": write_safetensors,
    "allennlp-hdf5": write_allennlp,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "datasets": write_data_set,
    "word2vec": write_word2vec,
    "word2vec-binary": partial(write_word2vec, binary=True),
    "tensorboard": write_projector,
}
"""Formats by name."""

_HOLD_EVERY_TOKEN = ("npy", "safetensors", "allennlp-hdf5", "parquet", "arrow", "datasets")
_SPLIT = re.compile(r"\w+(\.\w+)*")
_TABLES = ("parquet", "arrow", "datasets")


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes
    ----------
    path : Path
    format : str
    n_sentences, n_tokens : int
        Repeats of a corpus included.
    n_bytes : int
        Of the file, or of all files of the folder.
    """

    path: Path
    format: str
    n_sentences: int
    n_tokens: int
    n_bytes: int


def export(
    store: Store | str | Path,
    output: str | Path,
    to: str,
    *,
    corpus: Corpus | None = None,
    selection: Selection | None = None,
    splits: Mapping[str, Corpus] | None = None,
    dtype: str | None = None,
    rows: str | None = None,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> ExportReport:
    """Write vectors with their tokens, and labels, into a format of others.

    Parameters
    ----------
    store : Store, str or Path
    output : str or Path
        A file or folder that does not exist yet; it appears when it is complete.
    to : str
        One of :data:`FORMATS`.
    corpus : Corpus, optional
        Export its sentences, in its order, with its labels if it was opened with a label.
    selection : Selection, optional
        Export these sentences, in stored order.
    splits : mapping of str to Corpus, optional
        Export several corpora as the splits of a DatasetDict, by name: to ``datasets``.
    dtype : {"float16", "float32"}, optional
        Of the values; by default float16 where they are stored so, else float32.
    rows : {"sentence", "token"}, optional
        What a row of a table is: of parquet, arrow and datasets; by default a sentence.
    progress : callable, optional
        Called with the tokens of each sentence written.

    Raises
    ------
    UsageError
        If something is at ``output``, there is no such format, it cannot hold these vectors, or a package is
        missing.
    MissingSentencesError
        If a sentence of the corpus is not stored.
    DamagedStoreError
        If a sentence is damaged.
    StoreWriteError
        If the disk is full or failing; nothing is left then.
    """
    if to not in FORMATS:
        raise UsageError(f"no format {to!r} to export to: expected one of {', '.join(FORMATS)}")
    path = local_path(output)
    if os.path.lexists(path):
        raise UsageError(f"there is already something at {path}: choose another name, or delete it first")
    require_outside_stores(path)
    options: dict[str, Any] = {}
    if rows is not None:
        if to not in _TABLES:
            raise UsageError(f"rows= is for {', '.join(_TABLES)}: {to} has no rows to choose")
        if rows not in ("sentence", "token"):
            raise UsageError(f"rows={rows!r}: expected sentence or token")
        options["rows"] = rows
    opened = store if isinstance(store, Store) else Store.open(store, access="pread", check="always")
    parts = _parts(opened, to, corpus, selection, splits, dtype)

    def step(sentence: ExportedSentence) -> None:
        if progress is not None:
            progress(len(sentence.tokens))

    _require_space(path, parts.values(), to)
    with building(path, filesystem) as temporary:
        if splits is None:
            FORMATS[to](parts[""], temporary, step, **options)
        else:
            write_splits(parts, temporary, step, **options)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    n_bytes = sum(file.stat().st_size for file in files)
    n_sentences, n_tokens = (sum(counts) for counts in zip(*(p.counts for p in parts.values()), strict=True))
    return ExportReport(path, to, n_sentences, n_tokens, n_bytes)


def _parts(
    store: Store,
    to: str,
    corpus: Corpus | None,
    selection: Selection | None,
    splits: Mapping[str, Corpus] | None,
    dtype: str | None,
) -> dict[str, Exported]:
    """Return what is exported, by the names of splits; under an empty name where there are none."""
    if splits is None:
        parts = {"": Exported(store, corpus, selection, dtype)}
    else:
        if to != "datasets":
            raise UsageError(f"splits= is for datasets: {to} has none")
        if corpus is not None or selection is not None:
            raise UsageError("give splits, or a corpus or a selection, not both")
        bad = [name for name in splits if not _SPLIT.fullmatch(name)]
        if bad or not splits:
            raise UsageError(f"{bad[:3]} are no names of splits: expected letters, digits, _ and dots")
        parts = {name: Exported(store, its, None, dtype) for name, its in splits.items()}
    for exported in parts.values():
        if not exported.n_sentences:
            raise UsageError(f"there is nothing to export: {store.path} holds no such sentence")
    return parts


def _require_space(path: Path, parts: Iterable[Exported], to: str) -> None:
    """Refuse what cannot fit on the disk, before hours were spent on it."""
    if to not in _HOLD_EVERY_TOKEN:
        return
    needed = 0
    for exported in parts:
        value_bytes = 4 if to == "allennlp-hdf5" else exported.value_type.itemsize
        needed += exported.n_tokens * math.prod(exported.token_shape) * value_bytes
    free = free_bytes(path)
    if free is not None and free < needed:
        raise StoreWriteError(
            f"{path} needs {needed:,} bytes for the vectors, and {free:,} are free: choose another disk, "
            "fewer sentences, or dtype float16",
            path=path,
            n_bytes=needed,
        )
