"""What gc removes between being listed and being read is skipped by verify, repair and gc."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.store import verification
from featurestore.store.format import directory as manifests
from featurestore.store.maintenance import gc as gc_module
from featurestore.store.maintenance import repair as repair_module
from featurestore.store.maintenance.gc import collect, unreferenced_files
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
    for module in (verification, repair_module, gc_module):
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
