"""Arrow tables of sentences or tokens: Parquet and Arrow IPC files, which the package datasets reads too.

A row is a sentence (``key``, ``tokens``, ``vectors``, and ``labels`` or ``label``) or a token (``sentence``,
``position``, ``token``, ``vector``, ``label``). A vector is a fixed-size list, so that readers need no
offsets: of ``dim`` values, or of layers that are such lists. The origin is in the schema's metadata. Half
floats stay half floats, which pyarrow, polars and DuckDB read; ``dtype="float32"`` is for others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featurestore.errors import UsageError
from featurestore.exchange.arrays import plain_labels
from featurestore.exchange.origin import origin_text
from featurestore.exchange.sentences import Exported, ExportedSentence

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Literal["sentence", "token"]

_BATCH_BYTES = 32 << 20
"""Vectors of one record batch or row group."""


def needed_pyarrow() -> Any:
    """Return pyarrow.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise UsageError(
            "Parquet and Arrow files need the package pyarrow: pip install 'featurestore[arrow]'"
        ) from error
    return pyarrow


def table_schema(exported: Exported, rows: Rows) -> pa.Schema:
    """Return the schema of the rows, with the origin as its metadata.

    Raises
    ------
    UsageError
        If pyarrow is missing.
    """
    pa = needed_pyarrow()
    vector = pa.float16() if exported.value_type == np.float16 else pa.float32()
    for size in reversed(exported.token_shape):
        vector = pa.list_(vector, size)
    text, kind = pa.string(), exported.label_kind
    if rows == "token":
        fields = [("sentence", pa.int64()), ("position", pa.int32()), ("token", text), ("vector", vector)]
        fields += [("label", text)] if kind else []
    else:
        fields = [("key", pa.binary()), ("tokens", pa.list_(text)), ("vectors", pa.list_(vector))]
        fields += [("labels", pa.list_(text))] if kind == "token" else [("label", text)] if kind else []
    return pa.schema(fields, metadata={"featurestore": origin_text(exported)})


def record_batches(
    exported: Exported,
    rows: Rows,
    step: Any,
    schema: pa.Schema | None = None,
    sentences: Iterable[ExportedSentence] | None = None,
    n_before: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of sentences or tokens.

    Parameters
    ----------
    exported : Exported
    rows : {"sentence", "token"}
    step : callable
        Called with each sentence.
    schema : pyarrow.Schema, optional
        Of the batches; by default :func:`table_schema`.
    sentences : iterable of ExportedSentence, optional
        Those of ``exported`` that are wanted; by default all.
    n_before : int
        How many were before them.

    Raises
    ------
    UsageError
        If pyarrow is missing.
    """
    schema = table_schema(exported, rows) if schema is None else schema
    most = max(1, _BATCH_BYTES // (int(np.prod(exported.token_shape)) * exported.value_type.itemsize))
    waiting: list[ExportedSentence] = []
    n_tokens = 0
    for sentence in exported if sentences is None else sentences:
        waiting.append(sentence)
        n_tokens += len(sentence.tokens)
        if n_tokens >= most:
            yield _batch(waiting, n_before, schema, rows)
            n_before += len(waiting)
            waiting, n_tokens = [], 0
        step(sentence)
    if waiting:
        yield _batch(waiting, n_before, schema, rows)


def _batch(sentences: list[ExportedSentence], n_before: int, schema: pa.Schema, rows: Rows) -> pa.RecordBatch:
    pa = needed_pyarrow()
    lengths = np.array([len(sentence.tokens) for sentence in sentences])
    tokens = pa.array([_text(token) for sentence in sentences for token in sentence.tokens], pa.string())
    vectors = _fixed(np.concatenate([sentence.vectors for sentence in sentences]))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    if rows == "token":
        numbers = np.repeat(np.arange(n_before, n_before + len(sentences)), lengths)
        positions = np.concatenate([np.arange(n) for n in lengths])
        columns = [pa.array(numbers, pa.int64()), pa.array(positions, pa.int32()), tokens, vectors]
        if "label" in schema.names:
            labels = [
                [sentence.labels] * len(sentence.tokens) if isinstance(sentence.labels, (str, int))
                else plain_labels(sentence.labels)
                for sentence in sentences
            ]  # fmt: skip
            kind = schema.field("label").type
            columns.append(pa.array([label for some in labels for label in some], kind))
    else:
        keys = pa.array([sentence.key for sentence in sentences], pa.binary())
        columns = [
            keys,
            pa.ListArray.from_arrays(offsets, tokens),
            pa.ListArray.from_arrays(offsets, vectors),
        ]
        if len(schema.names) > len(columns):
            given = [plain_labels(sentence.labels) for sentence in sentences]
            columns.append(pa.array(given, schema.field(len(columns)).type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _text(token: str) -> str:
    """Return a token as UTF-8 can hold it: Arrow has no lone surrogates."""
    return token.encode("utf-8", "replace").decode()


def _fixed(values: np.ndarray[Any, Any]) -> Any:
    """Return (n, ...) values as an array of fixed-size lists, without copying them."""
    pa = needed_pyarrow()
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def write_parquet(exported: Exported, path: Path, step: Any, *, rows: Rows = "sentence") -> None:
    """Write a Parquet file; ``step`` is called with each sentence written."""
    needed_pyarrow()
    from pyarrow import parquet

    # Vectors hardly compress, and a dictionary of them would only be given up.
    with parquet.ParquetWriter(
        path, table_schema(exported, rows), compression="NONE", use_dictionary=["token", "label"]
    ) as writer:
        for batch in record_batches(exported, rows, step):
            writer.write_batch(batch)


def write_arrow(exported: Exported, path: Path, step: Any, *, rows: Rows = "sentence") -> None:
    """Write an Arrow IPC file, which readers map; ``step`` is called with each sentence written."""
    pa = needed_pyarrow()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table_schema(exported, rows)) as writer:
        for batch in record_batches(exported, rows, step):
            writer.write_batch(batch)


def as_table(exported: Exported, rows: Rows = "sentence") -> pa.Table:
    """Return the same rows as a table in memory."""
    pa = needed_pyarrow()
    batches = record_batches(exported, rows, lambda sentence: None)
    return pa.Table.from_batches(batches, schema=table_schema(exported, rows))
