"""Importing: the vectors that other tools wrote become a store, whose recipe says what is known of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.corpora.corpus import Corpus
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.hashes import file_sha256
from featurestore.disk.places import free_bytes, local_path
from featurestore.errors import CorpusChangedError, CorpusError, StoreWriteError, UsageError
from featurestore.exchange.incoming.arrays import NpyFile, NpyFolder
from featurestore.exchange.incoming.named import BioEmbeddings, ElmoForManyLangs
from featurestore.exchange.incoming.numbered import AllenNlp, BilmTf
from featurestore.exchange.incoming.repeats import RULES, chosen, find_repeats, require_rule
from featurestore.exchange.incoming.source import Source, require_file
from featurestore.exchange.incoming.tensors import SafeTensors
from featurestore.families import IMPORTED
from featurestore.keys import Sentence
from featurestore.recipe import Recipe
from featurestore.store.maintenance.derived import make_new
from featurestore.store.maintenance.filling import fill_at_once
from featurestore.store.preconditions import require_bounds
from featurestore.store.store import Store
from featurestore.vectors import layers_and_dim

FORMATS: dict[str, Callable[[Path, Corpus | None], Source]] = {
    "allennlp-hdf5": AllenNlp,
    "bilm-tf": BilmTf,
    "bio-embeddings": BioEmbeddings,
    "elmoformanylangs": ElmoForManyLangs,
    "npy": lambda path, corpus: (NpyFolder if path.is_dir() else NpyFile)(path, corpus),
    "safetensors": SafeTensors,
}
"""Readers by the name of their format."""

_NOT_KNOWN = ["model", "layers", "initial_state", "software"]
"""What decides vectors, and a file of them does not tell for certain."""

_MOST_STATED_BYTES = 1 << 16
_MOST_DEPTH = 8
_EXTRA_SPACE = 1.05
"""Keys, tokens and offsets beside the vectors."""


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes
    ----------
    path : Path
        The new store.
    format : str
    n_sentences, n_tokens, n_bytes : int
        Stored.
    dim, n_layers : int
    codec : str
    relative_l2 : float
        What the codec lost.
    n_repeats, n_differing : int
        Sentences that came again, and those of them whose vectors were not the same.
    max_relative_l2, mean_relative_l2 : float
        By how much these differed from the first.
    duplicates : str
        The rule that chose among them.
    n_unused : int
        Vectors in the file that no sentence of the corpus asked for.
    fingerprint : str
    """

    path: Path
    format: str
    n_sentences: int
    n_tokens: int
    n_bytes: int
    dim: int
    n_layers: int
    codec: str
    relative_l2: float
    n_repeats: int
    n_differing: int
    max_relative_l2: float
    mean_relative_l2: float
    duplicates: str
    n_unused: int
    fingerprint: str


def import_vectors(
    path: str | Path,
    format: str,
    into: str | Path,
    *,
    note: str,
    corpus: Corpus | None = None,
    duplicates: str = "error",
    codec: str | None = None,
    shard_bytes: int = limits.DEFAULT_SHARD_BYTES,
    progress: Callable[[int], object] | None = None,
    filesystem: FileSystem = LOCAL,
) -> ImportReport:
    """Make a store of vectors that another tool wrote.

    Its recipe is of kind ``imported``: no encoder has it, so that none can add to the store. It holds the
    format, the SHA-256 of the file, what the file says of itself, the note, and what is not known.

    Parameters
    ----------
    path : str or Path
        The file; for npy also the folder that our export wrote.
    format : str
        One of :data:`FORMATS`.
    into : str or Path
        A directory that does not exist or is empty; or what a killed run of this left.
    note : str
        What you know of the vectors: which model made them, which layers, when.
    corpus : Corpus, optional
        The sentences, where the file does not hold them.
    duplicates : {"error", "first", "last", "mean"}
        Which vectors are taken for a sentence that comes more than once with different ones.
    codec : str, optional
        By default float16 for vectors of float16, else float32.
    shard_bytes : int
    progress : callable, optional
        Called with the tokens of each sentence stored.

    Raises
    ------
    UsageError
        If something else is at ``into``, or an argument is missing or makes no sense.
    CorpusError
        If the file is not of the format, is damaged, or uses more of it than it may; if vectors of a repeated
        sentence differ and no rule was chosen.
    AlignmentError
        If sentences and vectors do not belong together, with the sentence and its line.
    VectorError
        If a value is NaN or infinite, or the codec cannot hold it.
    StoreWriteError
        If the disk is full or failing. The store is empty then; run it again.
    """
    source_path = local_path(path)
    _require_arguments(format, note, duplicates)
    require_bounds(dim=1, n_layers=1, codec=codec or "float32", shard_bytes=shard_bytes)
    if Store.exists(source_path):
        raise UsageError(f"{source_path} is a store already: nothing is to be imported")
    if source_path.is_dir() and format != "npy":
        raise UsageError(f"{source_path} is a folder, expected the file of {format}")
    require_file(source_path / "vectors.npy" if source_path.is_dir() else source_path)
    with closing(FORMATS[format](source_path, corpus)) as source:
        before = [_signature(file) for file in source.files()]
        repeats = find_repeats(source)
        require_rule(repeats, duplicates, source_path)
        first = source.read(next(source.arrivals()))
        n_layers, dim = layers_and_dim(first.shape)
        codec = codec or ("float16" if first.dtype.itemsize == 2 else "float32")
        recipe = _recipe(source, format, note, first.dtype, duplicates if repeats.n_differing else None)
        _require_space(local_path(into), repeats.n_tokens * n_layers * dim * np.dtype(_WIDTH[codec]).itemsize)
        target = make_new(
            into, recipe=recipe, dim=dim, n_layers=n_layers, codec=codec, shard_bytes=shard_bytes,
            filesystem=filesystem,
        )  # fmt: skip

        def sentences() -> Iterator[tuple[Sentence, NDArray[np.floating]]]:
            for arrival, vectors in chosen(source, repeats, duplicates):
                is_wider = vectors.dtype.itemsize > first.dtype.itemsize and duplicates != "mean"
                if layers_and_dim(vectors.shape) != (n_layers, dim) or is_wider:
                    raise CorpusError(
                        f"the vectors of {' '.join(arrival.tokens[:8])!r} ({arrival.name}) are "
                        f"{vectors.dtype} {vectors.shape}, those of the first sentence {first.dtype} "
                        f"{first.shape}",
                        path=source_path,
                    )
                yield arrival.tokens, vectors
            # Before anything is committed.
            if corpus is not None:
                corpus.check_unchanged()
            if [_signature(file) for file in source.files()] != before:
                raise CorpusChangedError("changed while it was imported: run it again", path=source_path)

        filled = fill_at_once(target, sentences(), progress=progress, filesystem=filesystem)
    return ImportReport(
        target.path, format, filled.n_sentences, filled.n_tokens, filled.n_bytes, dim, n_layers, codec,
        filled.error.relative_l2, repeats.n_repeats, repeats.n_differing, repeats.max_relative_l2,
        repeats.mean_relative_l2, duplicates, repeats.n_unused, recipe.fingerprint,
    )  # fmt: skip


_WIDTH = {"float16": "f2", "float32": "f4", "int8": "i1"}


def _require_arguments(format: str, note: str, duplicates: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"no format {format!r} to import: expected one of {', '.join(FORMATS)}")
    if duplicates not in RULES:
        raise UsageError(f"duplicates {duplicates!r}: expected {', '.join(RULES)}")
    if not isinstance(note, str) or not note.strip():
        raise UsageError("the note is empty: say what made these vectors, with which model and layers")


def _recipe(source: Source, format: str, note: str, dtype: np.dtype[Any], rule: str | None) -> Recipe:
    sums = {file.name if len(source.files()) > 1 else "file": file_sha256(file) for file in source.files()}
    fields: dict[str, Any] = {
        "kind": IMPORTED,
        "version": 1,
        "format": format,
        "source_sha256": sums,
        "source_dtype": dtype.name,
        "note": note.strip(),
        "not_known": _NOT_KNOWN,
        "stated": source.stated,
    }
    if rule is not None:
        fields["duplicates"] = rule
    if _depth(source.stated) > _MOST_DEPTH or len(repr(source.stated)) > _MOST_STATED_BYTES:
        # What an import of an export of an import says grows each time; the file's hash stands for it.
        fields["stated"] = "(too long to be kept here)"
    return Recipe(fields)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [
        inner
        for outer in level
        if isinstance(outer, (dict, list))
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
    return depth


def _signature(file: Path) -> tuple[int, ...]:
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _require_space(path: Path, n_bytes: int) -> None:
    """Refuse what cannot fit on the disk, before it is written to its end."""
    needed, free = int(n_bytes * _EXTRA_SPACE), free_bytes(path)
    if free is not None and free < needed:
        raise StoreWriteError(
            f"{path} needs about {needed:,} bytes, and {free:,} are free: choose another disk, or a "
            "smaller codec",
            path=path,
            n_bytes=needed,
        )
