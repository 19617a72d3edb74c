"""What gc removes between being listed and being read is skipped by verify, repair and gc."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.disk.temporary import temporary_name
from featurestore.store import verification
from featurestore.store.format import directory as manifests
from featurestore.store.maintenance import gc as gc_module
from featurestore.store.maintenance import snapshots as snapshots_module
from featurestore.store.maintenance.gc import collect, orphaned_files, unreferenced_files
from featurestore.store.maintenance.repair import repair
from featurestore.store.store import Store
from tests.kit.stores import create, fill, sentences, shard_path


@pytest.fixture
def path(tmp_path) -> Path:
    """A store of several snapshots, and a shard that none references."""
    store = fill(create(tmp_path / "store.fs", shard_bytes=256), sentences(12))
    other = fill(create(tmp_path / "other.fs"), sentences(3, start=2))
    shutil.copy(shard_path(other), store.path / "shards")
    return store.path


@pytest.fixture
def gc_between(monkeypatch, path):
    """Let gc run whenever a list of snapshots or shards was made, before what it names is read."""
    listed = manifests.list_numbers

    def numbers_then_gc(store: Path, *others) -> list[int]:
        numbers = listed(store, *others)
        with pytest.MonkeyPatch.context() as undisturbed:
            undisturbed.setattr(gc_module, "list_numbers", listed)
            if not busy:
                busy.append(True)
                collect(store, keep_last=1, older_than=0)
                busy.pop()
        return numbers

    busy: list[bool] = []
    for module in (verification, snapshots_module, gc_module):
        monkeypatch.setattr(module, "list_numbers", numbers_then_gc)
    return busy


@pytest.mark.usefixtures("gc_between")
def test_verify_skips_snapshots_that_gc_removes(path):
    store = Store.open(path)
    before = manifests.list_numbers(path)
    assert list(verification.verify(store)) == []
    assert manifests.list_numbers(path) == before[-1:]


@pytest.mark.usefixtures("gc_between")
@pytest.mark.parametrize("command", ["verify", "repair"])
def test_commands_call_a_sound_store_sound_while_gc_runs(path, command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, str(path), *(["--dry-run"] if command == "repair" else [])])
    assert stop.value.code in (0, None)
    assert "damaged" not in capsys.readouterr().out


def test_repair_skips_snapshots_and_shards_that_gc_removes(path, gc_between):
    assert repair(path, dry_run=True).damaged == []


def test_what_lists_garbage_skips_snapshots_that_gc_removes(path, gc_between):
    assert unreferenced_files(path) == ([], [])


def test_a_dry_run_of_gc_skips_snapshots_that_another_gc_removes(path, gc_between):
    done = collect(path, dry_run=True)
    assert done.kept


def test_repair_goes_on_from_what_was_committed_while_gc_removed_the_last_snapshot(path, monkeypatch):
    listed = manifests.list_numbers

    def numbers_then_commit(store: Path, *others) -> list[int]:
        numbers = listed(store, *others)
        monkeypatch.undo()
        fill(Store.open(store), sentences(15))
        collect(store, keep_last=1, older_than=0)
        return numbers

    monkeypatch.setattr(snapshots_module, "list_numbers", numbers_then_commit)
    assert repair(path, dry_run=True).sound
    assert len(Store.open(path)) == 15


def test_what_no_snapshot_references_is_found_while_another_gc_removes_snapshots(path, monkeypatch):
    (stray,) = unreferenced_files(path)[0]
    left, listed = stray.read_bytes(), manifests.list_numbers

    def numbers_then_gc(store: Path) -> list[int]:
        numbers = listed(store)
        monkeypatch.undo()
        collect(store, keep_last=1, older_than=0)
        stray.write_bytes(left)  # of a writer that was killed meanwhile
        return numbers

    monkeypatch.setattr(gc_module, "list_numbers", numbers_then_gc)
    assert unreferenced_files(path)[0] == [stray]


def test_what_a_snapshot_that_cannot_be_read_needs_is_not_called_unreferenced(path):
    assert unreferenced_files(path)[0]
    manifests.manifest_path(path, 2).write_bytes(b"{}")
    assert unreferenced_files(path) == ([], [])


def test_a_temporary_file_that_goes_while_it_is_looked_at_is_not_orphaned(path, monkeypatch):
    left, lstat = path / "tmp" / temporary_name(".h5"), Path.lstat
    left.write_bytes(b"half a shard")
    assert orphaned_files(path) == [left]

    def too_late(file: Path):
        if file == left:
            file.unlink(missing_ok=True)
        return lstat(file)

    monkeypatch.setattr(Path, "lstat", too_late)
    assert orphaned_files(path) == []
    assert not left.exists()
