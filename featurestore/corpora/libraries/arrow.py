"""Tables of Arrow: Parquet and Arrow IPC files, folders that datasets saved, and tables in memory.

Only the columns that are asked for are read, some rows at a time, so that memory does not grow with the file.
Files that the package datasets wrote say in their schema what the integers of a ClassLabel stand for. Arrow
files are strangers': what they map is validated before it is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import xxhash

from featurestore.corpora.files.compression import MAGIC_BYTES, compression_of
from featurestore.corpora.files.source import Source
from featurestore.corpora.libraries.class_labels import features_in_schema, label_names
from featurestore.errors import CorpusError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

EXTRA = "pip install 'featurestore[arrow]'"
"""What brings the package that reads Parquet and Arrow files."""

_ROWS = 1024
"""Rows whose values are turned into Python objects at a time."""

_BUFFER_BYTES = 1 << 16
"""With a buffer pyarrow reads a column of a row group in pieces of this size instead of at once."""

_FILE_MAGIC, _FEATHER_1 = b"ARROW1\0\0", b"FEA1"


def pyarrow_for(what: str) -> Any:
    """Return pyarrow.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"{what} is read by the package pyarrow, which is not installed: {EXTRA}") from error
    return pyarrow


class ArrowFiles:
    """The rows of one or several files, one behind the other; see :class:`~.table.Table`.

    Parameters
    ----------
    path : str
        As the caller named it: a file, or the folder of them.
    format : {"parquet", "arrow", "datasets"}
    files : sequence of str
    features : dict, optional
        What the integers of columns stand for, as datasets says it; by default what the first file says.

    Raises
    ------
    CorpusError
        If there is no such file, it may not be read, or is not of this format.
    UsageError
        If pyarrow is missing.
    """

    def __init__(self, path: str, format: str, files: Sequence[str], features: Any = None) -> None:
        self.path, self.format, self._files = path, format, list(files)
        self._sources = [_regular(file, format) for file in files]
        self._pa = pyarrow_for(f"{path}: the format {format}")
        self.n_bytes = sum(source.n_bytes or 0 for source in self._sources)
        self.n_rows: int | None = None
        with self._opened(self._files[0]) as first:
            self.columns = tuple(first.schema.names)
            self._features = features or features_in_schema(first.schema.metadata)
            if isinstance(first, _Parquet):
                self.n_rows = first.n_rows

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """Return the names that datasets wrote down."""
        return label_names(self._features, column)

    def batches(self, columns: Sequence[str]) -> Iterator[Sequence[list[Any]]]:
        """Yield the values of some columns, a few rows at a time."""
        for file in self._files:
            with self._opened(file) as opened:
                missing = [name for name in columns if opened.schema.names.count(name) != 1]
                if missing:
                    raise CorpusError(
                        f"column {missing[0]!r} is not there, as it is in {self._files[0]}", path=file
                    )
                for batch in opened.batches(columns):
                    yield from values_of(batch, columns, file)

    def state(self) -> object:
        """Return what of the files' status changes whenever they are written."""
        found = []
        for file in self._files:
            try:
                status = os.stat(file)
            except OSError:
                return object()
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def content(self, columns: Sequence[str]) -> str | None:
        """Return a hash of the bytes of all files."""
        hashes = [source.content_hash() for source in self._sources]
        if len(hashes) == 1:
            return hashes[0]
        return xxhash.xxh3_128(repr(hashes).encode()).hexdigest()

    @contextmanager
    def _opened(self, file: str) -> Iterator[_Parquet | _Arrow]:
        """Open a file; whatever pyarrow then says of it names the file."""
        pa = self._pa
        try:
            with ExitStack() as stack:
                kind = _Parquet if self.format == "parquet" else _Arrow
                yield kind(pa, file, stack)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CorpusError(
                f"cannot be read as {_name(self.format)}: {reason}. Is it whole? Copy or write it again",
                path=file,
            ) from error


class _Parquet:
    """An open Parquet file."""

    def __init__(self, pa: Any, file: str, stack: ExitStack) -> None:
        self._file = stack.enter_context(
            pa.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        )
        self.schema = self._file.schema_arrow
        self.n_rows = self._file.metadata.num_rows

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(_ROWS, columns=list(columns), use_threads=False)


class _Arrow:
    """An open Arrow IPC file or stream, mapped."""

    def __init__(self, pa: Any, file: str, stack: ExitStack) -> None:
        self._pa, self._file = pa, file
        self._source = stack.enter_context(pa.memory_map(file))
        head = self._source.read(len(_FILE_MAGIC))
        if head.startswith(_FEATHER_1):
            raise CorpusError(
                "is Feather of version 1: write it again as version 2 (pyarrow.feather.write_feather)",
                path=file,
            )
        # The file format is the stream behind eight bytes, with a footer; as a stream some of its columns are
        # mapped, where the reader of files copies them, a whole batch at a time. That of polars is none.
        self._start: int | None = 0
        self._n_batches: int | None = None
        if head == _FILE_MAGIC:
            self._source.seek(0)
            opened = pa.ipc.open_file(self._source)
            self.schema, self._n_batches, self._start = opened.schema, opened.num_record_batches, len(head)
            try:
                self._reader(None)
            except (pa.ArrowException, OSError):
                self._start = None
        else:
            self.schema = self._reader(None).schema

    def _reader(self, columns: Sequence[str] | None) -> Any:
        fields = None if columns is None else [self.schema.names.index(name) for name in columns]
        options = self._pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        self._source.seek(self._start or 0)
        open_it = self._pa.ipc.open_file if self._start is None else self._pa.ipc.open_stream
        return open_it(self._source, options=options)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        reader = self._reader(columns)
        is_file = self._start is None
        found = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        n_read = 0
        for batch in found:
            batch.validate(full=True)
            n_read += 1
            yield batch
        if self._n_batches not in (None, n_read):
            raise CorpusError(
                f"{n_read} of {self._n_batches} record batches can be read: write the file again",
                path=self._file,
            )


class ArrowTable:
    """A table of pyarrow in memory; see :class:`~.table.Table`.

    Parameters
    ----------
    table : pyarrow.Table or pyarrow.RecordBatch
    path : str
        What messages call it.
    """

    format = "arrow"
    n_bytes = None

    def __init__(self, table: pa.Table | pa.RecordBatch, path: str) -> None:
        self.path, self._table = path, table
        self.columns = tuple(table.schema.names)
        self.n_rows: int | None = table.num_rows

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """Return the names in the schema's metadata."""
        return label_names(features_in_schema(self._table.schema.metadata), column)

    def batches(self, columns: Sequence[str]) -> Iterator[Sequence[list[Any]]]:
        """Yield the values of some columns, a few rows at a time."""
        yield from values_of(self._table.select(list(columns)), columns, self.path)

    def state(self) -> object:
        """Return the table itself, which cannot change."""
        return id(self._table)

    def content(self, columns: Sequence[str]) -> str | None:
        """Return a hash of the columns."""
        return content_of([self._table.select(list(columns))])


def values_of(rows: Any, columns: Sequence[str], path: str) -> Iterator[list[list[Any]]]:
    """Yield the values of a table or a record batch as Python objects, a few rows at a time.

    Raises
    ------
    CorpusError
        If a text is not UTF-8.
    """
    for start in range(0, rows.num_rows, _ROWS):
        part = rows.slice(start, _ROWS)
        yield [_values(part.column(name), name, path) for name in columns]


def _values(column: Any, name: str, path: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError as error:
        raise CorpusError(f"column {name!r} holds what is not UTF-8: {error}", path=path) from error


def content_of(tables: Iterable[Any]) -> str:
    """Return a hash of the values of tables or record batches, and of their schemas' metadata."""
    digest = xxhash.xxh3_128()
    for table in tables:
        digest.update(table.schema.serialize())
        for batch in table.to_batches(max_chunksize=1 << 16) if hasattr(table, "to_batches") else [table]:
            digest.update(batch.serialize())
    return digest.hexdigest()


def _name(format: str) -> str:
    return "Parquet" if format == "parquet" else "Arrow"


def _regular(file: str, format: str) -> Source:
    """Return the bytes of a file that can be read in any order."""
    source = Source(file)
    name = _name(format)
    if source.n_bytes is None:
        raise CorpusError(
            f"{name} is read from a file, not from standard input or a pipe: save it first, and give that",
            path=file,
        )
    with open(file, "rb") as opened:
        head = opened.read(MAGIC_BYTES)
    compression = compression_of(file, head)
    if compression is not None:
        raise CorpusError(
            f"is compressed by {compression.name}: decompress it first ({name} has its own inside)",
            path=file,
        )
    if not source.n_bytes:
        raise CorpusError(f"is empty: expected {name}", path=file)
    return source
