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
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NOBODY_READS = (errno.EPIPE, errno.EIO)
_ESCAPE = "featurestore.escape"


class Unread(BaseException):
    """Nobody reads standard output any more, and it is all that the command is for."""


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
    """The bytes of standard error: that they cannot be written, nobody could be told."""

    def _may_be_lost(self, error: OSError) -> bool:
        return True


def prepare_streams() -> None:
    """Let standard output and error show any text, read or not; those put in their place stay as they are."""
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
