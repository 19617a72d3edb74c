"""Blocks of lines between blank lines: what holds a sentence in a file with a word on each line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple

from featurestore import limits
from featurestore.corpora.contract.whitespace import WHITESPACE
from featurestore.errors import CorpusError


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
    first = 1
    for has_text, group in groupby(lines, bool):
        block = list(islice(group, limits.MAX_SENTENCE_TOKENS + 1))
        if len(block) > limits.MAX_SENTENCE_TOKENS:
            raise CorpusError(
                f"no blank line in {len(block):,} lines, where a sentence may have "
                f"{limits.MAX_SENTENCE_TOKENS:,} tokens: are the sentences separated?",
                path=path,
                line=first,
            )
        if has_text:
            if min(block) > "!":
                yield Block(first, block)
            else:
                yield from _parted(first, block)
        first += len(block)


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
