"""The storage contract, kept by the local disk with and without links, and broken by what breaks it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.disk.filesystem import FileSystem
from featurestore.disk.opening import OpenFile
from featurestore.store.store import Store
from featurestore.testing import StorageContract
from tests.kit.faulty import WithoutLinks
from tests.kit.stores import assert_holds, create, fill, sentences


class TestLocalDisk(StorageContract):
    def place(self, tmp_path):
        return FileSystem(), tmp_path / "place"


class TestDiskWithoutLinks(StorageContract):
    def place(self, tmp_path):
        return WithoutLinks(errno.EPERM), tmp_path / "place"


def contract(storage: type[FileSystem]) -> StorageContract:
    class Tried(StorageContract):
        def place(self, tmp_path):
            return storage(), tmp_path / "place"

    return Tried()


class Overwriting(FileSystem):
    def link_new(self, source: Path, target: Path) -> bool:
        self.replace(source, target)
        return True


class LookingBefore(FileSystem):
    """Tells whether the name is free, then takes it: another may be faster."""

    def link_new(self, source: Path, target: Path) -> bool:
        if target.exists():
            return False
        self.replace(source, target)
        return True


class ListingLate(FileSystem):
    def names(self, directory: Path) -> list[str]:
        return super().names(directory)[:-1]


class Unsorted(FileSystem):
    def names(self, directory: Path) -> list[str]:
        return super().names(directory)[::-1]


class WritingInPlace(FileSystem):
    def replace(self, source: Path, target: Path) -> None:
        target.write_bytes(b"")
        target.write_bytes(source.read_bytes())


class ShortReads(FileSystem):
    def open(self, path: Path) -> OpenFile:
        class Short(OpenFile):
            def read(self, offset: int, n_bytes: int) -> bytes:
                return super().read(offset, min(n_bytes, 4096))

        return Short(path)


class ReadingByName(FileSystem):
    def open(self, path: Path) -> OpenFile:
        class ByName(OpenFile):
            def read(self, offset: int, n_bytes: int) -> bytes:
                return path.read_bytes()[offset : offset + n_bytes]

        return ByName(path)


class SweepingAll(FileSystem):
    def remove_orphaned(self, directory: Path, pattern: str = "*", **options: float) -> list[str]:
        swept = [path for path in directory.glob(pattern) if path.is_file()]
        for path in swept:
            path.unlink()
        return [path.name for path in swept]


class SweepingNothing(FileSystem):
    def remove_orphaned(self, directory: Path, pattern: str = "*", **options: float) -> list[str]:
        return []


class LeavingTemporaries(FileSystem):
    def remove(self, path: Path) -> None:
        if path.exists() and path.parent.name != "place":
            return
        super().remove(path)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Overwriting, "test_a_name_that_is_taken_stays_as_it_is"),
        (Overwriting, "test_of_writers_that_race_for_a_name_one_wins"),
        (Overwriting, "test_writers_that_count_up_lose_no_number"),
        (LookingBefore, "test_of_writers_that_race_for_a_name_one_wins"),
        (ListingLate, "test_names_are_all_that_were_made_and_sorted"),
        (Unsorted, "test_names_are_all_that_were_made_and_sorted"),
        (WritingInPlace, "test_who_reads_while_a_file_is_replaced_reads_one_whole_file"),
        (WritingInPlace, "test_an_open_file_keeps_its_bytes"),
        (ShortReads, "test_file_reads_back_whole_and_by_ranges"),
        (ReadingByName, "test_an_open_file_keeps_its_bytes"),
        (SweepingAll, "test_a_living_writers_file_is_not_swept"),
        (SweepingNothing, "test_a_dead_writers_file_is_swept_and_nothing_else"),
        (LeavingTemporaries, "test_name_appears_only_when_it_is_linked"),
    ],
)
def test_what_breaks_the_contract_fails_its_test(tmp_path, broken, test):
    tried = contract(broken)
    tried.n_rounds = 200
    with pytest.raises((AssertionError, OSError)):
        getattr(tried, test)(tmp_path)


def test_place_must_be_defined(tmp_path):
    with pytest.raises(NotImplementedError, match="place"):
        StorageContract().test_what_does_not_exist_is_not_found(tmp_path)


class Counting(FileSystem):
    """Notes which files are opened, listed and linked."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.listed: list[str] = []
        self.linked: list[str] = []

    def open(self, path: Path) -> OpenFile:
        self.opened.append(path.parent.name)
        return super().open(path)

    def names(self, directory: Path) -> list[str]:
        self.listed.append(directory.name)
        return super().names(directory)

    def link_new(self, source: Path, target: Path) -> bool:
        self.linked.append(target.parent.name)
        return super().link_new(source, target)


def test_a_store_reads_and_publishes_through_its_storage(tmp_path):
    storage = Counting()
    fill(create(tmp_path / "store", filesystem=storage), sentences(30))
    n_shards = len(os.listdir(tmp_path / "store" / "shards"))
    assert storage.linked.count("shards") == n_shards
    assert storage.linked.count("manifests") == 1 + n_shards
    storage = Counting()
    store = Store.open(tmp_path / "store", access="pread", filesystem=storage)
    assert (storage.opened, storage.listed) == (["manifests"], ["manifests"])
    assert_holds(store, sentences(30))
    assert storage.opened == ["manifests", *["shards"] * n_shards]


def test_importing_it_loads_neither_torch_nor_pytest():
    code = "import sys, featurestore.testing; print({'torch', 'flair', 'pytest', 'h5py'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "set()\n"
