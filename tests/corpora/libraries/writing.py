"""One corpus written by each library that people keep corpora in, as that library writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from featurestore import Example

Columns = dict[str, list[Any]]


def columns_of(examples: Sequence[Example], label: str) -> Columns:
    """Return examples as columns, their labels as lists or, of sentences, as strings."""
    labels = [e.labels if isinstance(e.labels, str) else list(e.labels or ()) for e in examples]
    return {"id": list(range(len(examples))), "tokens": [list(e.tokens) for e in examples], label: labels}


def data_set(columns: Columns, label: str | None = None) -> Any:
    """Return a Dataset; the labels of a column as a ClassLabel."""
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset.from_dict(columns)
    if label is None:
        return found
    values = columns[label]
    is_flat = isinstance(values[0], str)
    names = sorted(set(values) if is_flat else {tag for tags in values for tag in tags})
    number = {name: i for i, name in enumerate(names)}
    numbers = [number[v] if is_flat else [number[t] for t in v] for v in values]
    named = datasets.ClassLabel(names=names)
    features = {**found.features, label: named if is_flat else datasets.List(named)}
    return datasets.Dataset.from_dict({**columns, label: numbers}, features=datasets.Features(features))


def _duckdb(columns: Columns, folder: Path) -> Path:
    duckdb, pa = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow")
    connection = duckdb.connect()
    connection.register("t", pa.table(columns))
    connection.sql(f"copy t to '{folder / 'duckdb.parquet'}' (format parquet, row_group_size 2048)")
    return folder / "duckdb.parquet"


def _pyarrow(columns: Columns, folder: Path, kind: str) -> Path:
    pa = pytest.importorskip("pyarrow")
    list_type = {"list_view": pa.list_view(pa.string_view()), "large": pa.large_list(pa.large_string()),
                 "dictionary": pa.list_(pa.dictionary(pa.int32(), pa.string()))}[kind]  # fmt: skip
    table = pa.table({name: pa.array(v, list_type) for name, v in columns.items() if isinstance(v[0], list)})
    with pa.OSFile(str(folder / f"{kind}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=7)
    return folder / f"{kind}.arrow"


def _written(columns: Columns, folder: Path, library: str, method: str, name: str) -> Path:
    getattr(pytest.importorskip(library).DataFrame(columns), method)(folder / name)
    return folder / name


def _saved(columns: Columns, folder: Path) -> Path:
    data_set(columns).save_to_disk(folder / "saved", num_shards=2)
    return folder / "saved"


def _data_set_parquet(columns: Columns, folder: Path) -> Path:
    data_set(columns).to_parquet(folder / "datasets.parquet")
    return folder / "datasets.parquet"


WRITERS: dict[str, Callable[[Columns, Path], Any]] = {
    "Dataset": lambda columns, folder: data_set(columns),
    "IterableDataset": lambda columns, folder: data_set(columns).to_iterable_dataset(num_shards=2),
    "save_to_disk": _saved,
    "datasets to_parquet": _data_set_parquet,
    "pandas": lambda columns, folder: pytest.importorskip("pandas").DataFrame(columns),
    "pandas to_parquet": lambda c, folder: _written(c, folder, "pandas", "to_parquet", "pandas.parquet"),
    "pandas to_feather": lambda c, folder: _written(c, folder, "pandas", "to_feather", "pandas.feather"),
    "polars": lambda columns, folder: pytest.importorskip("polars").DataFrame(columns),
    "polars write_parquet": lambda c, folder: _written(c, folder, "polars", "write_parquet", "polars.pq"),
    "polars write_ipc": lambda c, folder: _written(c, folder, "polars", "write_ipc", "polars.arrow"),
    "duckdb copy": _duckdb,
    "pyarrow table": lambda columns, folder: pytest.importorskip("pyarrow").table(columns),
    "pyarrow list_view": lambda columns, folder: _pyarrow(columns, folder, "list_view"),
    "pyarrow large_list": lambda columns, folder: _pyarrow(columns, folder, "large"),
    "pyarrow dictionary": lambda columns, folder: _pyarrow(columns, folder, "dictionary"),
}


def spacy_docs(examples: Sequence[Example], per_doc: int = 3) -> list[Any]:
    """Return documents of several sentences each, with their labels as fine-grained tags."""
    pytest.importorskip("spacy")
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

    vocabulary, docs = Vocab(), []
    for start in range(0, len(examples), per_doc):
        some = examples[start : start + per_doc]
        words = [token for e in some for token in e.tokens]
        starts = [i == 0 for e in some for i in range(len(e.tokens))]
        tags = [tag for e in some for tag in (e.labels or ())]
        docs.append(Doc(vocabulary, words=words, sent_starts=starts, tags=tags or None))
    return docs
