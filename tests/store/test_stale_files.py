"""Shards that another computer removed under their reader, as network file systems show it."""

from __future__ import annotations

import errno
import os

import pytest

from featurestore.errors import UnreadableStoreError
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentences


class Stale:
    """A map of a file that is gone."""

    def size(self) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@pytest.mark.parametrize("access", ["mmap", "pread"])
def test_a_stale_shard_is_an_error_of_ours_and_no_damage(tmp_path, monkeypatch, access):
    store = Store.open(fill(create(tmp_path / "store.fs"), sentences(9)).path, access=access)
    assert sentences(1)[0] in store
    reader = store.reader(0)
    if access == "mmap":
        reader._map = Stale()
    else:
        shard, pread = reader._file.fileno(), os.pread

        def stale(descriptor: int, n_bytes: int, offset: int) -> bytes:
            if descriptor == shard:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return pread(descriptor, n_bytes, offset)

        monkeypatch.setattr(os, "pread", stale)
    with pytest.raises(UnreadableStoreError, match=r"Stale.*Another computer.*open the store again"):
        store.get_many(sentences(9))
