"""Data sets of the package datasets, in memory and saved to a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from featurestore.corpora.libraries.arrow import ArrowFiles, content_of, values_of
from featurestore.corpora.libraries.class_labels import label_names
from featurestore.errors import CorpusError, UsageError

_ROWS = 1024
_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_MOST_JSON_BYTES = 64 << 20


class DatasetTable:
    """A Dataset or IterableDataset; see :class:`~.table.Table`.

    Parameters
    ----------
    dataset : datasets.Dataset or datasets.IterableDataset
    path : str
        What messages call it.
    """

    format = "datasets"
    n_bytes = None

    def __init__(self, dataset: Any, path: str) -> None:
        self.path, self._dataset = path, dataset
        self._is_stream = not hasattr(dataset, "__len__")
        names = dataset.column_names
        if names is None:  # of a stream whose features nobody knows yet
            names = list(next(iter(dataset), {}))
        self.columns: tuple[str, ...] = tuple(names)
        self.n_rows: int | None = None if self._is_stream else len(dataset)

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """Return the names of a ClassLabel."""
        features = self._dataset.features
        return None if features is None else label_names(features.to_dict(), column)

    def batches(self, columns: Sequence[str]) -> Iterator[Sequence[list[Any]]]:
        """Yield the values of some columns, a few rows at a time."""
        for table in self._tables(columns):
            yield from values_of(table, columns, self.path)

    def _tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield tables of pyarrow; whatever format or transform the data set has."""
        chosen = self._dataset.select_columns(list(columns)).with_format("arrow")
        if self._is_stream:
            yield from chosen.iter(_ROWS)
        else:
            for start in range(0, len(chosen), _ROWS):
                yield chosen[start : start + _ROWS]

    def state(self) -> object:
        """Return the data set itself, which cannot change; None for a stream."""
        return None if self._is_stream else id(self._dataset)

    def content(self, columns: Sequence[str]) -> str | None:
        """Return a hash of some columns; None for a stream."""
        return None if self._is_stream else content_of(self._tables(columns))


def refuse_splits(splits: Any, path: str) -> None:
    """Refuse a DatasetDict, of which one part is a corpus.

    Raises
    ------
    UsageError
        Naming the parts.
    """
    names = [str(name) for name in splits]
    example = names[0] if names else "train"
    raise UsageError(
        f"{path} holds the splits {', '.join(map(repr, names)) or '(none)'}: give the one that is meant, as "
        f"in given[{example!r}], or several as a list"
    )


def is_saved(folder: str) -> bool:
    """Return whether ``save_to_disk`` of datasets made a folder, of a Dataset or a DatasetDict."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (_STATE, _SPLITS))


def saved_table(folder: str) -> ArrowFiles:
    """Return the rows of a folder that ``Dataset.save_to_disk`` made.

    Raises
    ------
    CorpusError
        If it is none, or that of a DatasetDict, of which one split is a corpus.
    UsageError
        If pyarrow is missing.
    """
    if not os.path.isdir(folder):
        raise CorpusError(
            "the format datasets is a folder that Dataset.save_to_disk made: there is no such folder",
            path=folder,
        )
    if os.path.isfile(os.path.join(folder, _SPLITS)):
        splits = _json_of(folder, _SPLITS).get("splits")
        names = [str(name) for name in splits] if isinstance(splits, list) else []
        raise CorpusError(
            f"holds the splits {', '.join(names)} of a DatasetDict: give the folder of one, such as "
            f"{os.path.join(folder, names[0] if names else 'train')}",
            path=folder,
        )
    state, info = _json_of(folder, _STATE), _json_of(folder, _INFO)
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise CorpusError(f"{_STATE} does not list the files of a data set", path=folder) from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CorpusError(f"{_STATE} lists files outside the folder: {names[:3]}", path=folder)
    if not names:
        raise CorpusError("holds no rows", path=folder)
    return ArrowFiles(
        folder, "datasets", [os.path.join(folder, name) for name in names], info.get("features")
    )


def _json_of(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MOST_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"cannot be read: {error}: is the folder whole?", path=path) from error
    if not isinstance(found, dict):
        raise CorpusError("is no JSON object: is the folder whole?", path=path)
    return found
