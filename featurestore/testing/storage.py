"""The contract of storage as tests: what a store relies on, for every implementation of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from featurestore.disk.storage import BytesLike, Storage


class StorageContract:
    """Tests of a :class:`~featurestore.disk.storage.Storage`: subclass it in a test module of pytest.

    ::

        class TestMyStorage(StorageContract):
            def place(self, tmp_path):
                return MyStorage(...), Path("a/new/place")

    Each test asks :meth:`place` for a storage and a directory that does not exist in it yet. The tests need
    nothing but pytest's ``tmp_path`` and assert what :class:`~featurestore.disk.storage.Storage` says. Not
    tested: that what is synced survives a power cut, which no test in a process can show.
    """

    n_writers = 8
    """Threads in the tests of concurrent writers."""

    n_rounds = 20
    """How often these tests let them race."""

    def place(self, tmp_path: Path) -> tuple[Storage, Path]:
        """Return the storage and a directory for the files of one test, which does not exist yet."""
        raise NotImplementedError("a subclass of StorageContract says what is to be tested: define place()")

    # -- writing and reading

    def test_file_reads_back_whole_and_by_ranges(self, tmp_path: Path) -> None:
        """Any range of a file is what was written; beyond its end there is nothing."""
        storage, folder = self._folder(tmp_path)
        data = bytes(range(256)) * 33
        assert self._publish(storage, folder / "file", data)
        file = storage.open(folder / "file")
        assert file.n_bytes == len(data)
        for offset in (0, 1, 255, 4096, len(data) - 1, len(data), len(data) + 7):
            for n_bytes in (0, 1, 2, 4096, len(data) + 9):
                assert file.read(offset, n_bytes) == data[offset : offset + n_bytes], (offset, n_bytes)

    def test_parts_of_every_kind_are_laid_end_to_end(self, tmp_path: Path) -> None:
        """Bytes, views and arrays, also ones that are not contiguous; none at all make an empty file."""
        storage, folder = self._folder(tmp_path)
        grid = np.arange(24, dtype="<f4").reshape(4, 6)[:, ::2]
        parts: list[BytesLike] = [b"head", memoryview(b"0123456789")[2:5], grid, np.empty(0, "<u8"), b""]
        expected = b"head" + b"234" + grid.tobytes()
        with storage.temporary_file(folder / "t", parts):
            assert storage.link_new(folder / "t", folder / "file")
        assert self._content(storage, folder / "file") == expected
        with storage.temporary_file(folder / "t", iter(parts), len(expected)):
            assert storage.link_new(folder / "t", folder / "streamed")
        assert self._content(storage, folder / "streamed") == expected
        assert self._publish(storage, folder / "empty", b"")
        assert self._content(storage, folder / "empty") == b""

    def test_what_does_not_exist_is_not_found(self, tmp_path: Path) -> None:
        """Missing files and directories are FileNotFoundError; a directory is no file."""
        storage, folder = self._folder(tmp_path)
        _refuses(FileNotFoundError, lambda: storage.open(folder / "missing"))
        _refuses(FileNotFoundError, lambda: storage.names(folder / "missing"))
        _refuses(OSError, lambda: storage.open(folder))
        storage.remove(folder / "missing")

    def test_directories_are_made_with_their_parents_and_again(self, tmp_path: Path) -> None:
        """An existing directory, and what is in it, stays."""
        storage, folder = self._folder(tmp_path)
        storage.make_directory(folder / "a" / "b")
        assert self._publish(storage, folder / "a" / "b" / "file", b"x")
        storage.make_directory(folder / "a" / "b")
        storage.make_directory(folder / "a", lasting=False)
        assert storage.names(folder / "a" / "b") == ["file"]

    def test_names_are_all_that_were_made_and_sorted(self, tmp_path: Path) -> None:
        """A listing has every name made before it and none removed before it."""
        storage, folder = self._folder(tmp_path)
        assert storage.names(folder) == []
        expected: list[str] = []
        for number in (3, 1, 20, 2):
            assert self._publish(storage, folder / f"{number:08d}.json", b"{}")
            expected = sorted([*expected, f"{number:08d}.json"])
            assert storage.names(folder) == expected
        storage.remove(folder / "00000001.json")
        assert storage.names(folder) == ["00000002.json", "00000003.json", "00000020.json"]

    # -- names appear whole, once, or not at all

    def test_name_appears_only_when_it_is_linked(self, tmp_path: Path) -> None:
        """A temporary file is complete at once, has its final name when linked, and is gone afterwards."""
        storage, folder = self._folder(tmp_path)
        storage.make_directory(folder / "tmp")
        with storage.temporary_file(folder / "tmp" / "t", [b"data"]):
            assert self._content(storage, folder / "tmp" / "t") == b"data"
            assert storage.names(folder) == ["tmp"]
            assert storage.link_new(folder / "tmp" / "t", folder / "file")
            assert self._content(storage, folder / "file") == b"data"
        assert storage.names(folder / "tmp") == []
        assert self._content(storage, folder / "file") == b"data"

    def test_nothing_is_left_of_a_file_that_is_given_up(self, tmp_path: Path) -> None:
        """Neither when its context ends without a name, nor when it ends by an exception."""
        storage, folder = self._folder(tmp_path)
        with storage.temporary_file(folder / "t", [b"data"]):
            pass

        def give_up() -> None:
            with storage.temporary_file(folder / "t", [b"data"]):
                raise KeyError

        def never_complete() -> None:
            def parts() -> object:
                yield b"some"
                raise KeyError

            with storage.temporary_file(folder / "t", parts(), 8):  # type: ignore[arg-type]
                raise AssertionError("a file appeared whose parts failed")

        _refuses(KeyError, give_up)
        _refuses(KeyError, never_complete)
        assert storage.names(folder) == []

    def test_a_name_that_is_taken_stays_as_it_is(self, tmp_path: Path) -> None:
        """link_new returns False and changes nothing."""
        storage, folder = self._folder(tmp_path)
        assert self._publish(storage, folder / "file", b"first")
        assert not self._publish(storage, folder / "file", b"second, longer")
        assert self._content(storage, folder / "file") == b"first"
        assert storage.names(folder) == ["file"]

    def test_of_writers_that_race_for_a_name_one_wins(self, tmp_path: Path) -> None:
        """Exactly one link_new returns True, and the file is that writer's."""
        storage, folder = self._folder(tmp_path)
        for turn in range(self.n_rounds):
            won: list[int] = []

            def publish(number: int, *, turn: int = turn, won: list[int] = won) -> None:
                if self._publish(storage, folder / f"{turn}", bytes([number]) * 1000, f"t{number}"):
                    won.append(number)

            self._together(publish)
            assert len(won) == 1, f"{len(won)} writers were told that they made the same name"
            assert self._content(storage, folder / f"{turn}") == bytes([won[0]]) * 1000

    def test_writers_that_count_up_lose_no_number(self, tmp_path: Path) -> None:
        """As commits do: the next free number after the highest there is, again when another took it."""
        storage, folder = self._folder(tmp_path)

        def commit(number: int) -> None:
            for turn in range(5):
                while True:
                    last = int(max(storage.names(folder / "numbers"), default="0"))
                    mine = f"{number} {turn}".encode()
                    if self._publish(storage, folder / "numbers" / f"{last + 1:08d}", mine, f"t{number}"):
                        break

        storage.make_directory(folder / "numbers")
        self._together(commit)
        names = storage.names(folder / "numbers")
        assert [int(name) for name in names] == list(range(1, 5 * self.n_writers + 1))
        found = sorted(self._content(storage, folder / "numbers" / name).decode() for name in names)
        assert found == sorted(f"{writer} {turn}" for writer in range(self.n_writers) for turn in range(5))

    def test_replace_takes_the_place_of_a_file(self, tmp_path: Path) -> None:
        """With or without a file of that name before."""
        storage, folder = self._folder(tmp_path)
        for data in (b"first", b"second, longer", b""):
            with storage.temporary_file(folder / "t", [data]):
                storage.replace(folder / "t", folder / "file")
            assert self._content(storage, folder / "file") == data
            assert storage.names(folder) == ["file"]

    def test_who_reads_while_a_file_is_replaced_reads_one_whole_file(self, tmp_path: Path) -> None:
        """The one before or the one after, never a mixture, a part or none."""
        storage, folder = self._folder(tmp_path)
        versions = [bytes([number]) * (5000 + number) for number in range(self.n_rounds)]
        assert self._publish(storage, folder / "file", versions[0])
        ended = threading.Event()
        seen: list[bytes] = []

        def work(number: int) -> None:
            if number == 0:
                try:
                    for version in versions:
                        with storage.temporary_file(folder / "t", [version]):
                            storage.replace(folder / "t", folder / "file")
                finally:
                    ended.set()
            while not ended.is_set():
                seen.append(self._content(storage, folder / "file"))

        self._together(work)
        assert set(seen) <= set(versions)

    # -- what is open, removed, left over

    def test_an_open_file_keeps_its_bytes(self, tmp_path: Path) -> None:
        """Whatever takes its name, or if nothing has it any more."""
        storage, folder = self._folder(tmp_path)
        assert self._publish(storage, folder / "file", b"first")
        first = storage.open(folder / "file")
        with storage.temporary_file(folder / "t", [b"second"]):
            storage.replace(folder / "t", folder / "file")
        second = storage.open(folder / "file")
        storage.remove(folder / "file")
        assert (first.read(0, 99), second.read(0, 99)) == (b"first", b"second")
        _refuses(FileNotFoundError, lambda: storage.open(folder / "file"))

    def test_a_name_can_be_made_again_once_it_is_removed(self, tmp_path: Path) -> None:
        """Removing is complete when remove returns."""
        storage, folder = self._folder(tmp_path)
        for data in (b"first", b"second"):
            assert self._publish(storage, folder / "file", data)
            assert self._content(storage, folder / "file") == data
            storage.remove(folder / "file")
            storage.sync_directory(folder)
            assert storage.names(folder) == []

    def test_a_living_writers_file_is_not_swept(self, tmp_path: Path) -> None:
        """remove_orphaned leaves it, whoever calls it, and it can be linked afterwards."""
        storage, folder = self._folder(tmp_path)
        storage.make_directory(folder / "tmp")
        with storage.temporary_file(folder / "tmp" / "t", [b"data"]):
            assert storage.remove_orphaned(folder / "tmp") == []
            assert storage.link_new(folder / "tmp" / "t", folder / "file")
        assert self._content(storage, folder / "file") == b"data"
        assert storage.remove_orphaned(folder / "missing") == []

    def test_a_dead_writers_file_is_swept_and_nothing_else(self, tmp_path: Path) -> None:
        """Of a process that was killed while it held a temporary file, nothing stays; linked files do."""
        storage, folder = self._folder(tmp_path)
        storage.make_directory(folder / "tmp")
        assert self._publish(storage, folder / "file", b"data")
        child = os.fork()
        if child == 0:
            try:
                held = storage.temporary_file(folder / "tmp" / self.orphan_name(), [b"half a shard"])
                held.__enter__()
            finally:
                os._exit(0)  # as a kill does: no context ends
        os.waitpid(child, 0)
        storage.remove_orphaned(folder / "tmp")
        assert storage.names(folder / "tmp") == []
        assert self._content(storage, folder / "file") == b"data"

    # -- helpers

    def orphan_name(self) -> str:
        """Return a temporary name such as writers of a store choose."""
        from featurestore.disk.temporary import temporary_name

        return temporary_name(".h5")

    def _folder(self, tmp_path: Path) -> tuple[Storage, Path]:
        storage, folder = self.place(tmp_path)
        storage.make_directory(folder)
        return storage, folder

    @staticmethod
    def _publish(storage: Storage, path: Path, data: bytes, temporary: str = "t") -> bool:
        with storage.temporary_file(path.parent.parent / f"{path.parent.name}-{temporary}", [data]):
            return storage.link_new(path.parent.parent / f"{path.parent.name}-{temporary}", path)

    @staticmethod
    def _content(storage: Storage, path: Path) -> bytes:
        file = storage.open(path)
        return file.read(0, file.n_bytes)

    def _together(self, work: Callable[[int], object]) -> None:
        """Run ``work(0)``, ``work(1)``, ... in threads that begin at once; raise the first error of any."""
        barrier = threading.Barrier(self.n_writers)

        def run(number: int) -> None:
            barrier.wait()
            work(number)

        with ThreadPoolExecutor(self.n_writers) as pool:
            list(pool.map(run, range(self.n_writers)))


def _refuses(kind: type[BaseException], call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}")
