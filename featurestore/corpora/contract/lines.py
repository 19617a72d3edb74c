r"""Bytes to lines: UTF-8, split at ``\n`` and nowhere else, with the line named in every error.

A byte order mark at the start and a ``\r`` before ``\n`` are dropped. No other character ends a line
(Python's own line splitting would also cut at U+0085 or U+2028, which occur inside sentences). A ``\r``
elsewhere is whitespace inside a line, and worth a warning; a file that has no other line ends is refused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import NoReturn

from featurestore import limits
from featurestore.corpora.contract.options import ReadOptions
from featurestore.errors import CorpusError

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(chunks: Iterable[bytes], options: ReadOptions) -> Iterator[str]:
    """Yield the lines of a file without their line ends.

    Parameters
    ----------
    chunks : iterable of bytes
        The file in pieces, none longer than ``limits.MAX_LINE_BYTES``.
    options : ReadOptions
        Of the file, for messages.

    Raises
    ------
    CorpusError
        For bytes that are not UTF-8, a NUL byte, or a line that is too long, naming the line. Every line
        before it has been yielded by then. Also for a file whose only line ends are ``\r``.
    """
    path = options.path
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
            n_lines += yield from _decoded(block, options, n_lines)
            unfinished, n_unfinished = [], 0
        unfinished.append(chunk[end:])
        n_unfinished += len(chunk) - end
        if n_unfinished > limits.MAX_LINE_BYTES:
            _refuse_long(path, n_lines + 1)
    if n_unfinished:
        block = b"".join(unfinished)
        if n_lines == 0 and b"\r" in block.rstrip(b"\r"):
            raise CorpusError(
                "the lines end in carriage returns alone, as those of an old Mac: convert the file with "
                "`tr '\\r' '\\n'`",
                path=path,
            )
        yield from _decoded(block, options, n_lines)


def _decoded(block: bytes, options: ReadOptions, n_before: int) -> Generator[str, None, int]:
    """Yield the lines of a block of whole lines; return how many they were."""
    if n_before == 0:
        block = block.removeprefix(_BOM)
    # A whole block is decoded at once, which is several times faster than line by line.
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        yield from _until_bad_line(block, options.path, n_before)
    lines = text.removesuffix("\n").split("\n")
    if "\ufeff" in text and (text[0] == "\ufeff" or "\n\ufeff" in text):
        # Where files with a byte order mark were joined.
        lines = [line.removeprefix("\ufeff") for line in lines]
        options.warn_once(
            "a byte order mark at the beginning of a later line is left out: were files joined?"
        )
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
        if text.count("\r") > text.count("\r\n"):
            _warn_of_carriage_returns(lines, options, n_before)
    yield from lines
    return len(lines)


def _warn_of_carriage_returns(lines: list[str], options: ReadOptions, n_before: int) -> None:
    for number, line in enumerate(lines, n_before + 1):
        if "\r" in line:
            options.warn_once(
                "line %d is the first with a carriage return inside it, which ends no line (if it should: "
                "`tr '\\r' '\\n'`)",
                number,
            )
            return


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
