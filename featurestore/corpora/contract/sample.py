"""The beginning of a file, read ahead to tell what the file is; nothing of it is lost, errors included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NoReturn, TypeVar

from featurestore.errors import CorpusError

_Item = TypeVar("_Item")
_MOST_CHARACTERS = 1 << 20


def read_ahead(
    items: Iterable[_Item], n_items: int, n_characters: Callable[[_Item], int]
) -> tuple[list[_Item], Iterator[_Item], bool]:
    """Read the first lines or rows of a file, not much more than a million characters.

    Parameters
    ----------
    items : iterable
        Lines or rows.
    n_items : int
        The most that are read ahead.
    n_characters : callable
        Returns the length of one.

    Returns
    -------
    first : list
    items : iterator
        All of them, the first ones again; an error met while reading ahead is raised behind those before it.
    is_whole : bool
        Whether ``first`` are all of them.
    """
    iterator = iter(items)
    first: list[_Item] = []
    failed: CorpusError | None = None
    n_read, is_whole = 0, False
    try:
        for item in islice(iterator, n_items):
            first.append(item)
            n_read += n_characters(item)
            if n_read > _MOST_CHARACTERS:
                break
        else:
            is_whole = len(first) < n_items
    except CorpusError as error:
        failed = error

    return first, chain(first, iterator if failed is None else map(_raise, [failed])), is_whole


def _raise(error: CorpusError) -> NoReturn:
    raise error
