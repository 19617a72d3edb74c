"""Whole files put in place of others: the new one complete and on the disk, or the old one untouched."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from featurestore.disk.explaining import explained
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.temporary import temporary_name

_BUFFER_BYTES = 1 << 16


def write_atomic(path: Path, data: bytes, filesystem: FileSystem = LOCAL) -> None:
    """Put a complete, synced file at a path, replacing what was there, or leave what was there untouched.

    Directories that are missing are made.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing.
    """
    filesystem.make_directory(path.parent, lasting=False)
    temporary = temporary_beside(path)
    with filesystem.temporary_file(temporary, [data], name=path):
        filesystem.replace(temporary, path)


@contextmanager
def replacing(
    path: Path, filesystem: FileSystem = LOCAL, *, lasting: bool = True, private: bool = False
) -> Iterator[IO[bytes]]:
    """Hold a new file to write to; when the context ends well, it takes the place of what was at the path.

    When it ends with an exception, what was there is untouched.

    Parameters
    ----------
    path : Path
    lasting : bool
        Whether it shall survive a power cut. If not, nothing waits for the disk, and after a cut the file may
        hold anything.
    private : bool
        Whether only this user may read it.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing: also out of the file's own methods.
    """
    temporary = temporary_beside(path)
    with filesystem.new_file(temporary, path) as descriptor:
        if private:
            with explained(path):
                os.fchmod(descriptor, 0o600)
        with io.BufferedWriter(_NewFile(path, descriptor, filesystem), _BUFFER_BYTES) as file:
            yield file
        if lasting:
            with explained(path):
                filesystem.sync_file(temporary, descriptor)
        filesystem.replace(temporary, path, lasting=lasting)


@contextmanager
def building(path: Path, filesystem: FileSystem = LOCAL) -> Iterator[Path]:
    """Hold a path beside this one, at which whoever asks makes a file or a folder of files.

    When the context ends well, it is synced and gets the name, which nothing must have; when it ends with an
    exception, it is deleted, and nothing is at the path.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing: also out of what the context does.
    """
    filesystem.make_directory(path.parent, lasting=False)
    temporary = temporary_beside(path)
    try:
        with explained(path):
            yield temporary
            for directory, _, names in os.walk(temporary):
                for name in names:
                    filesystem.sync(Path(directory, name))
                filesystem.sync_directory(Path(directory))
            if temporary.is_file():
                filesystem.sync(temporary)
        filesystem.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            filesystem.remove(temporary)
        raise


def temporary_beside(path: Path) -> Path:
    """Return a name in the same directory that nobody else uses."""
    return path.parent / f".{path.name}.{temporary_name('.tmp')}"


class _NewFile(io.RawIOBase):
    """A file being written, whose errors name the path that it is to have."""

    def __init__(self, path: Path, descriptor: int, filesystem: FileSystem) -> None:
        self._path, self._descriptor, self._filesystem = path, descriptor, filesystem

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with explained(self._path):
            self._filesystem.write_all(self._path, self._descriptor, view)
        return view.nbytes
