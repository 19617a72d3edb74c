"""The bytes of a corpus: a file, compressed or not, or standard input, readable any number of times.

What cannot be read twice (standard input, pipes) is first copied to an unnamed temporary file.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Generator
from typing import IO, TYPE_CHECKING

import xxhash

from featurestore import limits
from featurestore.corpora.files.compression import (
    MAGIC_BYTES,
    Compression,
    DamagedDataError,
    Readable,
    compression_of,
)
from featurestore.corpora.files.containers import HEAD_BYTES, advice_by_content
from featurestore.errors import CorpusError

if TYPE_CHECKING:
    from xxhash import xxh3_128

STDIN = "-"
_CHUNK_BYTES = 256 << 10
_HASHED_BYTES = 256 << 10
_URL = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)


class _SpoolView(io.RawIOBase):
    """Reads an open temporary file from its start, leaving the file's own position to other readers."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._descriptor = spool.fileno()
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Hashed(io.RawIOBase):
    """Hashes the bytes of another stream as they are read."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self.digest = raw, xxhash.xxh3_128()

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n_bytes = self._raw.readinto(buffer) or 0
        self.digest.update(buffer[:n_bytes])
        return n_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


class Source:
    """The bytes behind a path.

    Parameters
    ----------
    path : str
        A file, or ``-`` for standard input.

    Attributes
    ----------
    path : str
        As given.
    bytes_read : int
        Bytes of the file read by the latest pass (compressed bytes, for a compressed file).
    n_bytes : int or None
        Size of the file on disk; None for standard input or a pipe not yet read.
    content : str or None
        The :meth:`content_hash` of what the latest complete pass read.

    Raises
    ------
    CorpusError
        If there is no such file, or it is a directory or may not be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes_read = 0
        self.n_bytes: int | None = None
        self.content: str | None = None
        self._spool: IO[bytes] | None = None
        self._seekable = False
        if path == STDIN:
            return
        # Found out now rather than after an encoder was loaded for a file that is not there.
        try:
            status = os.stat(path)
            self._seekable = stat.S_ISREG(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                raise CorpusError("is a directory, not a file", path=path)
            if self._seekable:
                self.n_bytes = status.st_size
                with open(path, "rb"):
                    pass
        except (OSError, ValueError) as error:
            raise _cannot_read(path, error) from error

    def chunks(self, digest: xxh3_128) -> Generator[bytes, None, None]:
        """Yield the uncompressed bytes from the start, in pieces of bounded size.

        Parameters
        ----------
        digest : xxh3_128
            Updated with every piece: it tells a file that changes between two passes, ten times as fast as a
            cryptographic hash.

        Raises
        ------
        CorpusError
            If the file cannot be read, is compressed and damaged, or holds no text.
        UsageError
            If it is compressed in a way that needs a package which is not installed.
        """
        # No piece may be longer than the longest line: lines.py relies on it.
        size = min(_CHUNK_BYTES, limits.MAX_LINE_BYTES)
        self.bytes_read = 0
        self.content = None
        compression: Compression | None = None
        is_first = True
        try:
            with _Hashed(self._open()) as raw, io.BufferedReader(raw, _CHUNK_BYTES) as buffered:
                compression = compression_of(self.path, buffered.peek(MAGIC_BYTES)[:MAGIC_BYTES])
                stream: Readable = buffered if compression is None else compression.open(buffered)
                while chunk := stream.read(size):
                    if is_first:
                        self._refuse_container(chunk[:HEAD_BYTES])
                        is_first = False
                    self.bytes_read = raw.tell()
                    digest.update(chunk)
                    yield chunk
                while buffered.read(_CHUNK_BYTES):  # what a decompressor leaves behind its last stream
                    pass
                self.bytes_read = raw.tell()
                self.content = raw.digest.hexdigest()
        except (DamagedDataError, EOFError) as error:
            if compression is None:
                raise
            if isinstance(error, EOFError):
                raise compression.truncated(self.path) from error
            raise compression.damaged(self.path, error) from error
        except OSError as error:
            raise _cannot_read(self.path, error) from error

    def read_whole(self) -> bytes:
        """Return the bytes of the file as they are, also compressed ones; for formats that are read at once.

        Raises
        ------
        CorpusError
            If the file cannot be read.
        """
        self.bytes_read, self.content = 0, None
        try:
            with _Hashed(self._open()) as raw:
                parts = []
                block = memoryview(bytearray(_HASHED_BYTES))
                while n_bytes := raw.readinto(block):
                    parts.append(bytes(block[:n_bytes]))
                self.bytes_read = raw.tell()
                self.content = raw.digest.hexdigest()
        except OSError as error:
            raise _cannot_read(self.path, error) from error
        return b"".join(parts)

    def content_hash(self) -> str | None:
        """Return the hash of the file's bytes as they are now, XXH3 of 128 bits; None for what is no file.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        if not self._seekable:
            return None
        block = memoryview(bytearray(_HASHED_BYTES))
        with _Hashed(io.FileIO(self.path, "rb")) as raw:
            while raw.readinto(block):
                pass
            return raw.digest.hexdigest()

    def passed(self, content: str) -> None:
        """Be as after a pass over bytes of this hash."""
        self.content, self.bytes_read = content, self.n_bytes or 0

    def _refuse_container(self, head: bytes) -> None:
        advice = advice_by_content(head)
        if advice is not None:
            raise CorpusError(advice, path=self.path)

    def _open(self) -> io.RawIOBase:
        if self._seekable:
            raw = io.FileIO(self.path, "rb")
            self.n_bytes = os.fstat(raw.fileno()).st_size
            return raw
        if self._spool is None:
            self._spool = self._copy_to_spool()
            self.n_bytes = os.fstat(self._spool.fileno()).st_size
        return _SpoolView(self._spool)

    def _copy_to_spool(self) -> IO[bytes]:
        spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this object: see finalize)
        weakref.finalize(self, spool.close)
        if self.path != STDIN:
            with open(self.path, "rb") as pipe:
                shutil.copyfileobj(pipe, spool)
        elif sys.stdin is None:
            raise CorpusError("standard input is closed: pipe a corpus in, or give a file", path=STDIN)
        else:
            shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        return spool


def _cannot_read(path: str, error: OSError | ValueError) -> CorpusError:
    if isinstance(error, FileNotFoundError):
        return CorpusError(f"no such file: {_remedy_of_name(path)}", path=path)
    if isinstance(error, PermissionError):
        return CorpusError("permission denied: this user may not read the file", path=path)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CorpusError(f"cannot be read: {reason}", path=path)


def _remedy_of_name(path: str) -> str:
    """Return what to do about a path that names no file, by what it looks like."""
    if _URL.match(path):
        return "a URL is not read: download it first, and give the file"
    if path.startswith("~"):
        return "~ is not expanded here: give the whole path (in Python os.path.expanduser(path))"
    return "check the path"
