"""Blocks of lines between blank lines: what holds a sentence in a file with a word on each line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from featurestore import limits
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.errors import CorpusError

_LINES_AT_ONCE = 4096


class Block(NamedTuple):
    """Lines with no blank line between them.

    Attributes
    ----------
    line : int
        1-based number of the first line.
    lines : list of str
    """

    line: int
    lines: list[str]


class Blocks:
    """The blocks of a file, one after the other; those to come can be inspected.

    Lines of nothing but ASCII whitespace are blank.

    Parameters
    ----------
    lines : iterable of str
        The file's lines, without their line ends.
    path : str
        The file, for messages.

    Raises
    ------
    CorpusError
        While iterating, if a block has more lines than a sentence may have tokens.
    """

    def __init__(self, lines: Iterable[str], path: str) -> None:
        self._unread = _read(iter(lines), path)
        self._inspected: deque[Block] = deque()
        self._failed: CorpusError | None = None

    def __iter__(self) -> Iterator[Block]:
        while True:
            while self._inspected:
                yield self._inspected.popleft()
            if self._failed is not None:
                raise self._failed
            for block in self._unread:
                yield block
                if self._inspected or self._failed:
                    break
            else:
                if not self._inspected:
                    return

    def ahead(self, n_lines: int) -> list[Block]:
        """Return the next blocks, without taking them, until they have ``n_lines`` lines."""
        found = sum(len(block.lines) for block in self._inspected)
        while found < n_lines and self._failed is None:
            try:
                block = next(self._unread, None)
            except CorpusError as error:
                # Raised once the sentences before it were yielded.
                self._failed = error
                break
            if block is None:
                break
            self._inspected.append(block)
            found += len(block.lines)
        return list(self._inspected)


def _read(lines: Iterator[str], path: str) -> Iterator[Block]:
    first, waiting = 1, list[str]()
    failed: CorpusError | None = None
    is_over = False
    while not is_over:
        n_searched = len(waiting)
        try:
            # Many lines at a time, which is faster than inspecting each.
            waiting.extend(islice(lines, _LINES_AT_ONCE))
            is_over = len(waiting) - n_searched < _LINES_AT_ONCE
        except CorpusError as error:
            # The lines before the bad one have been appended.
            failed, is_over = error, True
        begin = 0
        while (end := _index_of_empty(waiting, max(begin, n_searched))) is not None:
            if end > begin:
                yield from _block(first + begin, waiting[begin:end], path)
            begin = end + 1
        del waiting[:begin]
        first += begin
        _require_bound(waiting, path, first)
    if failed is not None:
        raise failed
    if waiting:
        yield from _block(first, waiting, path)


def _index_of_empty(lines: list[str], start: int) -> int | None:
    try:
        return lines.index("", start)
    except ValueError:
        return None


def _block(first: int, lines: list[str], path: str) -> Iterator[Block]:
    _require_bound(lines, path, first)
    if min(lines) > "!":
        yield Block(first, lines)
    else:
        yield from _parted(first, lines)


def _require_bound(lines: list[str], path: str, first: int) -> None:
    if len(lines) > limits.MAX_SENTENCE_TOKENS:
        raise CorpusError(
            f"no blank line in {limits.MAX_SENTENCE_TOKENS + 1:,} lines, where a sentence may have "
            f"{limits.MAX_SENTENCE_TOKENS:,} tokens: are the sentences separated?",
            path=path,
            line=first,
        )


def _parted(first: int, lines: list[str]) -> Iterator[Block]:
    """Yield the blocks of lines some of which may hold nothing but blanks."""
    block: list[str] = []
    for number, line in enumerate(lines, first):
        if line.strip(WHITESPACE):
            block.append(line)
        elif block:
            yield Block(number - len(block), block)
            block = []
    if block:
        yield Block(first + len(lines) - len(block), block)
