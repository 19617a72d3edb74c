"""What a user's path stands for: a file to replace, a link to follow, a device to leave alone."""

from __future__ import annotations

import os

import pytest

from featurestore.disk.destination import regular_file, replaceable, require_writable
from featurestore.errors import StoreWriteError, UsageError


def test_a_file_and_a_free_name_may_be_replaced_and_a_link_is_followed(tmp_path):
    file, free = tmp_path / "file", tmp_path / "free"
    file.touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to(free)
    assert replaceable(file) == replaceable(tmp_path / "link") == file
    assert replaceable(free) == replaceable(tmp_path / "dangling") == free


def test_what_is_no_regular_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "link"):
        assert replaceable(path) is None
        for refuse in (regular_file, require_writable):
            with pytest.raises(UsageError, match=f"cannot write {path}: it is there, and is no regular file"):
                refuse(path)


def test_an_open_file_without_a_name_is_written_to_as_it_is(tmp_path):
    with open(tmp_path / "gone", "w") as file:
        (tmp_path / "gone").unlink()
        assert replaceable(f"/dev/fd/{file.fileno()}") is None


def test_a_probe_leaves_nothing_and_makes_no_directory(tmp_path):
    require_writable(tmp_path / "new" / "deep" / "model.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/model.h5", "/proc/new/model.h5", "{0}/file/model.h5", "{0}/loop"])
def test_a_place_that_takes_no_file_is_named_as_the_user_named_it(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    path = place.format(tmp_path)
    with pytest.raises(StoreWriteError, match=f"^cannot write {path}: [^.]*$"):
        require_writable(path)
