"""Compressed corpora: gzip, bzip2, xz and Zstandard, known by file name or by first bytes.

Each is read in pieces of bounded size, however well it is compressed; several streams in one file are read
one after the other, and what is no stream behind them is an error.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from featurestore.errors import CorpusError, UsageError

ZSTD_EXTRA = "pip install 'featurestore[zstd]'"
"""What brings the package that reads ``.zst``."""

MAGIC_BYTES = 10
"""How many of its first bytes tell how a file is compressed."""

_CHUNK_BYTES = 128 << 10
_XZ_MEMORY_BYTES = 512 << 20
"""Bound of xz's dictionary: ``xz -9`` takes 65 MiB, but a file may ask for 4 GiB."""


class DamagedDataError(Exception):
    """Compressed data is not what its format says."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


class _Decompressor(Protocol):
    """What the decompressors of bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Streams:
    """Reads the compressed streams of a file, one after the other.

    Parameters
    ----------
    compressed : readable
    new : callable
        Makes a decompressor for one stream.
    errors : tuple of exception types
        What it raises for damaged data.
    padding : bytes
        Bytes that may stand behind a stream.
    """

    def __init__(
        self,
        compressed: Readable,
        new: Callable[[], _Decompressor],
        errors: tuple[type[Exception], ...],
        padding: bytes = b"",
    ) -> None:
        self._compressed, self._new, self._errors, self._padding = compressed, new, errors, padding
        self._decompressor = new()

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, none at the end of the file.

        Raises
        ------
        DamagedDataError, EOFError
            If the data is damaged, or ends within a stream.
        """
        while True:
            data = b""
            if self._decompressor.eof:
                if not (data := self._behind_stream()):
                    return b""
                self._decompressor = self._new()
            elif self._decompressor.needs_input and not (data := self._compressed.read(_CHUNK_BYTES)):
                raise EOFError
            try:
                found = self._decompressor.decompress(data, size)
            except self._errors as error:
                raise DamagedDataError(str(error)) from error
            if found:
                return found

    def _behind_stream(self) -> bytes:
        data = self._decompressor.unused_data or self._compressed.read(_CHUNK_BYTES)
        while self._padding and data and not (data := data.lstrip(self._padding)):
            data = self._compressed.read(_CHUNK_BYTES)
        return data


class _Gzip:
    """As :class:`_Streams`, by the standard library's reader, which knows gzip's header and checksum."""

    def __init__(self, compressed: Readable) -> None:
        self._stream = gzip.GzipFile(fileobj=cast(Any, compressed))

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DamagedDataError(str(error)) from error


def _bzip2(compressed: Readable) -> Readable:
    # Its decompressor raises a bare OSError for bad data, and never reads a file itself.
    return _Streams(compressed, bz2.BZ2Decompressor, (OSError, ValueError))


def _xz(compressed: Readable) -> Readable:
    def new() -> _Decompressor:
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)

    return _Streams(compressed, new, (lzma.LZMAError,), padding=b"\0")


def _zstandard(compressed: Readable) -> Readable:
    try:
        from backports import zstd
    except ModuleNotFoundError as error:
        raise UsageError(
            "a file compressed with Zstandard needs the package backports.zstd, which is not installed: "
            f"{ZSTD_EXTRA}; or decompress it first: `zstd -d FILE`"
        ) from error
    return _Streams(compressed, zstd.ZstdDecompressor, (zstd.ZstdError,))


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress files.

    Attributes
    ----------
    name, tool : str
        What messages call it, and the command whose ``-t`` tests its files.
    extensions : tuple of str
    magic : pattern
        Matches the beginning of its files, and of no UTF-8 text.
    open : callable
        Returns a stream of the uncompressed bytes of a file; raises UsageError where a package is missing.
    """

    name: str
    tool: str
    extensions: tuple[str, ...]
    magic: re.Pattern[bytes]
    open: Callable[[Readable], Readable]

    def damaged(self, path: str, error: Exception) -> CorpusError:
        """Return the error for a file that is not sound."""
        named = [end for end in self.extensions if path.lower().endswith(end)]
        or_else = f", or drop {named[0]} from its name" if named else ""
        return CorpusError(
            f"is not sound {self.name} ({error}): check it with `{self.tool} -t`{or_else}", path=path
        )

    def truncated(self, path: str) -> CorpusError:
        """Return the error for a file whose end is missing."""
        return CorpusError(
            f"the {self.name} data ends too early (a truncated file): copy or download it again", path=path
        )


_COMPRESSIONS = (
    Compression("gzip", "gzip", (".gz",), re.compile(rb"\x1f\x8b"), _Gzip),
    Compression("bzip2", "bzip2", (".bz2",), re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), _bzip2),
    Compression("xz", "xz", (".xz", ".lzma"), re.compile(rb"\xfd7zXZ\0"), _xz),
    Compression("Zstandard", "zstd", (".zst", ".zstd"), re.compile(rb"\x28\xb5\x2f\xfd"), _zstandard),
)


def compression_of(path: str, first_bytes: bytes) -> Compression | None:
    """Return how a file is compressed, by its name or else by its first bytes; None if it is not."""
    name = path.lower()
    by_name = next((c for c in _COMPRESSIONS if name.endswith(c.extensions)), None)
    return by_name or next((c for c in _COMPRESSIONS if c.magic.match(first_bytes)), None)


def without_compression(path: str) -> str:
    """Return a file name in lower case, without the ending that says how the file is compressed."""
    name = path.lower()
    for compression in _COMPRESSIONS:
        for extension in compression.extensions:
            if name.endswith(extension):
                return name.removesuffix(extension)
    return name
