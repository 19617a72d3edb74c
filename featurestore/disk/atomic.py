"""Whole files put in place of others: the new one complete and on the disk, or the old one untouched."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from featurestore.disk.explaining import explained
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.temporary import temporary_name, this_computer
from featurestore.errors import StoreWriteError

_BUFFER_BYTES = 1 << 16
_NEW_SECONDS = 2.0


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
    """Hold a path in a new folder beside this one, at which whoever asks makes a file or a folder.

    When the context ends well, that is synced and gets the name, which nothing must have; when it ends with
    an exception, it is deleted, and nothing is at the path. What a process left that was killed is deleted
    by the next one that builds at the same path.

    Raises
    ------
    StoreWriteError
        Disk full, read-only, or failing: also out of what the context does. If something came to the path
        meanwhile.
    """
    filesystem.make_directory(path.parent, lasting=False)
    _remove_left_over(path)
    folder = temporary_beside(path)
    made = folder / path.name
    try:
        filesystem.make_directory(folder, lasting=False)
        with _locked(folder):
            with explained(path):
                yield made
                for directory, _, names in os.walk(made):
                    for name in names:
                        filesystem.sync(Path(directory, name))
                    filesystem.sync_directory(Path(directory))
            if made.is_dir():
                filesystem.replace(made, path)
            else:
                filesystem.sync(made)
                if not filesystem.link_new(made, path):
                    raise StoreWriteError(
                        f"something came to {path} meanwhile: choose another name", path=path
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, by which others see that its maker lives."""
    descriptor = _open_folder(folder)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _remove_left_over(path: Path) -> None:
    """Delete what killed processes of this computer were building at a path."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.{this_computer()}-*.tmp"):
        with contextlib.suppress(OSError):
            # Who has just made one has yet to lock it.
            is_new = time.time() - folder.lstat().st_ctime < _NEW_SECONDS
            if is_new or folder.is_symlink() or not folder.is_dir():
                continue
            mine, others = _open_folder(folder), _open_folder(folder)
            try:
                # Where the second one gets the lock too, locks mean nothing: the maker may live.
                if _lock(mine) and not _lock(others):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(mine)
                os.close(others)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _lock(descriptor: int) -> bool:
    """Lock for this process alone; return False if another one has the lock, or the disk has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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
