"""What a store does when a disk fails as none here does: ``python -m tests.store.failing STORE``.

A program, because its system calls are replaced: see :mod:`tests.kit.processes.failing_calls`. It prints a
JSON object: the traceback of each case, empty where all is well.
"""

from __future__ import annotations

import errno
import fcntl
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.errors import DamagedStoreError, StoreError, StoreWriteError, UnreadableStoreError
from featurestore.store.format.recover import entry_of_file
from featurestore.store.maintenance.gc import collect
from featurestore.store.store import Store
from tests.kit.processes.failing_calls import failing
from tests.kit.stores import assert_holds, sentences, shard_path, vectors_of

N = 9
"""Sentences of the store that these are given."""

STALE = r"Stale.*Another computer.*open the store again"


def no_lock_for_writers(path: Path) -> None:
    with failing("flock", errno.ENOSYS, "/lock"):
        session = Store.open(path).write()
        session.add(sentences(N + 1)[N], vectors_of(sentences(N + 1)[N]))
        with pytest.raises(StoreWriteError, match="needs a file system with flock") as caught:
            session.flush()
    assert caught.value.path == path / "lock"
    assert len(Store.open(path)) == N


def no_lock_for_staged_files(path: Path) -> None:
    with failing("flock", errno.ENOLCK, "/tmp/"):
        session = Store.open(path).write()
        session.add(sentences(N + 1)[N], vectors_of(sentences(N + 1)[N]))
        with pytest.raises(StoreWriteError, match=r"Lustre: -o flock") as caught:
            session.flush()
    assert caught.value.errno == errno.ENOLCK
    assert len(Store.open(path)) == N


def no_lock_for_readers(path: Path) -> None:
    with failing("flock", errno.ENOSYS, "/manifests/"):
        assert_holds(Store.open(path), sentences(N))
        # Nobody can tell whether the older snapshot is being read: it stays.
        assert not collect(path, keep_last=1, older_than=0).removed
    assert Store.open(path, snapshot=1).snapshot == 1


def shards_cannot_be_mapped(path: Path) -> None:
    store = Store.open(path)
    with failing("mmap", errno.ENOMEM, "/shards/"), pytest.raises(StoreError, match='access="pread"'):
        store.reader(0)
    with (
        failing("mmap", errno.ESTALE, "/shards/"),
        pytest.raises(UnreadableStoreError, match="open the store again"),
    ):
        store.reader(0)
    with failing("mmap", errno.ENOMEM, "/shards/"):
        assert_holds(Store.open(path, access="pread"), sentences(N))


def an_index_cannot_be_mapped(path: Path) -> None:
    assert list((path / "index").glob("*.idx"))
    with failing("mmap", errno.ENOMEM, "/index/"):
        assert_holds(Store.open(path), sentences(N))


def a_mapped_shard_is_stale(path: Path) -> None:
    store = Store.open(path)
    assert sentences(1)[0] in store
    reader = store.reader(0)
    with failing("fstat", errno.ESTALE, reader.path.name), pytest.raises(UnreadableStoreError, match=STALE):
        store.get_many(sentences(N))
    with failing("fstat", errno.EIO, reader.path.name), pytest.raises(StoreError, match="cannot be read"):
        store.get_many(sentences(N))


def a_read_shard_is_stale(path: Path) -> None:
    store = Store.open(path, access="pread")
    assert sentences(1)[0] in store
    reader = store.reader(0)
    with failing("pread", errno.ESTALE, reader.path.name), pytest.raises(UnreadableStoreError, match=STALE):
        store.get_many(sentences(N))


def a_shard_that_no_manifest_lists_cannot_be_read(path: Path) -> None:
    shard = shard_path(Store.open(path))
    assert entry_of_file(shard).n_sentences
    with (
        failing("pread", errno.EIO, shard.name),
        pytest.raises(DamagedStoreError, match="Input/output"),
    ):
        entry_of_file(shard)


CASES: dict[str, Callable[[Path], None]] = {
    case.__name__: case
    for case in (
        no_lock_for_writers, no_lock_for_staged_files, no_lock_for_readers, shards_cannot_be_mapped,
        an_index_cannot_be_mapped, a_mapped_shard_is_stale, a_read_shard_is_stale,
        a_shard_that_no_manifest_lists_cannot_be_read,
    )
}  # fmt: skip


def main(path: str) -> None:
    with open(__file__, "rb") as file, failing("flock", errno.EUCLEAN, __file__):
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            sys.exit("calls cannot be preloaded")
        except OSError:
            pass
    found = dict.fromkeys(CASES, "")
    for name, case in CASES.items():
        try:
            case(Path(path))
        except BaseException:  # noqa: BLE001 - what pytest raises is no Exception
            found[name] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
