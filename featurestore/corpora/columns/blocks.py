"""Blocks of lines between blank lines: what holds a sentence in a file with a word on each line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from featurestore import limits
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.errors import CorpusError

_LINES_BETWEEN_CHECKS = 1 << 16


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
                # To be raised behind the sentences before it.
                self._failed = error
                break
            if block is None:
                break
            self._inspected.append(block)
            found += len(block.lines)
        return list(self._inspected)


def _read(lines: Iterator[str], path: str) -> Iterator[Block]:
    block: list[str] = []
    first = 1
    while True:
        n_read = 0
        # In runs, so that the length of a block need not be compared at every line.
        for line in islice(lines, _LINES_BETWEEN_CHECKS):
            n_read = 1
            if line and (line[0] > " " or line.strip(WHITESPACE)):
                block.append(line)
                continue
            if block:
                yield Block(first, block)
                first += len(block)
                block = []
            first += 1
        if len(block) > limits.MAX_SENTENCE_TOKENS:
            raise CorpusError(
                f"no blank line in {len(block):,} lines, where a sentence may have "
                f"{limits.MAX_SENTENCE_TOKENS:,} tokens: are the sentences separated?",
                path=path,
                line=first,
            )
        if not n_read:
            break
    if block:
        yield Block(first, block)
