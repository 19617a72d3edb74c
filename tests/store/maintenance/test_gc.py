"""gc: what goes, what stays, and that no reader or writer notices."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurestore.disk import opening
from featurestore.disk.filesystem import FileSystem
from featurestore.disk.temporary import temporary_name
from featurestore.errors import DamagedStoreError, NotAStoreError, UsageError
from featurestore.store.format.directory import list_numbers, manifest_path
from featurestore.store.locks import committing
from featurestore.store.maintenance.gc import collect, unreferenced_files
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit
from tests.kit.stores import assert_holds, create, fill, sentences, shard_path, vectors_of

DAY = 24 * 3600
N = 20


@pytest.fixture
def path(tmp_path) -> Path:
    """A store of several snapshots that nobody has open."""
    store = create(tmp_path / "store.fs", shard_bytes=256)
    fill(store, sentences(N))
    return store.path


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def orphan_of(path: Path, tmp_path: Path, start: int = 900) -> Path:
    """Put a sound shard that no snapshot lists into a store, as a writer killed before its commit does."""
    other = fill(create(tmp_path / f"other{start}.fs"), sentences(3, start=start))
    return Path(shutil.copy(shard_path(other), path / "shards"))


# -- what goes


def test_old_snapshots_go_and_the_last_stay(path):
    numbers = list_numbers(path)
    assert len(numbers) > 4
    done = collect(path, older_than=0)
    assert list_numbers(path) == done.kept == numbers[-2:]
    assert [leftover.kind for leftover in done.removed] == ["manifest"] * (len(numbers) - 2)
    collect(path, keep_last=1, older_than=0)
    assert list_numbers(path) == numbers[-1:]
    assert_holds(Store.open(path), sentences(N))
    assert list(verify(Store.open(path))) == []


def test_nothing_young_goes(path, tmp_path):
    orphan_of(path, tmp_path)
    before = tree(path)
    done = collect(path, keep_last=1)
    assert done.removed == []
    assert [leftover.kind for leftover in done.too_young] == ["shard"]
    assert {name: raw for name, raw in tree(path).items() if name != "lock"} == {
        name: raw for name, raw in before.items() if name != "lock"
    }
    collect(path, keep_last=1, now=time.time() + DAY + 60)
    assert len(list_numbers(path)) == 1
    assert unreferenced_files(path)[0] == []


def test_snapshot_is_as_old_as_the_one_that_followed_it(tmp_path):
    """Until then it was the store, and a reader may have opened it a second before."""
    path = create(tmp_path / "store.fs").path
    time.sleep(0.3)
    fill(Store.open(path), sentences(3))
    followed = manifest_path(path, 2).stat().st_ctime
    assert followed - manifest_path(path, 1).stat().st_ctime >= 0.3
    assert collect(path, keep_last=1, older_than=0.2, now=followed + 0.1).removed == []
    assert len(collect(path, keep_last=1, older_than=0.2, now=followed + 0.3).removed) == 1


def test_shards_that_no_snapshot_lists_go_with_their_bytes_counted(path, tmp_path):
    orphan = orphan_of(path, tmp_path)
    n_bytes = orphan.stat().st_size
    done = collect(path, older_than=0)
    assert not orphan.exists()
    assert [(leftover.name, leftover.n_bytes) for leftover in done.removed if leftover.kind == "shard"] == [
        (f"shards/{orphan.name}", n_bytes)
    ]
    assert_holds(Store.open(path), sentences(N))


def test_shard_that_only_an_older_snapshot_lists_stays_with_it(path, tmp_path):
    """After a repair the latest snapshot lists less than the one before."""
    from featurestore.store.maintenance.repair import repair

    lost = Store.open(path).manifest.shards[0]
    file = path / "shards" / lost.name
    sound = file.read_bytes()
    flip_bit(file, lost.n_bytes - 1)
    repair(path)
    file.write_bytes(sound)  # restored from a copy
    collect(path, keep_last=2, older_than=0)
    assert file.exists()
    assert_holds(Store.open(path, snapshot=list_numbers(path)[-2]), sentences(N))
    collect(path, keep_last=1, older_than=0)
    assert not file.exists()


def test_useless_index_files_go_and_the_useful_one_stays(path):
    _ = Store.open(path).index
    (useful,) = (path / "index").glob("*.idx")
    (path / "index" / "0123456789abcdef.idx").write_bytes(b"FSINDEX1")
    (path / "index" / f".x.idx.{temporary_name('.tmp')}").write_bytes(b"half")
    done = collect(path, older_than=0)
    assert {leftover.kind for leftover in done.removed} == {"manifest", "index", "temporary"}
    assert list((path / "index").iterdir()) == [useful]


def test_files_of_strangers_and_of_repair_stay(path):
    strangers = [path / "shards" / "notes.txt", path / "damaged" / ("0" * 32 + ".h5"), path / "README"]
    for file in strangers:
        file.parent.mkdir(exist_ok=True)
        file.write_text("important")
    (path / "shards" / ("f" * 32 + ".h5")).mkdir()
    collect(path, keep_last=1, older_than=0)
    assert all(file.read_text() == "important" for file in strangers)


def test_dry_run_says_the_same_and_changes_nothing(path, tmp_path):
    orphan_of(path, tmp_path)
    (path / "tmp" / temporary_name(".h5")).write_bytes(b"half")
    before = tree(path)
    planned = collect(path, older_than=0, dry_run=True)
    assert tree(path) == before
    assert planned == collect(path, older_than=0)
    assert {leftover.kind for leftover in planned.removed} == {"manifest", "shard", "temporary"}


def test_damaged_snapshot_that_stays_keeps_every_shard(path, tmp_path):
    orphan = orphan_of(path, tmp_path)
    manifest_path(path, list_numbers(path)[-2]).write_bytes(b"{}")
    with pytest.raises(DamagedStoreError, match=r"no shard was removed: run `featurestore repair"):
        collect(path, older_than=0)
    assert orphan.exists()
    manifest_path(path, list_numbers(path)[-1]).write_bytes(b"{}")
    with pytest.raises(DamagedStoreError, match="featurestore repair"):
        collect(path, keep_last=1, older_than=0)
    assert orphan.exists()


@pytest.mark.parametrize(
    ("options", "message"), [({"keep_last": 0}, "at least 1"), ({"older_than": -1}, "future")]
)
def test_impossible_wishes_are_refused(path, options, message):
    with pytest.raises(UsageError, match=message):
        collect(path, **options)


def test_what_is_no_store_stays_as_it_is(tmp_path):
    with pytest.raises(NotAStoreError):
        collect(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- open readers


def keep_open_in_a_child(store: Store, ready, done) -> None:
    ready.set()
    assert done.wait(60)
    assert_holds(store, sentences(N))


def held(path: Path) -> bool:
    """Return whether gc leaves the first snapshot alone."""
    return 1 in collect(path, keep_last=1, older_than=0, dry_run=True).in_use


def test_snapshot_that_is_open_stays_until_it_is_closed(path, tmp_path):
    earlier = Store.open(path, snapshot=list_numbers(path)[1])
    before = [tokens for _, _, tokens in earlier.sentences()]
    done = collect(path, keep_last=1, older_than=0)
    assert done.in_use == [earlier.snapshot]
    assert_holds(Store.open(path, snapshot=earlier.snapshot), before)
    del earlier
    assert collect(path, keep_last=1, older_than=0).in_use == []


def test_made_store_and_unpickled_store_hold_their_snapshot(tmp_path):
    store = create(tmp_path / "store.fs")
    fill(store, sentences(5))
    pickled = pickle.dumps(store)
    assert held(store.path)
    del store
    path = tmp_path / "store.fs"
    assert not held(path)
    again = pickle.loads(pickled)
    assert held(path)
    del again
    collect(path, keep_last=1, older_than=0)
    gone = pickle.loads(pickled)  # its snapshot is no more; what it read then was an empty store
    assert (gone.snapshot, len(gone)) == (1, 0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store_in_another_process_is_held_by_that_process(tmp_path, method):
    context = multiprocessing.get_context(method)
    path = tmp_path / "store.fs"
    filled = fill(create(path, shard_bytes=256), sentences(N))
    number = filled.snapshot
    fill(filled, sentences(5, start=500))
    ready, done = context.Event(), context.Event()
    child = context.Process(target=keep_open_in_a_child, args=(filled, ready, done))
    child.start()
    assert ready.wait(60)
    del filled
    assert number in collect(path, keep_last=1, older_than=0).in_use
    done.set()
    child.join(60)
    assert child.exitcode == 0
    assert number not in collect(path, keep_last=1, older_than=0).kept


def test_killed_reader_holds_nothing(path):
    code = "import sys; from featurestore import Store; s = Store.open(sys.argv[1], snapshot=1)"
    code += "; print(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        child.stdout.readline()
        assert held(path)
        child.kill()
    assert not held(path)


def test_opening_while_the_latest_snapshot_goes_finds_the_one_after_it(path, monkeypatch):
    """Between finding a manifest and opening it, a commit and a gc may come."""
    really_open, calls = opening.open_for_reading, []

    def overtaken(file: Path) -> int:
        if file.suffix == ".json" and not calls:
            calls.append(file)
            fill(Store.open(path), sentences(4, start=700))
            collect(path, keep_last=1, older_than=0)
            assert not file.exists()
        return really_open(file)

    monkeypatch.setattr(opening, "open_for_reading", overtaken)
    opened = Store.open(path)
    assert calls
    assert opened.snapshot == list_numbers(path)[-1]
    assert_holds(opened, sentences(4, start=700))


def test_opening_while_a_read_snapshot_goes_finds_the_one_after_it(path, monkeypatch):
    """As above, but the manifest goes after it was read and before it is held."""
    from featurestore.store import locks

    really_open, calls = opening.open_for_reading, []

    def overtaken(file: Path) -> int:
        if not calls:
            calls.append(file)
            monkeypatch.setattr(locks, "open_for_reading", really_open)
            fill(Store.open(path), sentences(4, start=700))
            collect(path, keep_last=1, older_than=0)
        return really_open(file)

    monkeypatch.setattr(locks, "open_for_reading", overtaken)
    opened = Store.open(path)
    assert opened.snapshot == list_numbers(path)[-1]
    assert_holds(opened, sentences(4, start=700))


# -- living writers


class CollectingFileSystem(FileSystem):
    """Before every operation of a writer, has another process collect garbage, if it may without waiting."""

    def __init__(self, path: Path) -> None:
        self.path, self.n_calls, self.n_collected = path, 0, 0

    def operate(self, operation, call, *arguments):
        self.n_calls += 1
        code = (
            "import sys, fcntl\n"
            "lock = open(sys.argv[1] + '/lock', 'a')\n"
            "try:\n    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError:\n    sys.exit(7)\n"
        )
        held = (
            subprocess.run([sys.executable, "-S", "-E", "-c", code, str(self.path)], check=False).returncode
            == 7
        )
        if not held:
            collect(self.path, keep_last=1, older_than=0)
            self.n_collected += 1
        return super().operate(operation, call, *arguments)


def test_gc_at_any_moment_of_a_commit_costs_nothing(path, tmp_path):
    orphan = orphan_of(path, tmp_path)
    meddling = CollectingFileSystem(path)
    with Store.open(path, filesystem=meddling).write() as session:
        for tokens in sentences(3, start=900):  # the very shard that lies there already
            session.add(tokens, vectors_of(tokens))
    assert 0 < meddling.n_collected < meddling.n_calls
    opened = Store.open(path)
    assert orphan.exists() == (orphan.name in {shard.name for shard in opened.manifest.shards})
    assert_holds(opened, [*sentences(N), *sentences(3, start=900)])
    assert list(verify(opened)) == []


def test_gc_waits_for_a_commit_that_is_under_way_and_says_so(path, tmp_path):
    orphan = orphan_of(path, tmp_path)
    module = "featurestore.store.maintenance.gc"
    code = f"import sys; from {module} import collect; collect(sys.argv[1], older_than=0)"
    with committing(path):
        child = subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE, text=True)
        assert f"waiting for {path / 'lock'}" in child.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        assert orphan.exists()
    assert child.wait(60) == 0
    child.stderr.close()
    assert not orphan.exists()


def _write_many(path: Path, start: int) -> None:
    for first in range(start, start + 36, 6):
        with Store.open(path).write() as session:
            for tokens in sentences(6, start=first):
                session.add(tokens, vectors_of(tokens))


def _read_many(path: Path, n_rounds: int) -> None:
    for _ in range(n_rounds):
        store = Store.open(path)
        everything = [tokens for _, _, tokens in store.sentences()]
        assert_holds(store, everything)


def test_writers_and_readers_do_not_notice_gc(tmp_path):
    context = multiprocessing.get_context("fork")
    path = create(tmp_path / "store.fs", shard_bytes=256).path
    children = [context.Process(target=_write_many, args=(path, start)) for start in (0, 30, 45)]
    children += [context.Process(target=_read_many, args=(path, 15)) for _ in range(2)]
    for child in children:
        child.start()
    n_removed = 0
    while any(child.is_alive() for child in children):
        n_removed += len(collect(path, keep_last=1, older_than=0).removed)
    assert [child.exitcode for child in children] == [0] * len(children)
    assert n_removed > 10
    opened = Store.open(path)
    assert sorted(tokens for _, _, tokens in opened.sentences()) == sorted(sentences(81))
    assert_holds(opened, sentences(81))
    assert list(verify(opened)) == []
