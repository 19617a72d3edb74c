"""Files put in place of others: complete, synced with their directory, or not at all; and their hashes."""

from __future__ import annotations

import errno
import hashlib
import io
import os

import numpy as np
import pytest

from featurestore.cli.display.streams import writing
from featurestore.disk.atomic import replacing, write_atomic
from featurestore.disk.filesystem import FileSystem
from featurestore.disk.hashes import file_sha256, sha256_of
from featurestore.disk.operation import Operation
from featurestore.encoders.elmo.files.download import Transfer
from featurestore.encoders.elmo.files.weights import write_tensors
from featurestore.errors import EncoderError, StoreWriteError


class Recording(FileSystem):
    """Notes the kinds of operations; fails with an error at the first of a kind."""

    def __init__(self, fails_at: str = "") -> None:
        self.kinds: list[str] = []
        self._fails_at = fails_at

    def operate(self, operation: Operation, call, *arguments):
        self.kinds.append(operation.kind)
        if operation.kind == self._fails_at:
            raise OSError(errno.EIO, "Input/output error")
        return super().operate(operation, call, *arguments)


def put(path, data, filesystem):
    with replacing(path, filesystem) as file:
        file.write(data)


@pytest.mark.parametrize("way", [write_atomic, put])
def test_file_and_directory_are_synced_around_the_rename(tmp_path, way):
    filesystem = Recording()
    (tmp_path / "file").write_bytes(b"old")
    way(tmp_path / "file", b"new", filesystem)
    assert (tmp_path / "file").read_bytes() == b"new"
    kinds = [kind for kind in filesystem.kinds if kind != "reserve"]
    assert kinds == ["create", "write", "sync", "rename", "sync directory", "unlink"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("way", [write_atomic, put])
@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename"])
def test_what_was_there_stays_where_an_operation_fails(tmp_path, way, kind):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StoreWriteError, match=f"cannot write {tmp_path / 'file'}") as caught:
        way(tmp_path / "file", b"new", Recording(fails_at=kind))
    assert (caught.value.path, caught.value.errno) == (tmp_path / "file", errno.EIO)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_there_stays_when_its_writer_gives_up(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def give_up():
        with replacing(tmp_path / "file") as file:
            file.write(b"half of it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        give_up()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_large_and_small_writes_arrive_in_order(tmp_path):
    pieces = [bytes([i % 256]) * (i * 997 % 200_000) for i in range(40)]
    with replacing(tmp_path / "file") as file:
        for piece in pieces:
            file.write(piece)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("n_bytes", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1])
def test_hash_of_a_file_is_that_of_its_bytes(tmp_path, n_bytes):
    data = bytes(n_bytes)
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_hash_reads_no_more_than_it_was_told():
    assert sha256_of(io.BytesIO(b"abcdef"), 3) == hashlib.sha256(b"abc").hexdigest()
    assert sha256_of(io.BytesIO(b"ab"), 3) == hashlib.sha256(b"ab").hexdigest()
    assert sha256_of(io.BytesIO(b"ab"), 0) == hashlib.sha256(b"").hexdigest()


def through_writing(path):
    with writing(str(path)) as stream:
        stream.write("ä\n" * 100_000)


def through_tensors(path):
    write_tensors(path, {"a": np.ones((300, 400), np.float32)}, what="tensors")


def through_a_download(path):
    part = path.with_name(path.name + ".part")
    part.write_bytes(b"all of it")
    Transfer("http://example.org/file", path).publish()


@pytest.mark.parametrize("put_there", [through_writing, through_tensors, through_a_download])
def test_predictions_weights_and_downloads_are_synced_with_their_directory(tmp_path, monkeypatch, put_there):
    kinds, operate = [], FileSystem.operate

    def noted(self, operation: Operation, call, *arguments):
        kinds.append(operation.kind)
        return operate(self, operation, call, *arguments)

    monkeypatch.setattr(FileSystem, "operate", noted)
    put_there(tmp_path / "file")
    assert [kind for kind in kinds if kind not in ("create", "write", "unlink")] == [
        "sync", "rename", "sync directory"
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_predictions_that_fail_leave_the_file_before_them(tmp_path):
    (tmp_path / "file").write_text("old")

    def fail():
        with writing(str(tmp_path / "file")) as stream:
            stream.write("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_weights_that_cannot_be_written_say_why(tmp_path, monkeypatch, code):
    operate = FileSystem.operate

    def failing(self, operation: Operation, call, *arguments):
        if operation.kind == "write":
            raise OSError(code, os.strerror(code))
        return operate(self, operation, call, *arguments)

    monkeypatch.setattr(FileSystem, "operate", failing)
    with pytest.raises(EncoderError, match=f"cannot write tensors {tmp_path / 'w'}: {os.strerror(code)}$"):
        write_tensors(tmp_path / "w", {"a": np.ones(3, np.float32)}, what="tensors")
    assert list(tmp_path.iterdir()) == []
