"""Standard output and error of a command: any text can be shown, and nobody needs to read it.

A command must not stop halfway, nor change its result, because what it prints goes nowhere: a pipe whose
reader has ended (``featurestore extract ... | head``), a terminal that has hung up.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, TextIO

from featurestore.errors import StoreWriteError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NOBODY_READS = (errno.EPIPE, errno.EIO)
_ESCAPE = "featurestore.escape"


class Unread(BaseException):
    """Nobody reads standard output any more, and writing it is the command's only work."""


class _Output(io.FileIO):
    """The bytes of standard output; dropped from the moment when nobody reads them."""

    ends_command = False
    """Whether the first bytes to be dropped raise :class:`Unread`."""

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not self._may_be_lost(error) and not self._failed:
                self._failed = True  # once is enough: what is buffered is written again when Python ends
                raise
        if self.ends_command:
            self.ends_command = False
            raise Unread
        return memoryview(data).nbytes

    def _may_be_lost(self, error: OSError) -> bool:
        return error.errno in _NOBODY_READS


class _Messages(_Output):
    """The bytes of standard error; that they cannot be written is ignored, as nobody could be told."""

    def _may_be_lost(self, error: OSError) -> bool:
        return True


def prepare_streams() -> None:
    """Let standard output and error take any text, read or not; streams in their place stay as they are."""
    codecs.register_error(_ESCAPE, _escape)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, _Output)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(sys.stderr, _Messages)


@contextmanager
def ending_when_unread() -> Iterator[None]:
    """Raise :class:`Unread` inside once nobody reads standard output any more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Output):
        yield
        return
    raw.ends_command = True
    try:
        yield
    finally:
        raw.ends_command = False


def _opened(stream: TextIO | None, kind: type[_Output]) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # None: closed before the process began
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=_ESCAPE,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape what an encoding lacks as JSON does, so that JSON stays JSON in every encoding."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


@contextmanager
def writing(output: str) -> Iterator[IO[str]]:
    """Open standard output, or a file that gets its name only when it is complete.

    Of a link, its target is replaced; a pipe or a device is written to as it is.
    """
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    from featurestore.disk.atomic import replacing
    from featurestore.disk.destination import replaceable

    target = replaceable(output)
    if target is None:
        try:
            with open(output, "w", encoding="utf-8", newline="\n") as stream:
                yield stream
        except OSError as error:
            raise StoreWriteError(
                f"cannot write {output}: {error.strerror or error}", path=output, errno=error.errno
            ) from error
        return
    with replacing(target) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()  # the file is closed by whoever opened it
