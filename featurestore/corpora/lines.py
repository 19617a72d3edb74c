r"""Bytes to lines: UTF-8, split at ``\n`` and nowhere else, with the line named in every error.

A byte order mark at the start and a ``\r`` before ``\n`` are dropped. No other character ends a line
(Python's own line splitting would also cut at U+0085 or U+2028, which occur inside sentences).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import NoReturn

from featurestore import limits
from featurestore.errors import CorpusError

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(chunks: Iterable[bytes], path: str) -> Iterator[str]:
    """Yield the lines of a file without their line ends.

    Parameters
    ----------
    chunks : iterable of bytes
        The file in pieces, none longer than ``limits.MAX_LINE_BYTES``.
    path : str
        The file, for messages.

    Raises
    ------
    CorpusError
        For bytes that are not UTF-8, a NUL byte, or a line that is too long, naming the line. Every line
        before it has been yielded by then.
    """
    n_lines = 0
    unfinished: list[bytes] = []
    n_unfinished = 0
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            # Only the first line of a block can be over the bound: the others lie within one chunk.
            block = b"".join([*unfinished, chunk[:end]])
            if block.find(b"\n") > limits.MAX_LINE_BYTES:
                _refuse_long(path, n_lines + 1)
            n_lines += yield from _decoded(block, path, n_lines)
            unfinished, n_unfinished = [], 0
        unfinished.append(chunk[end:])
        n_unfinished += len(chunk) - end
        if n_unfinished > limits.MAX_LINE_BYTES:
            _refuse_long(path, n_lines + 1)
    if n_unfinished:
        yield from _decoded(b"".join(unfinished), path, n_lines)


def _decoded(block: bytes, path: str, n_before: int) -> Generator[str, None, int]:
    """Yield the lines of a block of whole lines; return how many they were."""
    if n_before == 0:
        block = block.removeprefix(_BOM)
    # A whole block is decoded at once, which is several times faster than line by line.
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        yield from _until_bad_line(block, path, n_before)
    lines = text.removesuffix("\n").split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    yield from lines
    return len(lines)


def _until_bad_line(block: bytes, path: str, n_before: int) -> Generator[str, None, None]:
    """Yield the sound lines before the first bad one of a block, then raise for that line."""
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), n_before + 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            if number == 1 and line.startswith(_UTF16_BOMS):
                hint = "it looks like UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"
            else:
                hint = "convert the file (for Latin-1: `iconv -f LATIN1 -t UTF-8`) or repair the line"
            raise CorpusError(
                f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not UTF-8; {hint}",
                path=path,
                line=number,
            ) from error
        if "\0" in text:
            raise CorpusError(
                f"byte {line.index(0) + 1} of the line is NUL: expected text, found a binary or UTF-16 file",
                path=path,
                line=number,
            )
        yield text.removesuffix("\r")


def _refuse_long(path: str, line: int) -> NoReturn:
    raise CorpusError(
        f"the line is longer than {limits.MAX_LINE_BYTES:,} bytes: is this a text file with line ends (\\n)?",
        path=path,
        line=line,
    )
