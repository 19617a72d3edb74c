"""NumPy arrays: the folder that our export writes, or one ``.npy`` file of the vectors of a corpus.

A ``.npy`` file (format of ``numpy/lib/format.py``) is read by ourselves, row by row: its header is a Python
literal, of which nothing but a float or int64 type, C order and a shape that fits the file is taken.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore import limits
from featurestore.corpora.corpus import Corpus
from featurestore.disk.strict_json import parse_json
from featurestore.errors import AlignmentError, CorpusError, SentenceError, UsageError
from featurestore.exchange.incoming.source import FLOAT_BYTES, Arrival, Source, require_file
from featurestore.keys import check_sentence, sentence_key

_MOST_HEADER_BYTES = 1 << 16


class Rows:
    """An array in a file, which is opened by the first read of some rows.

    Parameters
    ----------
    path : Path
    dtype : dtype
    shape : tuple of int
    offset, n_bytes : int
        Where the file has it, and the size of the file.

    Raises
    ------
    CorpusError
        If the file does not hold all of it.
    """

    def __init__(
        self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, n_bytes: int
    ) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self._offset, self._row = offset, math.prod(shape[1:]) * dtype.itemsize
        if offset + shape[0] * self._row > n_bytes:
            raise CorpusError(
                f"an array of {dtype} {shape} takes {shape[0] * self._row:,} bytes from byte {offset:,} on, "
                f"and the file has {n_bytes:,}",
                path=path,
            )
        self._file: io.FileIO | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows.

        Raises
        ------
        CorpusError
            If the file has become shorter.
        """
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        wanted = memoryview(values.reshape(-1).view(np.uint8).data)
        done = 0
        if self._file is None:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        while done < len(wanted):
            n_read = os.preadv(self._file.fileno(), [wanted[done:]], self._offset + start * self._row + done)
            if not n_read:
                raise CorpusError("became shorter while it was read", path=self.path)
            done += n_read
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def open_npy(path: Path, kinds: str = "f") -> Rows:
    """Open a ``.npy`` file of floats (``"f"``) or int64 (``"i"``).

    Raises
    ------
    CorpusError
        If it is something else, Python objects above all.
    """
    n_bytes = require_file(path)
    with open(path, "rb") as file:
        head = io.BytesIO(file.read(_MOST_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(head)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError) as error:
        raise CorpusError(f"is no .npy file ({str(error).splitlines()[0][:200]})", path=path) from error
    fits = dtype.kind == "f" and dtype.itemsize in FLOAT_BYTES if kinds == "f" else dtype.kind == "i"
    if dtype.hasobject or dtype.fields or not fits:
        wanted = "float16, float32 or float64" if kinds == "f" else "int64"
        objects = "; Python objects are never read" if dtype.hasobject else ""
        raise CorpusError(f"holds {dtype}, expected {wanted}{objects}", path=path)
    if (fortran and len(shape) > 1) or not shape or any(type(n) is not int or n < 0 for n in shape):
        order = " in Fortran order (save np.ascontiguousarray of it)" if fortran else ""
        raise CorpusError(f"holds an array of shape {shape}{order}, expected rows", path=path)
    return Rows(path, dtype, shape, head.tell(), n_bytes)


class FlatSource(Source):
    """Vectors end to end, with the row at which each sentence begins."""

    rows: Rows

    def close(self) -> None:
        """Close the files."""
        self.rows.close()

    def vectors(self, arrival: Arrival) -> NDArray[np.floating]:
        """Return the rows of a sentence, which its name says."""
        start = int(arrival.name)
        values: NDArray[np.floating] = self.rows.read(start, start + len(arrival.tokens))
        return values[:, 0] if values.ndim == 3 and values.shape[1] == 1 else values

    def require_rows(self) -> None:
        """Raise CorpusError unless the array is one of vectors, or of layers of them."""
        shape = self.rows.shape
        if len(shape) not in (2, 3) or not all(0 < n <= limits.MAX_DIM for n in shape[1:]):
            raise CorpusError(
                f"holds an array of shape {shape}, expected (tokens, dim) or (tokens, layers, dim)",
                path=self.rows.path,
            )


class NpyFile(FlatSource):
    """One array of the vectors of all tokens of a corpus, in its order."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        if corpus is None:
            raise UsageError(
                f"{path}: an array does not say of which sentences it is: give their corpus (--corpus FILE), "
                "or the folder that `featurestore export --to npy` wrote"
            )
        self.path, self.corpus, self.stated = path, corpus, {}
        self.rows = open_npy(path)
        self.require_rows()
        self.n_stored = 0

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences of the corpus."""
        start = 0
        for example in self.corpus:
            arrival = Arrival.of(example, start)
            start += len(example.tokens)
            if start > len(self.rows):
                raise arrival.misaligned(
                    f"{self.path} has {len(self.rows):,} vectors, and the sentences up to this one have "
                    f"{start:,} tokens: is it of this corpus?"
                )
            yield arrival
        if start != len(self.rows):
            raise AlignmentError(
                f"{self.path} has {len(self.rows):,} vectors, and {self.corpus.path} {start:,} tokens: "
                "is it of this corpus?",
                path=self.corpus.path,
            )


class NpyFolder(FlatSource):
    """The folder that our export writes."""

    def __init__(self, path: Path, corpus: Corpus | None) -> None:
        if corpus is not None:
            raise UsageError(f"{path} brings its sentences along: leave the corpus out")
        self.path = path
        self.rows = open_npy(path / "vectors.npy")
        self.require_rows()
        with closing(open_npy(path / "offsets.npy", "i")) as offsets:
            self._offsets = offsets.read(0, len(offsets)).reshape(-1)
        require_offsets(self._offsets, len(self.rows), path / "offsets.npy")
        self._sentences = path / "sentences.jsonl"
        require_file(self._sentences)
        self.n_stored = len(self._offsets) - 1
        self.stated = stated_origin(path / "origin.json")

    def files(self) -> list[Path]:
        """Return the files that decide the vectors."""
        return [self.path / name for name in ("vectors.npy", "offsets.npy", "sentences.jsonl")]

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the sentences, their keys and lengths compared."""
        n_read, bounds = 0, self._offsets
        with open(self._sentences, "rb") as lines:
            while line := lines.readline(limits.MAX_LINE_BYTES):
                n_read += 1
                try:
                    record = parse_json(line, most_values=4 * limits.MAX_SENTENCE_TOKENS)
                    if not isinstance(record["tokens"], list):
                        raise ValueError("tokens is no list")
                    tokens = tuple(record["tokens"])
                    check_sentence(tokens)
                    if record.get("key", sentence_key(tokens).hex()) != sentence_key(tokens).hex():
                        raise ValueError("the key is not that of the tokens")
                except (ValueError, TypeError, KeyError, AttributeError, SentenceError) as error:
                    raise CorpusError(
                        f"no sentence of an export ({error})", path=self._sentences, line=n_read
                    ) from error
                if n_read > self.n_stored:
                    break
                arrival = Arrival(
                    tokens,
                    int(bounds[n_read - 1]),
                    f"{self._sentences}, line {n_read}",
                    str(self._sentences),
                    n_read,
                )
                if (found := int(bounds[n_read] - bounds[n_read - 1])) != len(tokens):
                    raise arrival.misaligned(
                        f"the sentence has {len(tokens)} tokens, offsets.npy gives it {found} vectors"
                    )
                yield arrival
        if n_read != self.n_stored:
            raise AlignmentError(
                f"{self._sentences} has {'over ' * (n_read > self.n_stored)}{min(n_read, self.n_stored):,} "
                f"sentences, offsets.npy is of {self.n_stored:,}",
                path=self._sentences,
            )


def require_offsets(offsets: NDArray[Any], n_rows: int, path: Path, unit: str = "vectors") -> None:
    """Raise CorpusError unless offsets begin at 0, increase, and end at the number of rows."""
    if len(offsets) < 2 or offsets[0] or offsets[-1] != n_rows or (offsets[1:] <= offsets[:-1]).any():
        raise CorpusError(f"the offsets do not lead from 0 to the {n_rows:,} {unit}, upwards", path=path)


def stated_origin(path: Path) -> dict[str, Any]:
    """Return the origin that our export wrote; nothing where there is none."""
    if not path.exists():
        return {}
    if require_file(path) > limits.MAX_RECIPE_BYTES:
        raise CorpusError("is too large to be the origin of an export", path=path)
    try:
        return {"origin": parse_json(path.read_bytes(), most_values=limits.MAX_RECIPE_BYTES)}
    except ValueError as error:
        raise CorpusError(f"is damaged: {error}", path=path) from error
