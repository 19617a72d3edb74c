"""What a store needs of the place where its files are: the interface that the local disk implements.

Whole files appear under their names atomically, stay as they are, and can be read by ranges; the one decision
that writers race for is :meth:`Storage.link_new`, which creates a name only if it is free. A second
implementation shows that it keeps all this by :class:`featurestore.testing.StorageContract`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BytesLike = bytes | memoryview | NDArray[np.generic]


class StoredFile(Protocol):
    """A file open for reading: the same bytes for as long as this object, whatever happens to its name."""

    @property
    def n_bytes(self) -> int:
        """Size now; a file that was linked does not change, unless something damages it."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return bytes from an offset; fewer, or none, where the file ends.

        Raises
        ------
        OSError
            If they cannot be read.
        """


class Storage(Protocol):
    """Files by path. What fails while writing is a :class:`~featurestore.errors.StoreWriteError`."""

    def open(self, path: Path) -> StoredFile:
        """Open a file for reading.

        Raises
        ------
        OSError
            FileNotFoundError if there is none; another one for a link, a directory or anything but a file.
        """

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted; all that :meth:`link_new` made before are among them.

        Raises
        ------
        OSError
            FileNotFoundError if there is no such directory.
        """

    def make_directory(self, path: Path, *, lasting: bool = True) -> None:
        """Create a directory and its parents, on the disk before anything in it; existing ones are fine.

        Not ``lasting`` if a power cut may take what will be in it.
        """

    def temporary_file(
        self,
        path: Path,
        parts: Iterable[BytesLike],
        n_bytes: int | None = None,
        *,
        name: Path | None = None,
        divisible: bool = False,
    ) -> AbstractContextManager[None]:
        """Hold a new file, complete and on the disk, for the context; nothing is left when that ends.

        Inside the context it is given its final name by :meth:`link_new` or :meth:`replace`.

        Parameters
        ----------
        path : Path
            A temporary name in an existing directory.
        parts : iterable of bytes, memoryview or array
            Laid end to end.
        n_bytes : int, optional
            Of all parts: with it they are taken one after the other and need not be in memory together.
        name : Path, optional
            What errors call the file.
        divisible : bool
            Whether errors should advise smaller files.
        """

    def link_new(self, source: Path, target: Path) -> bool:
        """Give a file of :meth:`temporary_file` its final name, atomically and never over another file.

        Of several writers that do so at once, exactly one succeeds. On return the name is on the disk, also
        if another writer made it.

        Returns
        -------
        bool
            False if the name was taken; nothing has changed then.
        """

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its final name, atomically, in place of whatever had it; on the disk on return."""

    def remove(self, path: Path) -> None:
        """Remove a file; one that is already gone is fine. Who has it open can still read it."""

    def remove_orphaned(self, directory: Path, pattern: str = "*") -> list[str]:
        """Remove temporary files whose writer is dead, and no others; return their names."""

    def sync_directory(self, path: Path) -> None:
        """Wait until the names in a directory, made or removed by anyone, are on the disk."""
