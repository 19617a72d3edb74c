"""Whatever happens to a remembered opening or its folder: the right data, or the work done again."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import xxhash
from click.testing import CliRunner

from featurestore import FeatureDataset, limits
from featurestore.cli.main import cli
from featurestore.dataset.opening import folder
from featurestore.disk.filesystem import FileSystem
from tests.dataset.opening.remembered import assert_equal, counting, labelled, openings, write_corpus
from tests.kit.damage import flip_bit
from tests.kit.users import open_to_all, ordinary_user


@pytest.fixture
def opening(store, corpus):
    """The file of an opening that was remembered."""
    FeatureDataset(store, labelled(corpus))
    [path] = openings()
    return path


@pytest.fixture
def plain(store, corpus):
    """The dataset as it is when nothing is remembered."""
    return FeatureDataset(store, labelled(corpus), remember=False)


def resealed(body: bytes) -> bytes:
    """Return a file's bytes with a checksum that fits."""
    return body + xxhash.xxh3_128_digest(body)


def edited(raw: bytes, edit) -> bytes:
    """Return a file whose header was changed and whose checksum fits."""
    length = int.from_bytes(raw[8:16], "little")
    header = json.loads(raw[16 : 16 + length])
    edit(header)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    start = 16 + length + -(16 + length) % 64
    beginning = raw[:8] + len(text).to_bytes(8, "little") + text
    return resealed(beginning + bytes(-len(beginning) % 64) + raw[start:-16])


def array_edited(raw: bytes, name: str, edit) -> bytes:
    """Return a file of which an array was changed and whose checksum fits."""
    length = int.from_bytes(raw[8:16], "little")
    position, body = 16 + length, bytearray(raw[:-16])
    for other, dtype, n in json.loads(raw[16 : 16 + length])["arrays"]:
        position += -position % 64
        array = np.frombuffer(body, dtype, n, position)
        if other == name:
            edit(array)
        position += array.nbytes
    return resealed(bytes(body))


def _set(at, value):
    def edit(array):
        array[at] = value

    return edit


def _swap_names(header):
    header["facts"]["placement"]["names"] = ["NOUN", "ADJ", 7]


def _fact(name, value):
    def edit(header):
        header["facts"]["placement"][name] = value

    return edit


def _array(number, column, value):
    def edit(header):
        header["arrays"][number][column] = value

    return edit


HEADERS = {
    "another identity": lambda header: header["identity"].update(code="other"),
    "a name that is no text": _swap_names,
    "too few names": _fact("names", ["NOUN"]),
    "a kind there is not": _fact("kind", "character"),
    "labels of another kind": _fact("kind", "sentence"),
    "no labels after all": _fact("kind", None),
    "a negative count": _fact("occurrences", [-1, 2, 3]),
    "missing by half": _fact("n_missing", 0.5),
    "another number of stores": _fact("n_missing_in", [0, 0]),
    "a teller there is not": _fact("teller", 1),
    "no facts": lambda header: header.update(facts=None),
    "no findings": lambda header: header["facts"].update(findings=[]),
    "findings of something else": lambda header: header["facts"].update(findings=[{"warned": 1}]),
    "an array beyond the end": _array(0, 2, 1 << 40),
    "an array of a negative length": _array(0, 2, -1),
    "an array of objects": _array(0, 1, "|O"),
    "an array of another type": _array(0, 1, "<i4"),
    "an array of another name": _array(0, 0, "length"),
    "no arrays": lambda header: header.update(arrays=[]),
}
ARRAYS = {
    "a shard there is not": ("shard_0", _set(0, 1000)),
    "a shard below": ("shard_0", _set(0, -2)),
    "no shard, but a row": ("shard_0", _set(0, -1)),
    "a row there is not": ("row_0", _set(3, 1 << 40)),
    "a negative row": ("row_0", _set(3, -1)),
    "a length of nothing": ("lengths", _set(0, 0)),
    "a length too large": ("lengths", _set(0, 1 << 40)),
    "a label there is not": ("numbers", _set(5, 3)),
    "a label below": ("numbers", _set(5, -2)),
    "edges that do not begin": ("edges", _set(0, 1)),
    "edges that do not fit": ("edges", _set(7, 1 << 40)),
    "documents beyond the end": ("document_starts", _set(1, 1000)),
    "documents that descend": ("document_starts", _set(slice(None), 0)),
}
RAW = {
    "empty": lambda raw: b"",
    "its beginning": lambda raw: raw[:40],
    "cut": lambda raw: raw[:-1],
    "half": lambda raw: raw[: len(raw) // 2],
    "zeros, as after a power cut": lambda raw: bytes(len(raw)),
    "longer": lambda raw: raw + b"\0",
    "another format": lambda raw: resealed(b"\x89HDF\r\n\x1a\n" + raw[8:-16]),
    "a header longer than the file": lambda raw: resealed(raw[:8] + b"\xff" * 8 + raw[16:-16]),
    "a header that is no JSON": lambda raw: resealed(raw[:16] + b"[" * 100 + raw[116:-16]),
    "bytes of no array": lambda raw: resealed(raw[:-16] + bytes(64)),
    **{f"header: {name}": lambda raw, edit=edit: edited(raw, edit) for name, edit in HEADERS.items()},
    **{
        f"array: {name}": lambda raw, where=where, edit=edit: array_edited(raw, where, edit)
        for name, (where, edit) in ARRAYS.items()
    },
}


def assert_made_anew(store, corpus, plain) -> None:
    with counting() as lookups:
        dataset = FeatureDataset(store, labelled(corpus))
        assert len(lookups) == 1, "what was damaged was believed"
    assert_equal(plain, dataset)


@pytest.mark.parametrize("how", RAW)
def test_a_damaged_or_forged_file_is_not_believed_and_made_anew(store, corpus, opening, how, caplog):
    sound = opening.read_bytes()
    damaged = RAW[how](sound)
    assert damaged != sound
    opening.write_bytes(damaged)
    with caplog.at_level(logging.INFO), counting() as lookups:
        FeatureDataset(store, labelled(corpus))
        assert len(lookups) == 1, "what was damaged was believed"
        assert opening.read_bytes() == sound
        FeatureDataset(store, labelled(corpus))
        assert len(lookups) == 1
    assert str(opening) in caplog.text


def test_a_forged_file_that_is_sound_is_what_the_edits_start_from(store, corpus, opening, plain):
    raw = opening.read_bytes()
    assert edited(raw, lambda header: None) == raw == array_edited(raw, "lengths", lambda array: None)


def test_no_flipped_bit_is_believed(store, corpus, opening, plain):
    sound, random = opening.read_bytes(), np.random.default_rng(0)
    for at in random.integers(0, len(sound), 60).tolist():
        flip_bit(opening, at, at % 8)
        with counting() as lookups:
            FeatureDataset(store, labelled(corpus))
            assert len(lookups) == 1, at
        assert opening.read_bytes() == sound


@pytest.mark.parametrize("kind", ["a link", "a folder", "a pipe"])
def test_what_is_no_file_is_not_opened(store, corpus, opening, plain, kind):
    elsewhere = opening.rename(opening.with_name("elsewhere"))
    if kind == "a link":
        opening.symlink_to(elsewhere)
    elif kind == "a folder":
        opening.mkdir()
    else:
        os.mkfifo(opening)
    assert_made_anew(store, corpus, plain)


def test_a_file_that_others_may_have_changed_is_not_believed(store, corpus, opening, plain):
    opening.chmod(0o666)
    assert_made_anew(store, corpus, plain)
    if os.geteuid() == 0:
        os.chown(opening, 65534, 65534)
        assert_made_anew(store, corpus, plain)
    assert opening.stat().st_mode & 0o777 == 0o600


# -- where nothing can be written


def test_a_cache_folder_that_cannot_be_written_costs_nothing(store, corpus, plain, cache, caplog):
    open_to_all(cache.parent)
    cache.mkdir(mode=0o555)
    with ordinary_user(), caplog.at_level(logging.INFO):
        assert_equal(plain, FeatureDataset(store, labelled(corpus)))
    assert "the opening is not remembered: cannot write" in caplog.text
    assert list(cache.iterdir()) == []


def test_a_store_that_cannot_be_written_is_remembered(store, corpus, cache):
    FeatureDataset(store, labelled(corpus))
    for path in [store.path, *store.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with counting() as lookups:
        FeatureDataset(store.path, labelled(corpus))
    assert not lookups
    for path in [store.path, *store.path.rglob("*")]:
        path.chmod(0o755)


def test_a_full_disk_is_a_warning(store, corpus, plain, monkeypatch, caplog):
    class Full(FileSystem):
        def write_all(self, path, descriptor, view):
            os.write(descriptor, view[: len(view) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "LOCAL", Full())
    assert_equal(plain, FeatureDataset(store, labelled(corpus)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the opening is not remembered: no space left" in caplog.text
    assert list(folder.openings_folder().iterdir()) == []


# -- several processes


def _open(store, corpus, barrier, results):
    barrier.wait()
    dataset = FeatureDataset(store, labelled(corpus))
    results.put((len(dataset), dataset.gather([0, 7, 49]).features.sum().item()))


def test_many_processes_open_at_once(store, corpus, plain):
    context, n = multiprocessing.get_context("fork"), 6
    barrier, results = context.Barrier(n), context.Queue()
    processes = [context.Process(target=_open, args=(store.path, corpus, barrier, results)) for _ in range(n)]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in range(n)}
    for process in processes:
        process.join()
    assert found == {(50, plain.gather([0, 7, 49]).features.sum().item())}
    assert [path.name for path in folder.openings_folder().iterdir()] == [openings()[0].name]


class Dying(FileSystem):
    """Kills its process in the middle of a write."""

    def write_all(self, path, descriptor, view):
        os.write(descriptor, view[: len(view) // 2])
        os.kill(os.getpid(), signal.SIGKILL)


def _open_and_die(store, corpus):
    folder.LOCAL = Dying()
    FeatureDataset(store, labelled(corpus))


def test_what_a_killed_writer_leaves_is_swept(store, corpus, plain):
    process = multiprocessing.get_context("fork").Process(target=_open_and_die, args=(store.path, corpus))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [left] = folder.openings_folder().iterdir()
    assert left.name.endswith(".tmp")
    assert_made_anew(store, corpus, plain)
    assert folder.forget().n_removed == 1
    assert list(folder.openings_folder().iterdir()) == []


# -- room


def test_the_least_recently_used_go_first_and_those_in_use_stay(store, tmp_path, monkeypatch):
    corpora = [write_corpus(tmp_path / f"{name}.conll") for name in "abcd"]
    datasets = [FeatureDataset(store, labelled(path)) for path in corpora[:3]]
    by_corpus = [_path_of(path) for path in corpora[:3]]
    for age, path in enumerate(by_corpus):
        os.utime(path, (time.time() - 1000 + age,) * 2)
    del datasets[1:], datasets[0]  # nothing maps any of them
    FeatureDataset(store, labelled(corpora[0]))  # the oldest, used again
    in_use = FeatureDataset(store, labelled(corpora[1]))
    os.utime(by_corpus[1], (1, 1))  # used longest ago, but in use
    monkeypatch.setattr(limits, "MAX_OPENINGS", 3)
    FeatureDataset(store, labelled(corpora[3]))
    assert set(openings()) == {by_corpus[0], by_corpus[1], _path_of(corpora[3])}
    assert len(in_use) == 50
    monkeypatch.setattr(limits, "MAX_OPENINGS_BYTES", 2 * by_corpus[0].stat().st_size + 100)
    FeatureDataset(store, labelled(corpora[2]))
    assert set(openings()) == {by_corpus[1], by_corpus[2]}
    forgotten = folder.forget()
    assert (forgotten.n_removed, forgotten.n_in_use) == (1, 1)
    assert len(in_use.gather([3]).features) == 1
    monkeypatch.setattr(limits, "MAX_OPENINGS_BYTES", 100)
    FeatureDataset(store, labelled(corpora[3]))
    assert set(openings()) == {by_corpus[1]}
    by_corpus[1].with_name("folder.opening").mkdir()  # is no opening, and in nobody's way
    FeatureDataset(store, labelled(corpora[3]))
    assert len(openings()) == 2


def _path_of(corpus):
    """Return the opening of a corpus, which is known by its name."""
    [path] = [path for path in openings() if f'"{corpus.name}"'.encode() in path.read_bytes()]
    return path


def test_the_command_forgets(opening):
    n_bytes = opening.stat().st_size
    told = CliRunner().invoke(cli, ["forget", "--json"])
    assert json.loads(told.stdout) == {
        "folder": str(opening.parent), "n_removed": 1, "n_bytes": n_bytes, "n_in_use": 0
    }  # fmt: skip
    assert openings() == []
    assert "removed 0 remembered openings from" in CliRunner().invoke(cli, ["forget"]).stdout
