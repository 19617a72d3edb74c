"""The first lines of a file, read ahead to tell what the file is; nothing of it is lost, errors included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from featurestore.errors import CorpusError

_MOST_CHARACTERS = 1 << 20


def read_ahead(lines: Iterable[str], n_lines: int) -> tuple[list[str], Iterator[str], bool]:
    """Read the first lines of a file, not much more than a million characters.

    Returns
    -------
    first : list of str
    lines : iterator over str
        All lines, the first ones again; an error met while reading ahead is raised behind those before it.
    is_whole : bool
        Whether ``first`` are all lines.
    """
    iterator = iter(lines)
    first: list[str] = []
    failed: CorpusError | None = None
    n_characters, is_whole = 0, False
    try:
        for line in islice(iterator, n_lines):
            first.append(line)
            n_characters += len(line)
            if n_characters > _MOST_CHARACTERS:
                break
        else:
            is_whole = len(first) < n_lines
    except CorpusError as error:
        failed = error

    def again() -> Iterator[str]:
        yield from first
        if failed is not None:
            raise failed
        yield from iterator

    return first, again(), is_whole
