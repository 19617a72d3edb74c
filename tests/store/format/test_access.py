"""Files that may not be opened: told from damage, and never set aside."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.errors import (
    DamagedStoreError,
    MissingSentencesError,
    UnreadableStoreError,
    UsageError,
)
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import create, fill, sentence, sentences, shard_path
from tests.kit.users import open_to_all, ordinary_user


@pytest.fixture
def store(tmp_path) -> Store:
    """A store of several shards where an ordinary user may look."""
    open_to_all(tmp_path)
    return fill(create(tmp_path / "store.fs", shard_bytes=256), sentences(9))


def files_of(store: Store) -> list[Path]:
    return sorted(path for path in store.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("what", ["shard", "manifest"])
def test_a_file_of_another_user_is_no_damage(store, what):
    manifests = store.path / "manifests"
    path = shard_path(store, 1) if what == "shard" else max(manifests.iterdir())
    path.chmod(0)
    before = files_of(store)
    with ordinary_user():
        for look in (
            lambda: list(verify(store)),
            lambda: repair(store.path),
            lambda: repair(store.path, dry_run=True),
        ):
            with pytest.raises(UnreadableStoreError, match=r"Permission denied.*chmod -R a\+rX"):
                look()
    assert files_of(store) == before
    path.chmod(0o644)
    assert list(verify(store)) == []


@pytest.mark.parametrize("directory", ["manifests", "."])
def test_a_directory_that_may_not_be_entered(store, directory, capsys):
    (store.path / directory).chmod(0)
    try:
        with ordinary_user():
            for look in (Store.open, Store.exists):
                with pytest.raises(UnreadableStoreError, match="cannot be inspected: Permission denied"):
                    look(store.path)
            with pytest.raises(SystemExit) as stop:
                main(["info", str(store.path)])
    finally:
        (store.path / directory).chmod(0o755)
    assert stop.value.code == 1
    assert "Permission denied" in capsys.readouterr().err


def test_where_no_store_can_be_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, said in (("file/store", "is a file"), ("link", "it is a link whose target does not exist")):
        with pytest.raises(UsageError, match=said):
            create(tmp_path / name)
    with pytest.raises(UnreadableStoreError, match="File name too long"):
        create(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    "of", [{"dim": 4.0}, {"dim": True}, {"n_layers": 1.0}, {"shard_bytes": 1e6}, {"encoder": None}]
)
def test_what_no_store_can_be_made_of_is_said_and_makes_none(tmp_path, of):
    with pytest.raises(UsageError, match=r"expected (int|str)"):
        create(tmp_path / "store.fs", **of)
    assert not (tmp_path / "store.fs").exists()


def test_sentences_that_the_disk_does_not_give_are_damage_and_the_others_are_judged(
    store, tmp_path, monkeypatch
):
    entry = store.manifest.shards[1]
    bad = shard_path(store, 1)
    first = entry.extents["values"].offset
    pread, real_open = os.pread, Path.open

    def failing(descriptor, n_bytes, offset):
        here = os.readlink(f"/proc/self/fd/{descriptor}") == str(bad.resolve())
        if here and offset <= first < offset + n_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, n_bytes, offset)

    def cannot_read_whole(path, *arguments, **options):
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(os, "pread", failing)
    monkeypatch.setattr(Path, "open", cannot_read_whole)
    [found, *others] = list(verify(store))
    assert (found.shard, found.sentence) == (entry.name, 0)
    assert "Input/output error" in found.problem
    assert [other.shard for other in others] in ([], [entry.name])
    with pytest.raises(DamagedStoreError, match="Input/output error"):
        merge([store.path], tmp_path / "merged.fs")
    lost = repair(store.path)
    assert [damaged.name for damaged in lost.shards] == [f"shards/{entry.name}"]


def test_a_store_is_read_where_it_was_opened_whatever_the_working_directory(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Store.open("store.fs")
    monkeypatch.chdir("/")
    assert relative.get(sentence(1)).shape[1] == store.dim
    assert str(relative.path) == "store.fs"
    with pytest.raises(MissingSentencesError, match=r"not in store\.fs"):
        relative.get(sentence(60))
    newer = fill(relative, [sentence(60)])
    assert str(newer.path) == "store.fs"
    assert newer.get(sentence(60)).shape[1] == store.dim
    assert list(verify(newer)) == []


def test_a_missing_sentence_that_was_added_since_says_so(store):
    fill(store, [sentence(50)])
    with pytest.raises(Exception, match=r"opened at snapshot \d+ and has snapshot \d+ now: open it again"):
        store.get(sentence(50))
    assert sentence(50) in store.refreshed()


def test_nothing_is_said_when_python_ends_before_its_stores(store):
    code = (
        f"import featurestore, sys\nstore = featurestore.Store.open({str(store.path)!r})\n"
        "next(iter(store))\nsys.keep = store"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
